package director

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

var hop = lvs.NextHop{InterfaceIndex: 2, InterfaceName: "eth0", Destination: lvs.MAC{2, 0, 0, 0, 0, 11}, MTU: 1500}

// A bench is a director with all that is around it.
type bench struct {
	*Director
	plane   *memoryPlane
	watcher *fakeWatcher
}

func newBench(t *testing.T, p *memoryPlane) bench {
	t.Helper()
	w := newFakeWatcher()
	d, err := newDirector(p, w, slog.New(slog.DiscardHandler), isOwn)
	if err != nil {
		t.Fatal(err)
	}
	w.answer = func(addr netip.Addr) { d.hops.learn(addr, hop) }
	return bench{d, p, w}
}

func (b bench) must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func (b bench) watched(t *testing.T, want ...netip.Addr) {
	t.Helper()
	set := map[netip.Addr]bool{}
	for _, addr := range want {
		set[addr] = true
	}
	if diff := cmp.Diff(set, b.watcher.watched, compareAddresses); diff != "" {
		t.Errorf("-want +watched:\n%s", diff)
	}
}

func TestServices(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	expect(t, b.EditService(ctx, wlc(vip)), lvs.ErrNoService, vip.String())
	expect(t, b.DeleteService(ctx, vip), lvs.ErrNoService, vip.String())
	expect(t, b.ZeroService(ctx, vip), lvs.ErrNoService, vip.String())
	expect(t, b.AddServer(ctx, vip, routed("192.0.2.11", 80)), lvs.ErrNoService, "192.0.2.11:80")
	_, err := b.Service(ctx, vip)
	expect(t, err, lvs.ErrNoService, vip.String())

	b.must(t, b.AddService(ctx, changed(wlc(vip), func(s *lvs.Service) { s.PersistenceMask = 24 })))
	expect(t, b.AddService(ctx, changed(wlc(vip), func(s *lvs.Service) { s.Scheduler = "nosuch" })),
		lvs.ErrServiceExists, "add service TCP 192.0.2.100:80: ") // as IPVS: it is there, before all else
	b.must(t, b.AddService(ctx, wlc(vip6)))
	b.must(t, b.EditService(ctx, changed(wlc(vip), func(s *lvs.Service) { s.Scheduler = lvs.RoundRobin })))
	expect(t, b.EditService(ctx, changed(wlc(vip), func(s *lvs.Service) { s.Scheduler = "nosuch" })), lvs.ErrSchedulerNotFound, "nosuch")

	services, err := b.Services(ctx)
	want := []lvs.ServiceStatus{
		{Service: changed(wlc(vip), func(s *lvs.Service) { s.Scheduler = lvs.RoundRobin })}, {Service: wlc(vip6)},
	}
	if diff := cmp.Diff(want, services, compareAddresses); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	b.must(t, b.DeleteService(ctx, vip))
	b.must(t, b.Clear(ctx))
	if len(b.plane.services) != 0 {
		t.Errorf("left after clear: %v", b.plane.services)
	}
	b.must(t, b.AddService(ctx, wlc(vip)))
}

func TestServers(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	first, second := routed("192.0.2.11", 80), routed("192.0.2.12", 80)
	b.must(t, b.AddService(ctx, wlc(vip)))
	expect(t, b.EditServer(ctx, vip, first), lvs.ErrNoServer, "192.0.2.11:80 of TCP 192.0.2.100:80")
	expect(t, b.DeleteServer(ctx, vip, first.RealServerKey), lvs.ErrNoServer, "192.0.2.11:80")
	b.must(t, b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second))
	expect(t, b.AddServer(ctx, vip, first), lvs.ErrServerExists, "192.0.2.11:80")
	expect(t, b.AddServer(ctx, vip, changed(first, func(r *lvs.RealServer) { r.LowerThreshold = 1 })),
		lvs.ErrRange, "threshold") // as IPVS: before it looks whether the server exists
	b.must(t, b.EditServer(ctx, vip, changed(first, func(r *lvs.RealServer) { r.Weight = 0 })))
	expect(t, b.EditServer(ctx, vip, changed(first, func(r *lvs.RealServer) { r.Method = lvs.Local })),
		lvs.ErrInvalid, "local by itself")

	service, err := b.Service(ctx, vip)
	want := lvs.ServiceStatus{Service: wlc(vip), Servers: []lvs.RealServerStatus{
		{RealServer: second, NextHop: hop, ConfiguredWeight: second.Weight},
		{RealServer: changed(first, func(r *lvs.RealServer) { r.Weight = 0 }), NextHop: hop},
	}}
	if diff := cmp.Diff(want, service, compareAddresses); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	b.watched(t, first.Address, second.Address)
	b.must(t, b.DeleteServer(ctx, vip, first.RealServerKey))
	b.watched(t, second.Address)
	b.must(t, b.DeleteService(ctx, vip))
	b.watched(t)
}

