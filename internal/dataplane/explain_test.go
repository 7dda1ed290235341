package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

const explainedCases = 1000

// An explainRun makes random situations, and asks in each what will become of a
// packet before it is sent.
type explainRun struct {
	t      *testing.T
	random *rand.Rand
	plane  *Plane
	// What the cases covered.
	verdicts, chosen map[string]int
}

// Explain says what the packet then does, and changes nothing.
func TestExplainAgreesWithTheProgram(t *testing.T) {
	r := &explainRun{
		t: t, random: random(t), plane: openPlane(t, testhost.MountBPF(t), 1),
		verdicts: map[string]int{}, chosen: map[string]int{},
	}
	for _, key := range modelServices {
		r.configure(key)
	}
	for range explainedCases {
		for range r.random.IntN(4) {
			r.disturb()
		}
		r.one()
		if t.Failed() {
			return
		}
	}
	t.Logf("verdicts %v, chosen by %v", r.verdicts, r.chosen)
	for _, by := range []lvs.ChosenBy{lvs.ChosenByNobody, lvs.ChosenByConnection, lvs.ChosenByScheduler, lvs.ChosenByHash} {
		if r.chosen[string(by)] == 0 {
			t.Errorf("no case was chosen by %q", by)
		}
	}
	for _, verdict := range []string{"forward", "forward-no-entry", "answer-no-server", "answer-ttl", "pass-no-connection",
		"drop-server-removed", "drop-no-next-hop", "pass-no-service"} {
		if r.verdicts[verdict] == 0 {
			t.Errorf("no case ended in %s", verdict)
		}
	}
}

// configure makes a service anew, with random servers.
func (r *explainRun) configure(key lvs.ServiceKey) {
	r.t.Helper()
	// twos draws lots, and others for the packet itself.
	names := slices.DeleteFunc(implementedSchedulers(), func(name lvs.Scheduler) bool { return name == lvs.PowerOfTwo })
	svc := lvs.Service{
		ServiceKey: key, Scheduler: names[r.random.IntN(len(names))],
		PersistenceMask: lvs.FullPersistenceMask(key.Address),
	}
	if r.plane.services[key] != nil {
		r.check(r.plane.EditService(svc))
	} else {
		mustAddService(r.t, r.plane, svc)
	}
	for i := range r.random.IntN(modelServers) {
		r.changeServer(key, i)
	}
}

func explainServer(key lvs.ServiceKey, i int) lvs.RealServerKey {
	addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)})
	if key.Address.Is6() {
		addr = netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", 1+i))
	}
	return lvs.RealServerKey{Address: addr, Port: key.Port}
}

func (r *explainRun) changeServer(key lvs.ServiceKey, i int) {
	r.t.Helper()
	svc := r.plane.services[key]
	if svc == nil {
		return
	}
	rs := lvs.RealServer{
		RealServerKey: explainServer(key, i), Method: lvs.DirectRouting,
		Weight: []uint32{0, 1, 1, 2, 3, 4, 6}[r.random.IntN(7)],
	}
	if r.random.IntN(3) == 0 {
		rs.UpperThreshold = uint32(1 + r.random.IntN(8))
		rs.LowerThreshold = uint32(r.random.IntN(int(rs.UpperThreshold) + 1))
	}
	if _, err := r.plane.findServer(svc, rs.RealServerKey); err == nil {
		r.check(r.plane.EditServer(key, rs))
		return
	}
	r.check(r.plane.AddServer(key, rs))
	hop := lvs.NextHop{VLAN: uint16(r.random.IntN(2) * 7), MTU: []int{1500, 1500, 100}[r.random.IntN(3)]}
	if r.random.IntN(10) == 0 {
		hop.Problem = "nobody answers"
	}
	setHop(r.t, r.plane, rs.String(), hop)
}

