package api

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A filter arrives as it was sent, but for states of one name, which come together.
func TestConnectionFilterTravels(t *testing.T) {
	prefix := netip.MustParsePrefix
	full := lvs.ConnectionFilter{
		Protocol: lvs.SCTP,
		Client:   lvs.Endpoint{Prefix: prefix("2001:db8::/32"), Port: 40000}, Virtual: lvs.Endpoint{Port: 80},
		Server: lvs.Endpoint{Prefix: prefix("192.0.2.11/32")},
		States: []lvs.ConnectionState{lvs.StateFinWait, lvs.StateAssured}, Kind: lvs.OnlyTemplates,
		IdleAtLeast: 7 * time.Second, ExpiresWithin: 9 * time.Hour, Limit: 12,
	}
	by := []lvs.ConnectionField{lvs.FieldServer, lvs.FieldState}
	for _, filter := range []lvs.ConnectionFilter{{}, {Kind: lvs.OnlyConnections}, full} {
		d := &recorder{}
		c := serve(t, d)
		if err := c.FindConnections(t.Context(), filter, func(lvs.Connection) error { return nil }); err != nil {
			t.Error(err)
		}
		count, err := c.CountConnections(t.Context(), filter, by)
		if diff := cmp.Diff(testCount, count); err != nil || diff != "" {
			t.Errorf("%v, -want +got:\n%s", err, diff)
		}
		want := []string{fmt.Sprintf("find connections %+v", filter), fmt.Sprintf("count connections %+v by %v", filter, by)}
		if diff := cmp.Diff(want, d.calls); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	d := &recorder{}
	established, err := lvs.ConnectionStatesNamed("established")
	if err != nil || len(established) != 2 {
		t.Fatalf("%v, %v; want one of TCP and one of SCTP", established, err)
	}
	if _, err := serve(t, d).CountConnections(t.Context(), lvs.ConnectionFilter{States: established[:1]}, by); err != nil {
		t.Error(err)
	}
	want := fmt.Sprintf("count connections %+v by %v", lvs.ConnectionFilter{States: established}, by)
	if diff := cmp.Diff([]string{want}, d.calls); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBadConnectionFilters(t *testing.T) {
	d := &recorder{}
	c := serve(t, d)
	for name, request := range map[string]*fairleadv1.CountConnectionsRequest{
		"protocol": {Filter: &fairleadv1.ConnectionFilter{Protocol: 1}},
		"client":   {Filter: &fairleadv1.ConnectionFilter{Client: "here"}},
		"virtual":  {Filter: &fairleadv1.ConnectionFilter{Virtual: "192.0.2.1:"}},
		"server":   {Filter: &fairleadv1.ConnectionFilter{Server: "192.0.2.0/33"}},
		"states":   {Filter: &fairleadv1.ConnectionFilter{States: []string{"ESTABLISHED", ""}}},
		"kind":     {Filter: &fairleadv1.ConnectionFilter{Kind: 3}},
		"no kind":  {Filter: &fairleadv1.ConnectionFilter{Kind: -1}},
		"by":       {By: []string{"server", "age"}},
		"limit":    {Limit: 1 << 31},
	} {
		_, err := c.service.CountConnections(t.Context(), connect.NewRequest(request))
		if err = c.refused(err); !errors.Is(err, lvs.ErrInvalid) && !errors.Is(err, lvs.ErrRange) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, filter := range []lvs.ConnectionFilter{{IdleAtLeast: time.Millisecond}, {ExpiresWithin: -time.Second}, {Limit: -1}} {
		if err := c.FindConnections(t.Context(), filter, nil); err == nil {
			t.Errorf("%+v was sent", filter)
		}
	}
	if len(d.calls) != 0 {
		t.Errorf("the director was asked: %q", d.calls)
	}
}
