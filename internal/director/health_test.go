package director

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A lamp is a file that says whether a real server is up.
type lamp string

func newLamp(t *testing.T, text string) lamp {
	l := lamp(filepath.Join(t.TempDir(), "lamp"))
	l.set(t, text)
	return l
}

func (l lamp) set(t *testing.T, text string) {
	t.Helper()
	temporary := string(l) + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, string(l)); err != nil {
		t.Fatal(err)
	}
}

// check asks for the lamp often.
func (l lamp) check(weight bool) lvs.Check {
	return lvs.Check{
		Type: lvs.CheckFile, Interval: 10 * time.Millisecond, Timeout: 10 * time.Millisecond, Rise: 1, Fall: 1,
		File: lvs.FileCheck{Path: string(l), Weight: weight},
	}
}

func (l lamp) of(server lvs.RealServer) lvs.ServerHealth {
	return lvs.ServerHealth{RealServerKey: server.RealServerKey, Checks: []lvs.Check{l.check(false)}}
}

// followed carries out what checks come to as long as the test lasts.
func (b bench) followed(t *testing.T) bench {
	t.Helper()
	t.Cleanup(b.follow(t))
	return b
}

// follow carries out what checks come to until stop.
func (b bench) follow(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		b.followHealth(ctx)
		close(done)
	}()
	return func() {
		cancel()
		<-done
		b.must(t, b.closeChecks())
	}
}

// eventually waits until the plane has these servers, with these weights.
func (b bench) eventually(t *testing.T, want ...lvs.RealServer) {
	t.Helper()
	limit := time.After(waitLimit)
	for {
		got := b.inPlane(t)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-b.plane.changed:
		case <-limit:
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func (b bench) inPlane(t *testing.T) (servers []lvs.RealServer) {
	t.Helper()
	services, err := b.plane.Services()
	b.must(t, err)
	for _, s := range services {
		for _, server := range s.Servers {
			servers = append(servers, server.RealServer)
		}
	}
	return servers
}

func quiesced(r lvs.RealServer) lvs.RealServer { r.Weight = 0; return r }

func TestChecksTakeServersOut(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()).followed(t), t.Context()
	first, second := routed("192.0.2.11", 80), routed("192.0.2.12", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second))
	light := newLamp(t, "1")
	want := lvs.ServiceHealth{ServiceKey: vip, Servers: []lvs.ServerHealth{light.of(first)}}
	b.must(t, b.SetHealth([]lvs.ServiceHealth{want}))
	b.eventually(t, second, first)

	light.set(t, "0")
	b.eventually(t, second)
	service, err := b.Service(ctx, vip)
	b.must(t, err)
	if len(service.Withheld) != 1 || service.Withheld[0].Health.Cause != "file-down" || service.Withheld[0].ConfiguredWeight != first.Weight {
		t.Errorf("withheld: %+v", service.Withheld)
	}
	state, err := b.State(ctx)
	if err != nil || !slices.Equal(state.Services[0].Servers, []lvs.RealServer{second, first}) {
		t.Errorf("%v, told: %v", err, state.Services[0].Servers)
	}
	// What is told of a server that is withheld holds when it returns, and so does the
	// order.
	heavy := changed(first, func(r *lvs.RealServer) { r.Weight = 9 })
	b.must(t, b.EditServer(ctx, vip, heavy))
	b.eventually(t, second)
	light.set(t, "1")
	b.eventually(t, second, heavy)

	want.Servers[0].Inhibit = true
	b.must(t, b.SetHealth([]lvs.ServiceHealth{want}))
	light.set(t, "0")
	b.eventually(t, second, quiesced(heavy))
	b.must(t, b.SetHealth(nil))
	b.eventually(t, second, heavy)
}

