package dataplane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// Thousands of random steps by the program and by the model, compared after each.

const (
	modelSteps     = 12_000
	modelTakeovers = 4 // among them
	// Ticks that the model's clock moves by at least. The data plane's runs on
	// by itself, and is put back in step before each packet.
	modelStep = 1024
	// How far the data plane's clock may run within a step.
	modelSlack = 300
)

type randomRun struct {
	t      *testing.T
	random *rand.Rand
	dir    string
	plane  *Plane
	model  *model
	step   int
	what   string
}

func TestRandomSteps(t *testing.T) {
	r := &randomRun{t: t, random: random(t), dir: testhost.MountBPF(t)}
	r.plane = openPlane(t, r.dir, 1000)
	r.model = &model{
		timeouts:    ticksOf(r.plane),
		connections: map[modelFlow]*modelConnection{},
	}
	for state, ticks := range r.model.timeouts {
		r.plane.settings().Policy.Timeouts[state] = ticks
	}
	now, err := r.plane.now()
	if err != nil {
		t.Fatal(err)
	}
	r.model.now = now/modelStep*modelStep + modelStep
	for r.step = range modelSteps {
		if r.step%(modelSteps/modelTakeovers) == modelSteps/modelTakeovers-1 {
			r.takeOver()
		}
		r.keepTime()
		r.one()
		r.compare()
		if t.Failed() {
			t.Fatalf("after step %d: %s", r.step, r.what)
		}
	}
	checkTable(t, r.plane)
	logVerdicts(t, r.plane)
	reset(t, r.plane)
	wantEmpty(t, r.plane)
	wantAllFree(t, r.plane)
}

// keepTime sets the data plane's clock to the model's.
func (r *randomRun) keepTime() {
	r.t.Helper()
	set := r.plane.settings()
	now, err := r.plane.now()
	if err != nil {
		r.t.Fatal(err)
	}
	set.ClockOffset += r.model.now - now
}

func (r *randomRun) takeOver() {
	r.t.Helper()
	if err := r.plane.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.plane = reopenPlane(r.t, r.dir)
	if !r.plane.TookOver() {
		r.t.Fatal("pinned state was not taken over")
	}
}

var (
	modelServices = []lvs.ServiceKey{
		{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.10"), Port: 80},
		{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.10"), Port: 443},
		{Protocol: lvs.UDP, Address: netip.MustParseAddr("192.0.2.10"), Port: 53},
		{Protocol: lvs.TCP, Address: netip.MustParseAddr("2001:db8:2::10"), Port: 80},
	}
	modelFlags = []string{"S", "S", "S", "S", "A", "A", "A", "F", "FA", "FA", "R", "RA", "SR", "SF", "SA", "P", ""}
)

const (
	modelServers = 6  // addresses of real servers
	modelClients = 25 // of each service
)

func (r *randomRun) one() {
	r.t.Helper()
	switch n := r.random.IntN(1000); {
	case n < 850:
		r.packet()
	case n < 858:
		r.advance()
	case n < 880:
		r.addOrEditService()
	case n < 884:
		r.deleteService()
	case n < 940:
		r.addServer()
	case n < 970:
		r.editServer()
	case n < 992:
		r.deleteServer()
	default:
		r.zero()
	}
}

func (r *randomRun) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("step %d: %s: %v", r.step, r.what, err)
	}
}

func (r *randomRun) packet() {
	r.t.Helper()
	key := modelServices[r.random.IntN(len(modelServices))]
	client := netip.MustParseAddr("203.0.113.5")
	if key.Address.Is6() {
		client = netip.MustParseAddr("2001:db8:3::5")
	}
	flow := modelFlow{
		key.Protocol,
		netip.AddrPortFrom(client, uint16(40000+r.random.IntN(modelClients))),
		netip.AddrPortFrom(key.Address, key.Port),
	}
	payload := make([]byte, r.random.IntN(50))
	flags := modelFlags[r.random.IntN(len(modelFlags))]
	event, frame := modelEvent(flags), tcpFrame(flow.client.String(), flow.vip.String(), flags, payload...)
	if key.Protocol == lvs.UDP {
		event, frame = "udp", udpFrame(flow.client.String(), flow.vip.String(), payload...)
	}
	r.what = fmt.Sprintf("%s %s -> %s flags %q", key.Protocol, flow.client, flow.vip, flags)
	syn := key.Protocol == lvs.TCP && tcpFlags(flags)&flagSYN != 0
	verdict, server := r.model.packet(flow, event, syn, len(frame)-14)

	var action uint32
	var out []byte
	counted := verdictDelta(r.t, r.plane, func() { action, out = mustRun(r.t, r.plane, frame) })
	if len(counted) != 1 || counted[verdict] != 1 {
		r.t.Errorf("counted %v, want one %s", counted, verdict)
	}
	if server != nil && (action != xdpTX || lvs.MAC(out[:6]) != serverMAC(server.Address)) {
		r.t.Errorf("XDP action %d to %s, want %s", action, lvs.MAC(out[:6]), server.RealServerKey)
	}
}