// disturb changes something that may change what becomes of a packet.
func (r *explainRun) disturb() {
	r.t.Helper()
	key := modelServices[r.random.IntN(len(modelServices))]
	switch n := r.random.IntN(100); {
	case n < 60:
		for range 1 + r.random.IntN(4) {
			frame, _ := r.frame()
			mustRun(r.t, r.plane, frame)
		}
	case r.plane.services[key] == nil:
		r.configure(key)
	case n < 62:
		r.fill(key)
	case n < 70:
		advance(r.plane, time.Duration(1+r.random.IntN(200))*time.Second)
	case n < 73:
		advance(r.plane, time.Hour)
	case n < 76:
		mustSweep(r.t, r.plane)
	case n < 80:
		r.configure(key)
	case n < 89:
		r.changeServer(key, r.random.IntN(modelServers))
	case n < 99:
		r.deleteServer(key)
	default:
		r.check(r.plane.DeleteService(key))
	}
}

// fill takes most of the table with connections that give way to nobody.
func (r *explainRun) fill(key lvs.ServiceKey) {
	r.t.Helper()
	if key.Protocol != lvs.TCP || key.Address.Is6() {
		return
	}
	for i := range smallTable {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, 1}), uint16(2000+i)).String()
		vip := netip.AddrPortFrom(key.Address, key.Port).String()
		mustRun(r.t, r.plane, tcpFrame(client, vip, "S"))
		mustRun(r.t, r.plane, tcpFrame(client, vip, "A"))
	}
}

func (r *explainRun) deleteServer(key lvs.ServiceKey) {
	r.t.Helper()
	svc := r.plane.services[key]
	if svc == nil || len(svc.servers) == 0 {
		return
	}
	slot := svc.servers[r.random.IntN(len(svc.servers))]
	r.check(r.plane.DeleteServer(key, r.plane.serverKey(slot)))
}

// frame draws a packet: of few clients, so that many are of a connection.
func (r *explainRun) frame() ([]byte, modelFlow) {
	key := modelServices[r.random.IntN(len(modelServices))]
	client := netip.MustParseAddr("203.0.113.5")
	if key.Address.Is6() {
		client = netip.MustParseAddr("2001:db8:3::5")
	}
	s := segment{
		client:  netip.AddrPortFrom(client, uint16(40000+r.random.IntN(modelClients))).String(),
		vip:     netip.AddrPortFrom(key.Address, key.Port).String(),
		flags:   modelFlags[r.random.IntN(len(modelFlags))],
		udp:     key.Protocol == lvs.UDP,
		payload: make([]byte, r.random.IntN(120)),
	}
	switch r.random.IntN(20) {
	case 0:
		s.ttl = 1
	case 1:
		s.vip = netip.AddrPortFrom(key.Address, 81).String()
	case 2:
		s.tags = []uint16{7}
	case 3:
		s.dontFrag = true
	}
	frame := s.frame(r.t)
	if r.random.IntN(30) == 0 {
		frame = frame[:r.random.IntN(len(frame)-14)+14] // cut short
	}
	return frame, modelFlow{key.Protocol, netip.MustParseAddrPort(s.client), netip.MustParseAddrPort(s.vip)}
}

// one explains a packet, compares all that there is before and after, and sends
// the packet.
func (r *explainRun) one() {
	r.t.Helper()
	frame, flow := r.frame()
	before := r.snapshot()
	e, err := r.plane.Explain(frame, testIfindex)
	r.check(err)
	if after := r.snapshot(); !reflect.DeepEqual(before, after) {
		r.t.Fatalf("Explain changed something (-before +after):\n%s", cmp.Diff(before, after))
	}
	r.checkReason(e)

	var action uint32
	var out []byte
	counted := verdictDelta(r.t, r.plane, func() { action, out = mustRun(r.t, r.plane, frame) })
	if len(counted) != 1 || counted[e.Verdict] != 1 || xdpActions[action] != e.Action {
		r.t.Errorf("explained %s by %s, the packet did %v by %s", e.Verdict, e.Action, counted, xdpActions[action])
	}
	r.compareFrame(e, out)
	r.compareServer(e, before)
	r.compareConnection(e, flow)
	r.verdicts[e.Verdict]++
	r.chosen[string(e.Choice.By)]++
	if r.t.Failed() {
		r.t.Logf("explanation %+v", e)
	}
}