// A server that is to be down until its first success is not there before its checks
// are.
func TestAwaitedServers(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()).followed(t), t.Context()
	first, second := routed("192.0.2.11", 80), routed("192.0.2.12", 80)
	light := newLamp(t, "0")
	awaited := light.of(first)
	awaited.Alpha = true
	want := []lvs.ServiceHealth{{ServiceKey: vip, Servers: []lvs.ServerHealth{awaited}}}
	state := lvs.State{Services: []lvs.ServiceState{{Service: wlc(vip), Servers: []lvs.RealServer{second, first}}}}
	b.must(t, checkHealth(state, want))
	expect(t, checkHealth(lvs.State{}, want), lvs.ErrNoService, vip.String())
	expect(t, b.SetHealth(want), lvs.ErrNoService, vip.String())
	b.mu.Lock()
	if now := b.healthNow(want); len(now) != 0 {
		t.Errorf("without the service: %v", now)
	}
	b.expectHealth(want)
	b.mu.Unlock()
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second))
	b.eventually(t, second)
	b.must(t, b.SetHealth(want))
	b.eventually(t, second)
	light.set(t, "1")
	b.eventually(t, second, first)
}

func TestQuorumBringsTheSorryServer(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()).followed(t), t.Context()
	first, second, sorry := routed("192.0.2.11", 80), routed("192.0.2.12", 80), routed("192.0.2.99", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second))
	one, two := newLamp(t, "1"), newLamp(t, "1")
	want := lvs.ServiceHealth{ServiceKey: vip, Quorum: 1, Sorry: sorry, Servers: []lvs.ServerHealth{one.of(first), two.of(second)}}
	b.must(t, b.SetHealth([]lvs.ServiceHealth{want}))
	b.watched(t, first.Address, second.Address, sorry.Address)
	one.set(t, "0")
	b.eventually(t, second)
	two.set(t, "0")
	b.eventually(t, sorry)
	service, err := b.Service(ctx, vip)
	if err != nil || !service.Quorum.Lost || !service.Quorum.Sorry || len(service.Withheld) != 2 {
		t.Errorf("%v, %+v", err, service)
	}
	one.set(t, "1")
	b.eventually(t, first)
	b.must(t, b.DeleteServer(ctx, vip, second.RealServerKey), b.SetHealth(nil))
	b.eventually(t, first)
	b.watched(t, first.Address)
}

func TestChecksSetWeights(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()).followed(t), t.Context()
	first := routed("192.0.2.11", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first))
	light := newLamp(t, "70")
	b.must(t, b.SetHealth([]lvs.ServiceHealth{{ServiceKey: vip, Servers: []lvs.ServerHealth{
		{RealServerKey: first.RealServerKey, Checks: []lvs.Check{light.check(true)}},
	}}}))
	b.eventually(t, changed(first, func(r *lvs.RealServer) { r.Weight = 70 }))
	light.set(t, "0")
	b.eventually(t, quiesced(first))
}

func TestHealthRefusals(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	first := routed("192.0.2.11", 80)
	light := newLamp(t, "1")
	expect(t, b.SetHealth([]lvs.ServiceHealth{{ServiceKey: vip}}), lvs.ErrNoService, vip.String())
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first))
	for _, test := range []struct {
		health lvs.ServiceHealth
		reason error
		says   string
	}{
		{lvs.ServiceHealth{Servers: []lvs.ServerHealth{light.of(routed("192.0.2.12", 80))}}, lvs.ErrNoServer, "192.0.2.12:80"},
		{lvs.ServiceHealth{Sorry: first}, lvs.ErrInvalid, "real servers"},
		{lvs.ServiceHealth{Sorry: routed("192.0.2.99", 81)}, lvs.ErrInvalid, "port 81"},
		{lvs.ServiceHealth{Servers: []lvs.ServerHealth{{
			RealServerKey: first.RealServerKey, Checks: []lvs.Check{{Type: lvs.CheckTCP, Timeout: 1, Rise: 1, Fall: 1}},
		}}}, lvs.ErrInvalid, "interval"},
	} {
		test.health.ServiceKey = vip
		expect(t, b.SetHealth([]lvs.ServiceHealth{test.health}), test.reason, test.says)
	}
}

