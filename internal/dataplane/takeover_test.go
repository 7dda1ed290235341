package dataplane

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// busyPlane is a plane with services, servers and connections of all kinds.
func busyPlane(t testing.TB, dir string) (*Plane, lvs.Service) {
	t.Helper()
	p := openPlane(t, dir, 1000)
	svc := servedBy(t, p, lvs.RoundRobin, 4)
	heavy := tcpService("192.0.2.9:443", lvs.WeightedRoundRobin)
	mustAddService(t, p, heavy)
	for i, server := range []string{"198.51.100.20:443", "198.51.100.21:443"} {
		rs := mustAddServer(t, p, heavy, server, uint32(4+2*i))
		rs.UpperThreshold, rs.LowerThreshold = 100, 50
		mustEditServer(t, p, heavy, rs)
	}
	mustAddService(t, p, udpService(vip6, lvs.NeverQueue))
	for i := range 9 {
		send(t, p, i, "S", "forward")
		send(t, p, i, "A", "forward")
		mustRun(t, p, tcpFrame(clientOf(i), "192.0.2.9:443", "S"))
	}
	if err := p.SetTimeouts(lvs.Timeouts{TCP: 20 * time.Minute, TCPFin: time.Minute, UDP: 2 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	return p, svc
}

// told is all that a plane tells.
type told struct {
	Services    []lvs.ServiceStatus
	Connections []lvs.Connection
	Timeouts    lvs.Timeouts
	TableSize   int
}

func tell(t testing.TB, p *Plane) told {
	t.Helper()
	services := mustServices(t, p)
	conns := slices.Collect(p.Connections())
	for i := range conns {
		conns[i].Expires, conns[i].Idle = conns[i].Expires.Round(time.Minute), 0
	}
	return told{services, conns, p.Timeouts(), p.TableSize()}
}

var comparePlanes = cmp.Comparer(func(a, b lvs.ServiceKey) bool { return a == b })

func diffPlanes(want, got told) string {
	return cmp.Diff(want, got, comparePlanes,
		cmp.Comparer(func(a, b lvs.RealServerKey) bool { return a == b }),
		cmp.Comparer(func(a, b lvs.NextHop) bool { return a == b }),
		cmp.Comparer(func(a, b lvs.Connection) bool { return a == b }))
}

func mustClose(t testing.TB, p *Plane) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTakeOverKeepsEverything(t *testing.T) {
	dir := testhost.MountBPF(t)
	p, _ := busyPlane(t, dir)
	if p.TookOver() {
		t.Error("a new plane says that it took over")
	}
	want := tell(t, p)
	mustClose(t, p)

	p = openPlane(t, dir, 4_000_000)
	if !p.TookOver() {
		t.Error("pinned state was not taken over")
	}
	if diff := diffPlanes(want, tell(t, p)); diff != "" {
		t.Errorf("after the take-over (-want +got):\n%s", diff)
	}
	// The walk of rr goes on behind its last choice: nine were chosen of four.
	if got := send(t, p, 100, "S", "forward"); got != 3 {
		t.Errorf("the tenth connection went to server %d, want 3", got)
	}
	for i := range 9 {
		send(t, p, i, "A", "forward")
	}
	checkTable(t, p)
}

// What one plane adds after a take-over does not collide with what it found.
func TestChangesAfterTakeOver(t *testing.T) {
	dir := testhost.MountBPF(t)
	p, svc := busyPlane(t, dir)
	for range 3 {
		mustClose(t, p)
		p = reopenPlane(t, dir)
		before := tell(t, p)
		added := mustAddServer(t, p, svc, "198.51.100.99:80", 1)
		other := tcpService("192.0.2.77:80", lvs.LeastConnection)
		mustAddService(t, p, other)
		mustAddServer(t, p, other, "198.51.100.98:80", 1)
		if got := tell(t, p).Services; got[len(got)-1].Service != other {
			t.Errorf("the newest service is %s", got[len(got)-1].ServiceKey)
		}
		if err := p.DeleteServer(svc.ServiceKey, added.RealServerKey); err != nil {
			t.Fatal(err)
		}
		if err := p.DeleteService(other.ServiceKey); err != nil {
			t.Fatal(err)
		}
		if diff := diffPlanes(before, tell(t, p)); diff != "" {
			t.Errorf("after changes were undone (-want +got):\n%s", diff)
		}
	}
}

// A director may be killed between any two stores of a change. What a packet can
// reach is what holds.
func TestTakeOverMendsHalfDoneChanges(t *testing.T) {
	type state struct {
		p   *Plane
		svc *service
	}
	for _, test := range []struct {
		name string
		half func(t *testing.T, s state)
		// want changes what must be told
		want func(w *told)
	}{
		{"slot of a service that no key leads to", func(t *testing.T, s state) {
			s.p.view.services.elements[100] = directorService{Used: 1, Sequence: 99, Edition: s.svc.edition, Key: toServiceKey(s.svc.ServiceKey)}
		}, nil},
		{"service deleted, its slot still in use", func(t *testing.T, s state) {
			s.p.leaveService(toServiceKey(s.svc.ServiceKey), s.svc.index)
		}, func(w *told) { w.Services = w.Services[1:] }},
		{"server listed, on no list", func(t *testing.T, s state) {
			slot, err := s.p.newServer(serverIdentity{s.svc.ServiceKey, lvs.RealServerKey{Address: addrOf("198.51.100.50:80"), Port: 80}})
			if err != nil {
				t.Fatal(err)
			}
			s.p.setServerState(slot, directorServerStateSERVER_LISTED)
		}, nil},
		{"list flipped, server's state is old", func(t *testing.T, s state) {
			raw, err := s.p.rawCounters(s.svc.servers[0])
			if err == nil {
				err = s.p.publish(s.svc, s.svc.servers[1:], raw, keepCursor)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, func(w *told) { w.Services[0].Servers = w.Services[0].Servers[1:] }},
		{"list flipped, server is still removed", func(t *testing.T, s state) {
			s.p.setServerState(s.svc.servers[0], directorServerStateSERVER_REMOVED)
		}, nil},
		{"edition and list filled, not flipped", func(t *testing.T, s state) {
			if _, err := s.p.prepare(s.svc, s.svc.servers[:2], lvs.Counters{InPackets: 7}, nil); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"counts of services are old", func(t *testing.T, s state) {
			set := s.p.settings()
			set.Services, set.FtpServices, set.AnyPortServices = 0, 7, 7
		}, nil},
		{"hop filled, not turned to", func(t *testing.T, s state) {
			rs := &testServers(s.p)[s.svc.servers[0]]
			rs.Hops[rs.which()^1] = directorNextHop{Ifindex: 77}
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := testhost.MountBPF(t)
			p, svc := busyPlane(t, dir)
			want := tell(t, p)
			test.half(t, state{p, p.services[svc.ServiceKey]})
			mustClose(t, p)
			if test.want != nil {
				test.want(&want)
			}
			p = reopenPlane(t, dir)
			if diff := diffPlanes(want, tell(t, p)); diff != "" {
				t.Errorf("after the take-over (-want +got):\n%s", diff)
			}
			if got := p.settings().Services; got != uint32(len(want.Services)) {
				t.Errorf("the data plane knows of %d services, want %d", got, len(want.Services))
			}
			checkTable(t, p)
			checkServers(t, p)
			// Everything that waits is let go of once its connections are over.
			reset(t, p)
			wantAllFree(t, p)
		})
	}
}

// checkServers checks that states of real servers fit the lists.
func checkServers(t testing.TB, p *Plane) {
	t.Helper()
	listed := map[uint32]bool{}
	for _, svc := range p.services {
		for _, slot := range svc.servers {
			listed[slot] = true
		}
	}
	free := map[uint32]bool{}
	for _, slot := range p.free.servers {
		free[slot] = true
	}
	for i, rs := range testServers(p) {
		slot := uint32(i)
		if isListed := rs.State == directorServerStateSERVER_LISTED; isListed != listed[slot] {
			t.Errorf("server in slot %d: state %d, on a list: %v", i, rs.State, listed[slot])
		}
		if free[slot] && rs.State != directorServerStateSERVER_FREE {
			t.Errorf("server in slot %d is free in state %d", i, rs.State)
		}
	}
}

// wantAllFree checks that nothing of a plane without services is kept.
func wantAllFree(t testing.TB, p *Plane) {
	t.Helper()
	for _, kind := range []struct {
		name       string
		free, want int
	}{
		{"services", len(p.free.services), int(directorLimitMAX_SERVICES)},
		{"editions", len(p.free.editions), int(directorLimitMAX_EDITIONS)},
		{"servers", len(p.free.servers), int(directorLimitMAX_SERVERS)},
	} {
		if kind.free != kind.want {
			t.Errorf("%d %s are free, want all %d", kind.free, kind.name, kind.want)
		}
	}
	if len(p.removed) != 0 || len(p.limbo) != 0 {
		t.Errorf("%d servers wait, %d things for a grace period", len(p.removed), len(p.limbo))
	}
	if lists := p.free.lists.free; len(lists) != 1 || lists[0] != (span{0, uint32(directorLimitMAX_LIST_SLOTS)}) {
		t.Errorf("free list slots are %v", lists)
	}
}

// The counters of a service stand whatever moment its director is killed at: the
// server with the most counts leaves and returns.
func TestCountersOutliveHalfDoneChanges(t *testing.T) {
	dir := testhost.MountBPF(t)
	p, svc := busyPlane(t, dir)
	want := tell(t, p).Services[0].Counters
	slot := p.services[svc.ServiceKey].servers[0]
	raw, err := p.rawCounters(slot)
	if err != nil || raw.InPackets == 0 {
		t.Fatalf("the server counted %+v, %v", raw, err)
	}
	for _, step := range []struct {
		name    string
		servers func(listed []uint32) []uint32
		counted lvs.Counters
	}{
		{"leaves", func(listed []uint32) []uint32 { return listed[1:] }, raw},
		{"returns", func(listed []uint32) []uint32 { return append([]uint32{slot}, listed...) }, lvs.Counters{}.Sub(raw)},
	} {
		for _, turned := range []bool{false, true} {
			s := p.services[svc.ServiceKey]
			servers := step.servers(s.servers)
			edition, err := p.prepare(s, servers, step.counted, keepCursor)
			if err != nil {
				t.Fatal(err)
			}
			if turned {
				p.turnTo(s, edition, servers)
			}
			mustClose(t, p)
			p = reopenPlane(t, dir)
			if got := tell(t, p).Services[0].Counters; got != want {
				t.Errorf("server %s, turned to %v: the service counts %+v, want %+v", step.name, turned, got, want)
			}
		}
	}
}

// A successor changes nothing before it takes over, and then finds what has become of
// everything meanwhile.
func TestSuccessor(t *testing.T) {
	dir := testhost.MountBPF(t)
	p, svc := busyPlane(t, dir)
	before := tell(t, p)
	given, err := Prepare(Config{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := given.Close(); err != nil {
		t.Error(err)
	}
	successor, err := Prepare(Config{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if diff := diffPlanes(before, tell(t, p)); diff != "" {
		t.Errorf("changed by a successor that waits:\n%s", diff)
	}
	if err := p.DeleteServer(svc.ServiceKey, tell(t, p).Services[0].Servers[0].RealServerKey); err != nil {
		t.Fatal(err)
	}
	last := tell(t, p)
	mustClose(t, p)
	q, err := successor.TakeOver()
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, q)
	if diff := diffPlanes(last, tell(t, q)); diff != "" || !q.TookOver() {
		t.Errorf("taken over %t: -before +after\n%s", q.TookOver(), diff)
	}
}

func TestOtherLayoutIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(set *directorSettings)
	}{
		{"version", func(set *directorSettings) { set.Abi++ }},
		{"probes", func(set *directorSettings) { set.ProbeSlots /= 2 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := testhost.MountBPF(t)
			p := openPlane(t, dir, 1)
			test.change(p.settings())
			mustClose(t, p)
			if p, err := Open(Config{PinDir: dir}); !errors.Is(err, ErrLayout) {
				t.Errorf("Open: %v, %v, want ErrLayout", p, err)
			}
			if s, err := Prepare(Config{PinDir: dir}); !errors.Is(err, ErrLayout) {
				t.Errorf("Prepare: %v, %v, want ErrLayout", s, err)
			}
		})
	}
}

// A map of another shape is another version's too.
func TestOtherMapIsRefused(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1)
	path := filepath.Join(dir, stateDir, directorMapVerdicts)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// Of other sizes, but a map.
	if err := p.maps.EditionCarry.Pin(path); err != nil {
		t.Fatal(err)
	}
	mustClose(t, p)
	if p, err := Open(Config{PinDir: dir}); !errors.Is(err, ErrLayout) {
		t.Errorf("Open: %v, %v, want ErrLayout", p, err)
	}
}

func TestUnload(t *testing.T) {
	dir := filepath.Join(testhost.MountBPF(t), "director")
	p, _ := busyPlane(t, dir)
	mustClose(t, p)
	if err := Unload(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("Unload left %v, %v", left, err)
	}
	if err := Unload(dir); err != nil {
		t.Errorf("Unload of nothing: %v", err)
	}
	p = openPlane(t, dir, 1)
	if p.TookOver() || len(tell(t, p).Services) != 0 {
		t.Error("after Unload, something was taken over")
	}
}

// Pinning that was cut off leaves something that is not taken for state.
func TestUnfinishedPinIsCleared(t *testing.T) {
	dir := testhost.MountBPF(t)
	mustClose(t, openPlane(t, dir, 1))
	if err := os.Rename(filepath.Join(dir, stateDir), filepath.Join(dir, newStateDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, newStateDir, directorMapServices)); err != nil {
		t.Fatal(err)
	}
	p := openPlane(t, dir, 1)
	if p.TookOver() {
		t.Error("an unfinished pin was taken over")
	}
	if _, err := os.Stat(filepath.Join(dir, newStateDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished pin is there still: %v", err)
	}
}

// Two planes below one bpffs know nothing of each other.
func TestPlanesAreIndependent(t *testing.T) {
	dir := testhost.MountBPF(t)
	one, _ := busyPlane(t, filepath.Join(dir, "one"))
	two := openPlane(t, filepath.Join(dir, "two"), 1)
	wantVerdict(t, two, tcpFrame(client4, vip4, "S"), "pass-no-services", xdpPass)
	servedBy(t, two, lvs.RoundRobin, 1)
	wantVerdict(t, two, tcpFrame(clientOf(0), vip4, "A"), "pass-no-connection", xdpPass)
	wantVerdict(t, one, tcpFrame(clientOf(0), vip4, "A"), "forward", xdpTX)
	mustClose(t, two)
	if err := Unload(filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, one, tcpFrame(clientOf(0), vip4, "A"), "forward", xdpTX)
}