func TestAddressOfSeveralServersIsWatchedOnce(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	https := changed(vip, func(k *lvs.ServiceKey) { k.Port = 443 })
	server := routed("192.0.2.11", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddService(ctx, wlc(https)))
	b.must(t, b.AddServer(ctx, vip, server))
	b.watcher.answer = func(netip.Addr) { t.Error("asked a second time") }
	b.must(t, b.AddServer(ctx, https, routed("192.0.2.11", 443)))
	service, err := b.Service(ctx, https)
	if err != nil || len(service.Servers) != 1 || service.Servers[0].NextHop != hop {
		t.Errorf("the second server does not know the next hop of the first: %+v, %v", service, err)
	}
	b.must(t, b.DeleteService(ctx, vip))
	b.watched(t, server.Address)
	b.must(t, b.Clear(ctx))
	b.watched(t)
}

func TestNextHopChanges(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	server := routed("192.0.2.11", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, server))
	lost := lvs.NextHop{Problem: "192.0.2.11 does not answer ARP on eth0"}
	b.hops.learn(server.Address, lost)
	service, err := b.Service(ctx, vip)
	if err != nil || service.Servers[0].NextHop != lost {
		t.Errorf("got %+v, %v, want %+v", service.Servers, err, lost)
	}
	b.must(t, b.DeleteServer(ctx, vip, server.RealServerKey))
	before := b.plane.hopWrites[server.Address]
	b.hops.learn(server.Address, hop)
	if after := b.plane.hopWrites[server.Address]; after != before {
		t.Error("an update of a forgotten address was written")
	}
}

func TestSilentServersDoNotHoldUpARestore(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	b.watcher.answer = func(netip.Addr) {}
	b.must(t, b.AddService(ctx, wlc(vip)))
	const servers = 100
	began := time.Now()
	for i := range servers {
		b.must(t, b.AddServer(ctx, vip, routed(fmt.Sprintf("198.18.0.%d", i+1), 80)))
	}
	if took := time.Since(began); took > servers*resolveWait/4 {
		t.Errorf("%d silent servers took %v", servers, took)
	}
	b.hops.learn(netip.MustParseAddr("198.18.0.1"), hop)
	service, err := b.Service(ctx, vip)
	if err != nil || service.Servers[servers-1].NextHop != hop {
		t.Errorf("a late answer is not written: %+v, %v", service.Servers[servers-1], err)
	}
}

// What the plane refuses has not happened.
func TestFailedChangesLeaveNothing(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	server := routed("192.0.2.11", 80)
	b.must(t, b.AddService(ctx, wlc(vip)))
	b.plane.fail = errPlane
	for name, err := range map[string]error{
		"add service":    b.AddService(ctx, wlc(vip6)),
		"edit service":   b.EditService(ctx, wlc(vip)),
		"delete service": b.DeleteService(ctx, vip),
		"clear":          b.Clear(ctx),
		"add server":     b.AddServer(ctx, vip, server),
		"zero":           b.Zero(ctx),
		"set timeouts":   b.SetTimeouts(ctx, lvs.Timeouts{TCP: time.Second}),
		"add mark rule":  b.AddMarkRule(ctx, lvs.MarkRule{Mark: 1}, 0),
		"set sysctls":    b.SetSysctls(ctx, vip, []lvs.SysctlChange{{Name: "sloppy_tcp", Value: 1}}),
	} {
		if !errors.Is(err, errPlane) {
			t.Errorf("%s: got %v, want %v", name, err, errPlane)
		}
	}
	b.watched(t)
	b.plane.fail = nil
	b.must(t, b.AddServer(ctx, vip, server), b.AddService(ctx, wlc(vip6)))
	b.plane.fail = errPlane
	if err := b.DeleteServer(ctx, vip, server.RealServerKey); !errors.Is(err, errPlane) {
		t.Errorf("delete server: got %v", err)
	}
	b.watched(t, server.Address)
}