func TestDrain(t *testing.T) {
	p := newMemoryPlane()
	b, ctx := newBench(t, p), t.Context()
	first, second := routed("192.0.2.11", 80), routed("192.0.2.12", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second))
	p.service(vip).Servers[1].Active = 10
	scope, key := lvs.DrainScope{Address: first.Address}, drainKey{vip, first.RealServerKey}
	drains, err := b.Drain(ctx, scope, time.Nanosecond, lvs.DrainExpire)
	if err != nil || len(drains) != 1 || drains[0].Initial != 10 || drains[0].Left != 10 {
		t.Fatalf("%v, %+v", err, drains)
	}
	b.eventually(t, second, quiesced(first))
	if p.drains[key] != dataplane.DrainTemplates {
		t.Errorf("plane: %v", p.drains)
	}
	// An edit does not undo it.
	b.must(t, b.EditServer(ctx, vip, changed(first, func(r *lvs.RealServer) { r.Weight = 5 })))
	b.eventually(t, second, quiesced(first))

	// What the deadline asks for is tried again.
	p.service(vip).Servers[1].Active = 3
	p.fail = errPlane
	expect(t, b.followDrains(), errPlane, "")
	if drains, err = b.Drains(ctx); err != nil || drains[0].Ended {
		t.Errorf("%v, %+v", err, drains)
	}
	p.fail = nil
	b.must(t, b.followDrains())
	drains, err = b.Drains(ctx)
	if err != nil || len(drains) != 1 || drains[0].Left != 3 || !drains[0].Ended || drains[0].Rate <= 0 {
		t.Errorf("%v, %+v", err, drains)
	}
	if p.drains[key] != dataplane.DrainExpire {
		t.Errorf("plane: %v", p.drains)
	}
	if _, err := b.Undrain(ctx, scope); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, second, changed(first, func(r *lvs.RealServer) { r.Weight = 5 }))
	if p.drains[key] != dataplane.NotDrained || !slices.Equal(p.slowStarts, []drainKey{key}) {
		t.Errorf("plane: %v, %v", p.drains, p.slowStarts)
	}
	_, err = b.Undrain(ctx, scope)
	expect(t, err, lvs.ErrNoDrain, "192.0.2.11")
	_, err = b.Drain(ctx, lvs.DrainScope{Address: sparse}, 0, lvs.DrainKeep)
	expect(t, err, lvs.ErrNoServer, sparse.String())
	_, err = b.Drain(ctx, lvs.DrainScope{Address: first.Address, Service: vip6}, 0, lvs.DrainKeep)
	expect(t, err, lvs.ErrNoService, vip6.String())
}

var sparse = routed("192.0.2.77", 80).Address

// A director that comes after one that was killed knows what that one was told.
func TestWithheldOutlivesTheDirector(t *testing.T) {
	p, path := newMemoryPlane(), filepath.Join(t.TempDir(), recordName)
	b, ctx := newBench(t, p), t.Context()
	b.must(t, b.readRecord(path))
	first, second, third := routed("192.0.2.11", 80), routed("192.0.2.12", 80), routed("192.0.2.13", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second), b.AddServer(ctx, vip, third))
	light := newLamp(t, "0")
	health := []lvs.ServiceHealth{{ServiceKey: vip, Servers: []lvs.ServerHealth{light.of(second)}}}
	stop := b.follow(t)
	b.must(t, b.SetHealth(health))
	b.eventually(t, third, first)
	if _, err := b.Drain(ctx, lvs.DrainScope{Address: third.Address}, time.Hour, lvs.DrainKeep); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, quiesced(third), first)
	stop()

	next := newBench(t, p)
	next.must(t, next.readRecord(path))
	state, err := next.State(ctx)
	if err != nil || !slices.Equal(state.Services[0].Servers, []lvs.RealServer{third, second, first}) {
		t.Fatalf("%v, told: %v", err, state.Services[0].Servers)
	}
	drains, err := next.Drains(ctx)
	if err != nil || len(drains) != 1 || drains[0].Deadline.IsZero() {
		t.Errorf("%v, %+v", err, drains)
	}
	// What was down stays down until a check says otherwise.
	next = next.followed(t)
	next.must(t, next.SetHealth(health))
	next.eventually(t, quiesced(third), first)
	light.set(t, "1")
	next.eventually(t, quiesced(third), second, first)
	if _, err := next.Undrain(ctx, lvs.DrainScope{Address: third.Address}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the record is there although there is nothing to record")
	}
}

