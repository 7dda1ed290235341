package director

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var otherDirector = netip.MustParseAddr("192.0.2.9")

// fullState is a state with something of everything.
func fullState() lvs.State {
	return lvs.State{
		Sysctls: []lvs.SysctlSetting{{Name: "drop_entry", Value: 1}, {Name: "timeout_established", Value: 3600}},
		Peers:   []netip.Addr{otherDirector},
		Marks: []lvs.MarkRule{{Mark: 7, Protocol: lvs.TCP, Destination: netip.MustParsePrefix("192.0.2.100/32"),
			SourcePorts: lvs.AllPorts, DestinationPorts: lvs.PortRange{First: 6000, Last: 6100}}},
		LocalAddresses: []lvs.LocalAddress{localAddress("192.0.2.32/28"), localAddress("2001:db8::20/128")},
		Services: []lvs.ServiceState{
			{
				Service: changed(wlc(vip), func(s *lvs.Service) { s.Scheduler, s.SchedulerFlags = lvs.SourceHashing, lvs.SHPort }),
				Sysctls: []lvs.SysctlSetting{{Name: "timeout_established", Value: 900}},
				Servers: []lvs.RealServer{
					changed(routed("192.0.2.12", 80), func(r *lvs.RealServer) { r.UpperThreshold, r.LowerThreshold = 10, 5 }),
					changed(routed("192.0.2.11", 80), func(r *lvs.RealServer) { r.Weight = 0 }),
				},
			},
			{Service: wlc(vip6), Servers: []lvs.RealServer{
				changed(routed("2001:db8::12", 8080), func(r *lvs.RealServer) { r.Method, r.TOA = lvs.FullNAT, true }),
				routed("2001:db8::11", 80),
			}},
		},
	}
}

