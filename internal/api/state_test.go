package api

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestStatesArrive(t *testing.T) {
	g := newGenerator(t)
	want := lvs.State{
		Sysctls: []lvs.SysctlSetting{{Name: "sloppy_tcp", Value: -1}},
		Peers:   []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
	}
	want.Marks = []lvs.MarkRule{
		{Mark: 1<<32 - 1, SourcePorts: lvs.AllPorts, DestinationPorts: lvs.PortRange{First: 80, Last: 80}},
		{Mark: 1, Protocol: lvs.UDP, Source: netip.MustParsePrefix("2001:db8::/32"), Destination: netip.MustParsePrefix("2001:db8::/64"),
			SourcePorts: lvs.PortRange{First: 1, Last: 2}, DestinationPorts: lvs.AllPorts},
	}
	for _, local := range testLocalAddresses {
		want.LocalAddresses = append(want.LocalAddresses, local.LocalAddress)
	}
	// As many services and servers as a data plane takes: more than another request may weigh.
	for range 4096 {
		want.Services = append(want.Services, lvs.ServiceState{
			Service: g.service(), Sysctls: []lvs.SysctlSetting{{Name: "timeout_udp", Value: 7}},
			Servers: []lvs.RealServer{g.server(), g.server(), g.server(), g.server()},
		})
	}
	d := &recorder{}
	c := serve(t, d)
	changes, err := c.Restore(t.Context(), want, true)
	if diff := cmp.Diff([]string{"one", "two"}, changes); err != nil || diff != "" {
		t.Errorf("%v, -sent +received:\n%s", err, diff)
	}
	got, err := c.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, received := range []lvs.State{d.state, got} {
		if diff := cmp.Diff(want, received, compareAddresses); diff != "" {
			t.Errorf("-sent +received:\n%.2000s", diff)
		}
	}
	if diff := cmp.Diff([]string{"restore true", "state"}, d.calls); diff != "" {
		t.Errorf("-want +called:\n%s", diff)
	}
}

func TestRefusedItemsKeepTheirPlace(t *testing.T) {
	d := &recorder{refusal: &lvs.ItemError{Item: "services[3].servers[1]", Err: fmt.Errorf("port 81: %w", lvs.ErrInvalid)}}
	_, err := serve(t, d).Restore(t.Context(), lvs.State{}, false)
	var item *lvs.ItemError
	if !errors.As(err, &item) || item.Item != "services[3].servers[1]" || !errors.Is(err, lvs.ErrInvalid) || err.Error() != "port 81: invalid" {
		t.Errorf("got %v", err)
	}
}

func TestBadStates(t *testing.T) {
	service := &fairleadv1.Service{Key: &fairleadv1.ServiceKey{Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Address: "192.0.2.100:80"}}
	for _, test := range []struct {
		state      *fairleadv1.State
		item, says string
	}{
		{nil, "", "missing"},
		{&fairleadv1.State{Peers: []string{"192.0.2.10", "rs1"}}, "peers[1]", `"rs1"`},
		{&fairleadv1.State{Marks: []*fairleadv1.MarkRule{{Mark: 1}}}, "marks[0]", "ports"},
		{&fairleadv1.State{Marks: []*fairleadv1.MarkRule{{Mark: 1, Source: "x"}}}, "marks[0]", `"x"`},
		{&fairleadv1.State{Services: []*fairleadv1.ServiceState{{}}}, "services[0]", "missing"},
		{&fairleadv1.State{Services: []*fairleadv1.ServiceState{nil}}, "services[0]", "missing"},
		{&fairleadv1.State{Services: []*fairleadv1.ServiceState{{Service: service}, {Service: service,
			Servers: []*fairleadv1.RealServer{{Address: "192.0.2.11"}}}}}, "services[1].servers[0]", "192.0.2.11"},
	} {
		_, err := (&handler{director: &recorder{}}).Restore(t.Context(), connect.NewRequest(&fairleadv1.RestoreRequest{State: test.state}))
		err = fromWire(err)
		var item *lvs.ItemError
		at := ""
		if errors.As(err, &item) {
			at = item.Item
		}
		if err == nil || at != test.item || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: got %q, %v", test.state, at, err)
		}
	}
}

// A file that says all that fits into a data plane is taken, and not one beyond measure.
func TestApplyTakesLargeFiles(t *testing.T) {
	c := serve(t, &recorder{})
	if _, err := c.Apply(t.Context(), ApplyRequest{Name: "large.yaml", Text: make([]byte, 2*maxRequest), DryRun: true}); err != nil {
		t.Errorf("a large file: %v", err)
	}
	if _, err := c.Apply(t.Context(), ApplyRequest{Name: "larger.yaml", Text: make([]byte, maxState+1), DryRun: true}); err == nil {
		t.Error("a file beyond measure is taken")
	}
}