// A director that starts takes its services from the plane.
func TestTakeOver(t *testing.T) {
	first, ctx := newBench(t, newMemoryPlane()), t.Context()
	server := routed("192.0.2.11", 80)
	first.must(t, first.AddService(ctx, wlc(vip)), first.AddServer(ctx, vip, server))

	second := newBench(t, first.plane)
	second.watched(t, server.Address)
	service, err := second.Service(ctx, vip)
	if err != nil || service.Servers[0].NextHop.Destination != hop.Destination {
		t.Errorf("the next hop is lost until it is found again: %+v, %v", service.Servers, err)
	}
	expect(t, second.AddService(ctx, wlc(vip)), lvs.ErrServiceExists, "")
	expect(t, second.AddServer(ctx, vip, server), lvs.ErrServerExists, "")
	second.must(t, second.DeleteServer(ctx, vip, server.RealServerKey))
	second.watched(t)
}

func TestStatus(t *testing.T) {
	p := newMemoryPlane()
	p.connections = make([]lvs.Connection, 3)
	b := newBench(t, p)
	b.must(t, b.sweep())
	status, err := b.Status(t.Context())
	if err != nil || status.TableSize != 4096 || status.TableUsed != 3 || len(status.Verdicts) != 1 {
		t.Errorf("got %+v, %v", status, err)
	}
	seen := 0
	if err := b.FindConnections(t.Context(), lvs.ConnectionFilter{}, func(lvs.Connection) error { seen++; return nil }); err != nil || seen != 3 {
		t.Errorf("%d connections, %v", seen, err)
	}
	if err := b.FindConnections(t.Context(), lvs.ConnectionFilter{}, func(lvs.Connection) error { return errPlane }); err != errPlane {
		t.Errorf("visit's error: got %v", err)
	}
}

func TestRatesAndZero(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	b.must(t, b.AddService(ctx, wlc(vip)))
	b.plane.service(vip).Counters.Connections = 800
	b.must(t, b.estimate())
	service, err := b.Service(ctx, vip)
	if err != nil || service.Rates.Connections != 100 {
		t.Errorf("rate %d, %v, want 100", service.Rates.Connections, err)
	}
	b.must(t, b.Zero(ctx))
	service, err = b.Service(ctx, vip)
	if err != nil || service.Rates != (lvs.Rates{}) || service.Counters != (lvs.Counters{}) {
		t.Errorf("after zero: %+v, %v", service, err)
	}
	b.must(t, b.SetTimeouts(ctx, lvs.Timeouts{UDP: time.Minute}))
	if got, err := b.Timeouts(ctx); err != nil || got.UDP != time.Minute {
		t.Errorf("timeouts %v, %v", got, err)
	}
}

// Of changes of which one is refused, the data plane hears of none.
func TestSysctlsAreCheckedFirst(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	ctx := t.Context()
	good := lvs.SysctlChange{Name: "sloppy_tcp", Value: 1}
	for _, test := range []struct {
		name    string
		service lvs.ServiceKey
		change  lvs.SysctlChange
		reason  error
	}{
		{"unknown", lvs.ServiceKey{}, lvs.SysctlChange{Name: "nosuch"}, lvs.ErrInvalid},
		{"absent", lvs.ServiceKey{}, lvs.SysctlChange{Name: "sync_ports", Value: 1}, lvs.ErrUnsupported},
		{"mode", lvs.ServiceKey{}, lvs.SysctlChange{Name: "drop_entry", Value: 4}, lvs.ErrRange},
		{"timeout", lvs.ServiceKey{}, lvs.SysctlChange{Name: "timeout_udp", Value: 0}, lvs.ErrRange},
		{"director's", vip, lvs.SysctlChange{Name: "amemthresh", Value: 1}, lvs.ErrInvalid},
		{"twice", vip, good, lvs.ErrInvalid},
	} {
		if err := b.SetSysctls(ctx, test.service, []lvs.SysctlChange{good, test.change}); !errors.Is(err, test.reason) {
			t.Errorf("%s: %v, want %v", test.name, err, test.reason)
		}
	}
	if len(b.plane.sysctls) != 0 {
		t.Errorf("the data plane was asked for %v", b.plane.sysctls)
	}
	b.must(t, b.SetSysctls(ctx, vip, []lvs.SysctlChange{good}))
	if got := b.plane.sysctls[vip]; len(got) != 1 || got[0] != good {
		t.Errorf("the data plane was asked for %v, want %v", got, good)
	}
}