func (r *randomRun) advance() {
	r.t.Helper()
	most := []int{3, 20, 60, 300}[r.random.IntN(4)]
	ticks := modelStep * uint32(1+r.random.IntN(most))
	r.what = fmt.Sprintf("clock moves by %d", ticks)
	expired := r.model.advance(ticks)
	r.keepTime()
	found, err := r.plane.Sweep()
	r.check(err)
	if want := (SweepResult{expired, len(r.model.connections)}); found != want {
		r.t.Errorf("sweep found %+v, want %+v", found, want)
	}
	r.followCollection()
	checkTable(r.t, r.plane)
}

// followCollection lets the model forget the removed servers that the plane has
// forgotten. Those had no connections; and none waits for longer than the period,
// the intervals until its wait began, until its end was seen, and of a takeover.
func (r *randomRun) followCollection() {
	longest := r.plane.toTicks(removedPeriod+3*collectInterval) + modelStep
	for _, rs := range slices.Clone(r.model.known) {
		if rs.listed {
			continue
		}
		_, waits := r.plane.removed[serverIdentity{rs.service, rs.RealServerKey}]
		busy := rs.active+rs.inactive != 0
		switch {
		case !waits && busy:
			r.t.Errorf("%s of %s is forgotten with connections", rs.RealServerKey, rs.service)
		case !waits:
			r.model.forget(rs)
		case !busy && r.model.now-rs.idleSince > longest:
			r.t.Errorf("%s of %s waits for its return still", rs.RealServerKey, rs.service)
		}
	}
}

func (r *randomRun) addOrEditService() {
	r.t.Helper()
	names := modelSchedulers
	svc := lvs.Service{ServiceKey: modelServices[r.random.IntN(len(modelServices))], Scheduler: names[r.random.IntN(len(names))]}
	svc.PersistenceMask = lvs.FullPersistenceMask(svc.Address)
	if r.model.service(svc.ServiceKey) != nil {
		r.what = fmt.Sprintf("edit service %s %s", svc.ServiceKey, svc.Scheduler)
		if err := r.plane.AddService(svc); !errors.Is(err, lvs.ErrServiceExists) {
			r.t.Errorf("add it again: %v", err)
		}
		r.check(r.plane.EditService(svc))
		r.model.editService(svc)
		return
	}
	r.what = fmt.Sprintf("add service %s %s", svc.ServiceKey, svc.Scheduler)
	if err := r.plane.EditService(svc); !errors.Is(err, lvs.ErrNoService) {
		r.t.Errorf("edit it before: %v", err)
	}
	r.check(r.plane.AddService(svc))
	r.model.addService(svc)
}

func (r *randomRun) deleteService() {
	r.t.Helper()
	key := modelServices[r.random.IntN(len(modelServices))]
	r.what = fmt.Sprintf("delete service %s", key)
	if r.model.service(key) == nil {
		if err := r.plane.DeleteService(key); !errors.Is(err, lvs.ErrNoService) {
			r.t.Errorf("delete what is not there: %v", err)
		}
		return
	}
	r.check(r.plane.DeleteService(key))
	r.model.deleteService(key)
}

// server draws a real server, and returns it as the model lists it if it does.
func (r *randomRun) server() (lvs.ServiceKey, lvs.RealServer, *modelServer) {
	key := modelServices[r.random.IntN(len(modelServices))]
	addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + r.random.IntN(modelServers))})
	if key.Address.Is6() {
		addr = netip.MustParseAddr("2001:db8:1::")
		for range 1 + r.random.IntN(modelServers) {
			addr = addr.Next()
		}
	}
	weights := []uint32{0, 1, 1, 2, 3, 4, 6, 10}
	rs := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: addr, Port: key.Port},
		Method:        lvs.DirectRouting,
		Weight:        weights[r.random.IntN(len(weights))],
	}
	if r.random.IntN(3) == 0 {
		rs.UpperThreshold = uint32(1 + r.random.IntN(8))
		rs.LowerThreshold = uint32(r.random.IntN(int(rs.UpperThreshold) + 1))
	}
	s := r.model.service(key)
	if s == nil {
		return key, rs, nil
	}
	at := slices.IndexFunc(s.servers, func(known *modelServer) bool { return known.RealServerKey == rs.RealServerKey })
	if at < 0 {
		return key, rs, nil
	}
	return key, rs, s.servers[at]
}