// A server that is added by hand to a service of a configuration has what its servers
// usually have, from the first moment; and its own checks again if the file knows it.
func TestServersAddedByHandAreChecked(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()).followed(t), t.Context()
	first, second, third := routed("192.0.2.11", 80), routed("192.0.2.12", 80), routed("192.0.2.13", 80)
	light, own := newLamp(t, "0"), newLamp(t, "1")
	usual := light.of(lvs.RealServer{})
	usual.Alpha = true
	want := lvs.ServiceHealth{
		ServiceKey: vip, Servers: []lvs.ServerHealth{own.of(first)}, Usual: usual, Unchecked: []lvs.RealServerKey{second.RealServerKey},
	}
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first), b.AddServer(ctx, vip, second))
	b.must(t, b.SetHealth([]lvs.ServiceHealth{want}))
	b.eventually(t, second, first)

	b.must(t, b.AddServer(ctx, vip, third))
	if got := b.inPlane(t); !slices.Equal(got, []lvs.RealServer{second, first}) {
		t.Errorf("before its first success: %v", got)
	}
	light.set(t, "1")
	b.eventually(t, third, second, first)
	service, err := b.Service(ctx, vip)
	if err != nil || service.Servers[0].Health.State != lvs.HealthUp || service.Servers[1].Health.State != lvs.HealthUnchecked {
		t.Errorf("%v, %+v", err, service.Servers)
	}

	b.must(t, b.DeleteServer(ctx, vip, first.RealServerKey), b.DeleteServer(ctx, vip, second.RealServerKey))
	own.set(t, "0")
	b.must(t, b.AddServer(ctx, vip, second), b.AddServer(ctx, vip, first))
	b.eventually(t, second, third)
	own.set(t, "1")
	b.eventually(t, first, second, third)
	b.must(t, b.DeleteService(ctx, vip), b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first))
	own.set(t, "0")
	b.eventually(t)
}

// The drain of a host waits for what a drain before it has left, but no longer than it is
// told to; and for what it takes out itself a while more.
func TestHostDrainWaits(t *testing.T) {
	const deadline = time.Minute
	for _, test := range []struct {
		name   string
		drain  bool // by hand, before
		then   lvs.DrainEnd
		end    time.Duration // of the connections; 0: never
		within time.Duration
	}{
		{"all end", false, lvs.DrainKeep, 20 * time.Second, 20 * time.Second},
		{"some go on", false, lvs.DrainKeep, 0, deadline},
		{"those of a drain by hand end", true, lvs.DrainExpire, 20 * time.Second, 20 * time.Second},
		{"those of a drain by hand go on", true, lvs.DrainExpire, 0, deadline},
		{"expired", false, lvs.DrainExpire, deadline + time.Second, deadline + time.Second},
		{"nothing helps", false, lvs.DrainExpire, 0, deadline + drainGrace},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newMemoryPlane()
				b, ctx := newBench(t, p), t.Context()
				first := routed("192.0.2.11", 80)
				b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first))
				active := func(count uint32) {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.service(vip).Servers[0].Active = count
				}
				active(7)
				if test.drain {
					if _, err := b.Drain(ctx, lvs.DrainScope{Address: first.Address}, 0, lvs.DrainKeep); err != nil {
						t.Fatal(err)
					}
				}
				followed, stop := context.WithCancel(ctx)
				defer stop()
				go b.every(followed, drainInterval, b.followDrains)
				if test.end > 0 {
					time.AfterFunc(test.end, func() { active(0) })
				}
				begun := time.Now()
				b.must(t, b.drainHost(ctx, deadline, test.then))
				if took := time.Since(begun); took < test.within || took > test.within+2*drainInterval {
					t.Errorf("it took %s, want %s", took, test.within)
				}
			})
		})
	}
}

func TestHostDrainEndsWithTheNextDirector(t *testing.T) {
	p, path := newMemoryPlane(), filepath.Join(t.TempDir(), recordName)
	b, ctx := newBench(t, p), t.Context()
	b.must(t, b.readRecord(path))
	first := routed("192.0.2.11", 80)
	b.must(t, b.AddService(ctx, wlc(vip)), b.AddServer(ctx, vip, first))
	b.must(t, b.drainHost(ctx, time.Minute, lvs.DrainKeep)) // nothing is left from the beginning
	b.eventually(t, quiesced(first))
	next := newBench(t, p)
	next.must(t, next.readRecord(path), next.SetHealth(nil), next.liftHostDrain())
	next.eventually(t, first)
}