func (r *explainRun) compareFrame(e lvs.Explanation, out []byte) {
	r.t.Helper()
	if e.Out == nil {
		return
	}
	got := *e.Out
	got.InterfaceIndex = 0
	if want := readFrame(out); got != want {
		r.t.Errorf("explained frame %+v, sent was %+v", got, want)
	}
	if strings.HasPrefix(e.Verdict, "forward") && got.Destination != serverMAC(e.Choice.Server.Address) {
		r.t.Errorf("explained server %s, and MAC address %s", e.Choice.Server, got.Destination)
	}
}

// compareServer checks that the packet was counted at the explained server.
func (r *explainRun) compareServer(e lvs.Explanation, before explainSnapshot) {
	r.t.Helper()
	for slot, counters := range r.snapshot().Counters {
		if counters == before.Counters[slot] {
			continue
		}
		if e.Service == nil || r.plane.serverKey(slot) != e.Choice.Server {
			r.t.Errorf("counted at %s, explained %+v", r.plane.serverKey(slot), e.Choice)
		}
		scheduled := counters.Connections != before.Counters[slot].Connections
		if scheduled != (e.Choice.By == lvs.ChosenByScheduler) {
			r.t.Errorf("new connection: %t; explained %+v", scheduled, e.Choice)
		}
	}
}

func (r *explainRun) compareConnection(e lvs.Explanation, flow modelFlow) {
	r.t.Helper()
	var got *lvs.Connection
	for c := range r.plane.Connections() {
		if (modelFlow{c.Protocol, c.Client, c.Virtual}) == flow {
			got = &c
		}
	}
	if e.After == nil || got == nil {
		if e.After != nil || got != nil && e.Choice.By != lvs.ChosenByNobody {
			r.t.Errorf("explained connection %+v, it is %+v", e.After, got)
		}
		return
	}
	// The clock has run on a little.
	if left := e.After.Expires - got.Expires; left < -time.Second || left > time.Second {
		r.t.Errorf("explained that it ends in %s, it does in %s", e.After.Expires, got.Expires)
	}
	if ran := got.Idle - e.After.Idle; ran < -time.Second || ran > time.Second {
		r.t.Errorf("explained that it is idle for %s, it is for %s", e.After.Idle, got.Idle)
	}
	got.Expires, got.Idle = e.After.Expires, e.After.Idle
	if *got != *e.After {
		r.t.Errorf("explained connection %+v, it is %+v", *e.After, *got)
	}
}

// checkReason chooses again, from the figures told alone.
func (r *explainRun) checkReason(e lvs.Explanation) {
	r.t.Helper()
	if e.Choice.By != lvs.ChosenByNobody && e.Choice.Why == "" {
		r.t.Errorf("no reason for %+v", e.Choice)
	}
	if e.Choice.By != lvs.ChosenByScheduler {
		return
	}
	scheduler := e.Service.Scheduler
	var best *lvs.Candidate
	for i := range e.Candidates {
		c := &e.Candidates[i]
		if c.Chosen != (e.Choice.Server == c.RealServerKey) || c.Chosen && !c.Usable() && !hasCache(scheduler) {
			r.t.Errorf("candidate %+v, choice %+v", c, e.Choice)
		}
		if !c.Usable() {
			continue
		}
		if scheduler == lvs.NeverQueue && c.Active == 0 {
			best = c
			break
		}
		if best == nil || c.Load*uint64(best.Divisor) < best.Load*uint64(c.Divisor) {
			best = c
		}
	}
	switch {
	case hasCache(scheduler):
		// whom it remembers may be anyone
	case best == nil && e.Choice.Server != lvs.RealServerKey{}:
		r.t.Errorf("chosen without a usable candidate: %+v", e)
	case best != nil && e.Choice.Server == lvs.RealServerKey{} && !mayFindNobody(scheduler):
		r.t.Errorf("%s is usable, nobody was chosen: %+v", best.RealServerKey, e)
	case best != nil && best.Divisor != 0 && best.RealServerKey != e.Choice.Server:
		r.t.Errorf("%s has the least figure, explained %+v", best.RealServerKey, e)
	}
}