func (r *randomRun) addServer() {
	r.t.Helper()
	key, rs, listed := r.server()
	r.what = fmt.Sprintf("add real server %+v to %s", rs, key)
	switch err := r.plane.AddServer(key, rs); {
	case r.model.service(key) == nil:
		if !errors.Is(err, lvs.ErrNoService) {
			r.t.Errorf("without the service: %v", err)
		}
		return
	case listed != nil:
		if !errors.Is(err, lvs.ErrServerExists) {
			r.t.Errorf("again: %v", err)
		}
		return
	default:
		r.check(err)
	}
	setHop(r.t, r.plane, rs.String(), lvs.NextHop{})
	r.model.addServer(key, rs)
}

func (r *randomRun) editServer() {
	r.t.Helper()
	key, rs, listed := r.server()
	r.what = fmt.Sprintf("edit real server %+v of %s", rs, key)
	err := r.plane.EditServer(key, rs)
	if listed == nil {
		r.wantMissing(key, err)
		return
	}
	r.check(err)
	r.model.editServer(listed, rs)
}

func (r *randomRun) deleteServer() {
	r.t.Helper()
	key, rs, listed := r.server()
	r.what = fmt.Sprintf("delete real server %s of %s", rs.RealServerKey, key)
	err := r.plane.DeleteServer(key, rs.RealServerKey)
	if listed == nil {
		r.wantMissing(key, err)
		return
	}
	r.check(err)
	r.model.deleteServer(key, listed)
}

func (r *randomRun) wantMissing(key lvs.ServiceKey, err error) {
	r.t.Helper()
	want := lvs.ErrNoServer
	if r.model.service(key) == nil {
		want = lvs.ErrNoService
	}
	if !errors.Is(err, want) {
		r.t.Errorf("got error %v, want %v", err, want)
	}
}

func (r *randomRun) zero() {
	r.t.Helper()
	key := modelServices[r.random.IntN(len(modelServices))]
	r.what = fmt.Sprintf("zero %s", key)
	err := r.plane.Zero(key)
	if r.model.service(key) == nil {
		if !errors.Is(err, lvs.ErrNoService) {
			r.t.Errorf("zero what is not there: %v", err)
		}
		return
	}
	r.check(err)
	r.model.zero(key)
}

// compare compares all that can be read back.
func (r *randomRun) compare() {
	r.t.Helper()
	got, err := r.plane.Services()
	r.check(err)
	for i := range got {
		for s := range got[i].Servers {
			got[i].Servers[s].NextHop = lvs.NextHop{}
		}
	}
	var want []lvs.ServiceStatus
	for _, s := range r.model.services {
		status := lvs.ServiceStatus{Service: s.Service, Counters: s.counters}
		for _, rs := range s.servers {
			status.Servers = append(status.Servers, lvs.RealServerStatus{
				RealServer: rs.RealServer, Active: rs.active, Inactive: rs.inactive, Retries: rs.retries, Counters: rs.counters,
			})
		}
		want = append(want, status)
	}
	if !slices.EqualFunc(want, got, equalStatus) {
		r.t.Errorf("services (-want +got):\n%s", cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })))
	}
	r.compareConnections()
}

func equalStatus(a, b lvs.ServiceStatus) bool {
	return a.Service == b.Service && a.Counters == b.Counters && slices.Equal(a.Servers, b.Servers)
}

func (r *randomRun) compareConnections() {
	r.t.Helper()
	seen := 0
	for c := range r.plane.Connections() {
		seen++
		want := r.model.connections[modelFlow{c.Protocol, c.Client, c.Virtual}]
		if want == nil {
			r.t.Errorf("connection %+v should not be", c)
			continue
		}
		server := netip.AddrPortFrom(want.server.Address, want.server.Port)
		if c.Server != server || c.State != want.state || c.Packets != want.packets || c.Bytes != want.bytes {
			r.t.Errorf("connection %+v, want %+v", c, want)
		}
		left := int64(r.plane.toTicks(c.Expires)) - int64(want.expires-r.model.now)
		if left < -modelSlack || left > modelSlack {
			r.t.Errorf("connection %+v ends in %d ticks too many", c, left)
		}
	}
	if seen != len(r.model.connections) {
		r.t.Errorf("%d connections, want %d", seen, len(r.model.connections))
	}
}