func (b bench) mustRestore(t *testing.T, state lvs.State) []string {
	t.Helper()
	changes, err := b.Restore(t.Context(), state, false)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func (b bench) wantState(t *testing.T, want lvs.State) {
	t.Helper()
	got, err := b.State(t.Context())
	if diff := cmp.Diff(want, got, compareAddresses); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

func TestRestore(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	want := fullState()
	planned, err := b.Restore(ctx, want, true)
	if err != nil || len(planned) == 0 {
		t.Errorf("dry run: %v, %v", planned, err)
	}
	b.wantState(t, lvs.State{})
	if diff := cmp.Diff(planned, b.mustRestore(t, want)); diff != "" {
		t.Errorf("-planned +changed:\n%s", diff)
	}
	b.wantState(t, want)
	if changes := b.mustRestore(t, want); len(changes) != 0 {
		t.Errorf("restored again: %v", changes)
	}
	b.watched(t, otherDirector, netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12"),
		netip.MustParseAddr("2001:db8::11"), netip.MustParseAddr("2001:db8::12"))
	if got := b.plane.service(vip).Servers[0].NextHop.Destination; got != hop.Destination {
		t.Errorf("next hop of a restored server: %v", got)
	}
	b.mustRestore(t, lvs.State{})
	b.wantState(t, lvs.State{})
	b.watched(t)
}

// What is told in another way than it is read back makes no difference.
func TestRestoreOfTheSame(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	b.mustRestore(t, fullState())
	same := fullState()
	same.Sysctls[0].Value = 2 // drop_entry, while the table is nearly full
	same.Sysctls = append(same.Sysctls, lvs.SysctlSetting{Name: "timeout_udp", Value: 300})
	same.Services[0].PersistenceMask = 0xffffff00 // of no persistence
	if changes := b.mustRestore(t, same); len(changes) != 0 {
		t.Errorf("changed: %v", changes)
	}
	b.wantState(t, fullState())
}

func TestRestoreKeepsWhatStays(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	b.mustRestore(t, fullState())
	b.plane.service(vip).Servers[1].Active = 7
	want := fullState()
	want.Services[0].Scheduler = lvs.RoundRobin
	want.Services[0].Servers = []lvs.RealServer{routed("192.0.2.11", 80), routed("192.0.2.13", 80)}
	b.mustRestore(t, want)
	b.wantState(t, want)
	if got := b.plane.service(vip).Servers[0].Active; got != 7 {
		t.Errorf("%d connections are left of 7", got)
	}
}

// Whatever change fails, all is as before.
func TestFailedRestoreIsUndone(t *testing.T) {
	want := lvs.State{
		Sysctls: []lvs.SysctlSetting{{Name: "sloppy_tcp", Value: 1}},
		Services: []lvs.ServiceState{
			{Service: wlc(vip), Servers: []lvs.RealServer{routed("192.0.2.13", 80), routed("192.0.2.11", 80)}},
			{Service: wlc(changed(vip, func(k *lvs.ServiceKey) { k.Port = 443 })), Servers: []lvs.RealServer{routed("192.0.2.13", 443)}},
		},
	}
	failed := 0
	for n := 1; ; n++ {
		b := newBench(t, newMemoryPlane())
		b.mustRestore(t, fullState())
		b.plane.failAt = n
		_, err := b.Restore(t.Context(), want, false)
		if b.plane.failAt > 0 {
			break // it made fewer changes
		}
		if err == nil {
			continue // a next hop was not written: that is a state of its own
		}
		failed++
		if !errors.Is(err, errPlane) {
			t.Errorf("change %d: %v", n, err)
		}
		b.wantState(t, fullState())
		b.mustRestore(t, want)
		b.wantState(t, want)
	}
	if failed < 8 {
		t.Errorf("only %d changes failed", failed)
	}
}

func TestRestoreThatCannotBeUndoneSaysSo(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	b.mustRestore(t, fullState())
	b.plane.failAt, b.plane.failOn = 3, true
	_, err := b.Restore(t.Context(), lvs.State{}, false)
	expect(t, err, errPlane, "the state is in between")
}

func TestBadStatesChangeNothing(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*lvs.State)
		item   string
		reason error
	}{
		{"sysctl", func(s *lvs.State) { s.Sysctls[1].Name = "nosuch" }, "sysctls[1]", lvs.ErrInvalid},
		{"sysctl's range", func(s *lvs.State) { s.Sysctls[0].Value = 4 }, "sysctls[0]", lvs.ErrRange},
		{"sysctl twice", func(s *lvs.State) { s.Sysctls = append(s.Sysctls, s.Sysctls[0]) }, "sysctls[2]", lvs.ErrInvalid},
		{"peer", func(s *lvs.State) { s.Peers[0] = ownIP }, "peers[0]", lvs.ErrInvalid},
		{"peer twice", func(s *lvs.State) { s.Peers = append(s.Peers, otherDirector) }, "peers[1]", lvs.ErrInvalid},
		{"mark", func(s *lvs.State) { s.Marks[0].Mark = 0 }, "marks[0]", lvs.ErrInvalid},
		{"mark twice", func(s *lvs.State) { s.Marks = append(s.Marks, s.Marks[0]) }, "marks[1]", lvs.ErrInvalid},
		{"local address", func(s *lvs.State) { s.LocalAddresses[1].Ports.First = 0 }, "local_addresses[1]", lvs.ErrInvalid},
		{"local address twice", func(s *lvs.State) { s.LocalAddresses[1].Prefix = netip.MustParsePrefix("192.0.2.40/32") }, "local_addresses[1]", lvs.ErrInvalid},
		{"no local address", func(s *lvs.State) { s.LocalAddresses = s.LocalAddresses[:1] }, "services[1].servers[0]", lvs.ErrInvalid},
		{"TOA of direct routing", func(s *lvs.State) { s.Services[1].Servers[1].TOA = true }, "services[1].servers[1]", lvs.ErrInvalid},
		{"scheduler", func(s *lvs.State) { s.Services[1].Scheduler = "nosuch" }, "services[1]", lvs.ErrSchedulerNotFound},
		{"service twice", func(s *lvs.State) { s.Services[1].ServiceKey = vip }, "services[1]", lvs.ErrInvalid},
		{"own sysctl", func(s *lvs.State) { s.Services[0].Sysctls[0].Name = "amemthresh" }, "services[0].sysctls[0]", lvs.ErrInvalid},
		{"server's port", func(s *lvs.State) { s.Services[0].Servers[1].Port = 81 }, "services[0].servers[1]", lvs.ErrInvalid},
		{"server twice", func(s *lvs.State) { s.Services[0].Servers[1] = s.Services[0].Servers[0] }, "services[0].servers[1]", lvs.ErrInvalid},
		{"thresholds", func(s *lvs.State) { s.Services[0].Servers[0].LowerThreshold = 11 }, "services[0].servers[0]", lvs.ErrRange},
		{"method", func(s *lvs.State) { s.Services[1].Servers[0].Method = lvs.Local }, "services[1].servers[0]", lvs.ErrInvalid},
	} {
		b := newBench(t, newMemoryPlane())
		state := fullState()
		test.change(&state)
		_, err := b.Restore(t.Context(), state, false)
		expect(t, err, test.reason, "")
		var item *lvs.ItemError
		if !errors.As(err, &item) || item.Item != test.item {
			t.Errorf("%s: got %v, want a refusal of %s", test.name, err, test.item)
		}
		b.wantState(t, lvs.State{})
	}
}