// An explainSnapshot is all that packets change.
type explainSnapshot struct {
	Connections []directorConnectionGroup
	Services    []directorService
	Editions    []directorEdition
	Servers     []directorRealServer
	Counters    map[uint32]lvs.Counters
	Settings    directorSettings
	Verdicts    []VerdictCount
}

// snapshot copies what is in use.
func (r *explainRun) snapshot() explainSnapshot {
	r.t.Helper()
	verdicts, err := r.plane.Verdicts()
	r.check(err)
	s := explainSnapshot{
		Connections: slices.Clone(r.plane.view.connections.elements),
		Settings:    *r.plane.settings(),
		Verdicts:    verdicts,
		Counters:    map[uint32]lvs.Counters{},
	}
	for _, svc := range slices.SortedFunc(maps.Values(r.plane.services), func(a, b *service) int { return int(a.index) - int(b.index) }) {
		s.Services = append(s.Services, r.plane.view.services.elements[svc.index])
		s.Editions = append(s.Editions, r.plane.view.editions.elements[svc.edition])
	}
	for slot, rs := range testServers(r.plane) {
		if rs.State == directorServerStateSERVER_FREE {
			continue
		}
		s.Servers = append(s.Servers, rs)
		s.Counters[uint32(slot)], err = r.plane.rawCounters(uint32(slot))
		r.check(err)
	}
	return s
}

func (r *explainRun) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// mayFindNobody reports whether a scheduler may pass over usable servers.
func mayFindNobody(name lvs.Scheduler) bool {
	switch name {
	case lvs.DestinationHashing, lvs.SourceHashing, lvs.MaglevHashing, lvs.WeightedOverflow:
		return true
	}
	return false
}

// The words of each scheduler's choice.
func TestExplainSaysWhy(t *testing.T) {
	const vip, first, second = "192.0.2.10:80", "198.51.100.1:80", "198.51.100.2:80"
	client := func(port int) string { return fmt.Sprintf("203.0.113.5:%d", port) }
	p := openPlane(t, testhost.MountBPF(t), 1)
	for _, test := range []struct {
		scheduler lvs.Scheduler
		weights   [2]uint32 // of the first and the second server; the second is the newest
		before    int       // connections that are there
		server    string
		why       string
	}{
		{lvs.RoundRobin, [2]uint32{1, 1}, 1, first, "the walk goes on at server 2 of 2: 198.51.100.1:80 is the first usable one from there"},
		{lvs.WeightedRoundRobin, [2]uint32{1, 2}, 1, first,
			"the walk goes on at server 2 of 2 with current weight 1: 198.51.100.1:80 is the first usable one from there that has it"},
		{lvs.WeightedRoundRobin, [2]uint32{1, 2}, 2, second,
			"nobody is left at current weight 1: of the next round, with current weight 2, 198.51.100.2:80 is the first usable one that has it"},
		{lvs.LeastConnection, [2]uint32{1, 1}, 1, first, "least active*256+inactive: 198.51.100.1:80 0 beats 198.51.100.2:80 256"},
		{lvs.WeightedLeastConnection, [2]uint32{4, 2}, 1, first,
			"least (active*256+inactive)/weight: 198.51.100.1:80 0/4 beats 198.51.100.2:80 256/2"},
		{lvs.WeightedLeastConnection, [2]uint32{4, 2}, 0, second,
			"least (active*256+inactive)/weight: 198.51.100.2:80 0/2 ties with 198.51.100.1:80 0/4; the first of the list, the newest, wins"},
		{lvs.ShortestExpectedDelay, [2]uint32{1, 3}, 1, second, "least (active+1)/weight: 198.51.100.2:80 2/3 beats 198.51.100.1:80 1/1"},
		{lvs.NeverQueue, [2]uint32{1, 3}, 1, first, "198.51.100.1:80 is the first idle real server of the list"},
		{lvs.NeverQueue, [2]uint32{1, 3}, 2, second,
			"no real server is idle: least (active+1)/weight: 198.51.100.2:80 2/3 beats 198.51.100.1:80 2/1"},
		{lvs.WeightedFailover, [2]uint32{2, 1}, 1, first, "198.51.100.1:80 has the highest weight, 2, or is the first in the list of those that have it"},
		{lvs.WeightedOverflow, [2]uint32{1, 2}, 3, first, "198.51.100.1:80 has the highest weight, 1, of those with no more active connections than that"},
		{lvs.WeightedOverflow, [2]uint32{1, 1}, 4, "", "every usable real server has more active connections than its weight"},
		{lvs.DestinationHashing, [2]uint32{1, 1}, 0, second, "the hash of the virtual address picks 198.51.100.2:80"},
		{lvs.SourceHashing, [2]uint32{1, 1}, 0, first, "the hash of the client's address picks 198.51.100.1:80"},
		{lvs.MaglevHashing, [2]uint32{1, 1}, 0, first, "the hash of the client's address picks 198.51.100.1:80"},
		{lvs.SourceHashing, [2]uint32{0, 1}, 0, "", "the real server that the hash of the client's address picks is not usable"},
		{lvs.LocalityBasedLeastConnection, [2]uint32{4, 4}, 2, second, "198.51.100.2:80 served the virtual address before"},
		{lvs.LocalityBasedLeastConnectionReplicate, [2]uint32{4, 2}, 0, second,
			"least (active*256+inactive)/weight: 198.51.100.2:80 0/2 ties with 198.51.100.1:80 0/4; the first of the list, the newest, wins"},
		{lvs.LeastConnection, [2]uint32{0, 1}, 1, second, "198.51.100.2:80 is the only usable real server"},
		{lvs.LeastConnection, [2]uint32{0, 0}, 0, "", "no real server is usable"},
	} {
		reset(t, p)
		svc := tcpService(vip, test.scheduler)
		mustAddService(t, p, svc)
		mustAddServer(t, p, svc, first, test.weights[0])
		mustAddServer(t, p, svc, second, test.weights[1])
		for i := range test.before {
			mustRun(t, p, tcpFrame(client(1024+i), vip, "S"))
		}
		e, err := p.Explain(tcpFrame(client(2048), vip, "S"), testIfindex)
		if err != nil {
			t.Fatal(err)
		}
		var want lvs.RealServerKey
		if test.server != "" {
			want = lvs.RealServerKey{Address: addrOf(test.server), Port: 80}
		}
		if e.Choice != (lvs.Choice{By: lvs.ChosenByScheduler, Server: want, Why: test.why}) {
			t.Errorf("%s with %d connections: %+v, want %s: %s", test.scheduler, test.before, e.Choice, test.server, test.why)
		}
	}
}

// A SYN on the ports of a connection that is over: the scheduler still counts it.
func TestExplainReusedConnection(t *testing.T) {
	const vip, server, client = "192.0.2.10:80", "198.51.100.1:80", "203.0.113.5:1024"
	p := openPlane(t, testhost.MountBPF(t), 1)
	svc := tcpService(vip, lvs.LeastConnection)
	mustAddService(t, p, svc)
	rs := mustAddServer(t, p, svc, server, 1)
	mustRun(t, p, tcpFrame(client, vip, "S"))
	mustRun(t, p, tcpFrame(client, vip, "F"))
	e, err := p.Explain(tcpFrame(client, vip, "S"), testIfindex)
	if err != nil {
		t.Fatal(err)
	}
	if e.Before == nil || e.Before.State != lvs.StateTimeWait || e.After == nil || e.After.State != lvs.StateSynRecv {
		t.Errorf("before %+v, after %+v", e.Before, e.After)
	}
	want := []lvs.Candidate{{RealServerKey: rs.RealServerKey, Weight: 1, Inactive: 1, Load: 1, Divisor: 1, Chosen: true}}
	if diff := cmp.Diff(want, e.Candidates, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
}

func TestExplainRefusesOtherInterfaces(t *testing.T) {
	p := openPlane(t, testhost.MountBPF(t), 1)
	_, err := p.Explain(tcpFrame("203.0.113.5:1024", "192.0.2.10:80", "S"), testIfindex+1)
	if !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("got %v, want one that wraps ErrInvalid", err)
	}
}
