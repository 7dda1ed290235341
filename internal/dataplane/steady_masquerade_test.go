package dataplane

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// longWay has a plane's masqueraded services leave the short way: their timeouts are their
// own, and the same.
func longWay(t *testing.T, p *Plane) {
	t.Helper()
	changes := []lvs.SysctlChange{{Name: "timeout_established", Value: 900}, {Name: "timeout_udp", Value: 300}}
	for _, m := range masqueradings {
		for _, service := range []func(string, lvs.Scheduler) lvs.Service{tcpService, udpService} {
			if err := p.SetSysctls(service(m.vip, lvs.RoundRobin).ServiceKey, changes); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A way of masquerading is one method, and where clients come from at their real servers.
type wayOfMasquerading struct {
	method lvs.ForwardingMethod
	toa    bool
	local  map[string]string // by client; nil: from where they are
}

// waysOfMasquerading has FullNAT with a pool of one port a family, so that two planes choose
// the same one.
func waysOfMasquerading() map[string]wayOfMasquerading {
	local := map[string]string{
		masqueradings["ipv4"].client: "198.51.100.160:1024",
		masqueradings["ipv6"].client: "[2001:db8:1::a0]:1024",
	}
	return map[string]wayOfMasquerading{
		"nat":     {method: lvs.Masquerading},
		"fullnat": {method: lvs.FullNAT, local: local},
		"toa":     {method: lvs.FullNAT, toa: true, local: local},
	}
}

// plane has the services of masqueradings for TCP and UDP.
func (w wayOfMasquerading) plane(t *testing.T) *Plane {
	t.Helper()
	p := newTestPlane(t)
	setLocals(t, p, localAddress("198.51.100.160/32", 1), localAddress("2001:db8:1::a0/128", 1))
	for _, m := range masqueradings {
		mustTranslate(t, p, tcpService(m.vip, lvs.RoundRobin), m.server, w.method, w.toa)
		mustTranslate(t, p, udpService(m.vip, lvs.RoundRobin), m.server, w.method, false)
	}
	return p
}

// client returns where a client comes from at its real server.
func (w wayOfMasquerading) client(m masquerading) string {
	if local, ok := w.local[m.client]; ok {
		return local
	}
	return m.client
}

// A packet of a masqueraded connection in either direction, mostly a steady one. Some
// acknowledge no more than the real server's SYN, whose sequence number is 0.
func (w wayOfMasquerading) frame(r *rand.Rand) []byte {
	m := masqueradings[[]string{"ipv4", "ipv6"}[r.IntN(2)]]
	from, to, reply := m.client, m.vip, r.IntN(2) == 1
	if reply {
		from, to = m.server, w.client(m)
	}
	payload := make([]byte, r.IntN(5))
	if r.IntN(20) == 0 {
		payload = make([]byte, 1400+r.IntN(80)) // some have no room
	}
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	segment := numberedSegment{flags: "A", ack: r.Uint32N(4), payload: payload}
	protocol, upper := byte(protoTCP), segment.build(from, to)
	if r.IntN(3) == 0 {
		protocol, upper = protoUDP, udp(from, to, payload...)
	}
	frame := sealed(ip(from, to, protocol, upper))
	packet := frame[14:]
	ttl, header := 8, 20
	if packet[0]>>4 == 6 {
		ttl, header = 7, 40
	}
	switch r.IntN(12) {
	case 0: // the checksum is what it may be
		at := header + map[byte]int{protoTCP: 16, protoUDP: 6}[protocol]
		binary.BigEndian.PutUint16(packet[at:], []uint16{0, 0xffff, uint16(r.Uint32())}[r.IntN(3)])
	case 1:
		packet[ttl] = byte(1 + r.IntN(3))
		setIPv4ChecksumOf(frame)
	}
	if reply {
		return fromServer(frame, m.server)
	}
	return frame
}

// keptMAC is where keepWays sends replies to.
var keptMAC = lvs.MAC{2, 0, 0, 0, 9, 1}

// keepWays keeps the ways to the clients of masquerading, as if the kernel had just told
// them.
func keepWays(t *testing.T, p *Plane) {
	t.Helper()
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	now, err := p.now()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range masqueradings {
		client := toAddress(addrOf(m.client))
		hop := directorClientHop{
			Caddr: client, Vaddr: toAddress(addrOf(m.vip)), Verdict: uint32(directorVerdictFORWARD_REPLY), Until: now + 1<<30,
			Hop: toNextHop(lvs.NextHop{InterfaceIndex: testIfindex, MTU: 1430, Source: directorMAC, Destination: keptMAC}),
		}
		const mix = 0x9e3779b97f4a7c15 // as in route.h
		slot := uint32((client.High^client.Low)*mix>>32) % p.maps.ClientHops.MaxEntries()
		if err := p.maps.ClientHops.Put(slot, slices.Repeat([]directorClientHop{hop}, cpus)); err != nil {
			t.Fatal(err)
		}
	}
}

// The short way of masqueraded packets does what the stages do: two planes, one of which has
// none, give the same frames, verdicts, states and counts. The way to a client is the kernel's,
// or, where that knows none, the one that it came by.
func TestShortWayOfMasqueradedPackets(t *testing.T) {
	for method, way := range waysOfMasquerading() {
		for name, kept := range map[string]bool{"back": false, "kept": true} {
			t.Run(method+" "+name, func(t *testing.T) { testShortWayOfMasqueradedPackets(t, way, kept) })
		}
	}
}

// wantShortWay checks whether the short way may take packets to the plane's real servers.
func wantShortWay(t *testing.T, p *Plane, want bool) {
	t.Helper()
	for i := range p.view.servers.elements {
		rs := &p.view.servers.elements[i]
		if rs.State != directorServerStateSERVER_LISTED {
			continue
		}
		if got := rs.Hop&directorServerHopHOP_STEADY_MASQUERADING != 0; got != want {
			t.Errorf("real server %d has a short way: %v, want %v", i, got, want)
		}
	}
}

func testShortWayOfMasqueradedPackets(t *testing.T, way wayOfMasquerading, kept bool) {
	short, long := way.plane(t), way.plane(t)
	longWay(t, long)
	wantShortWay(t, short, true)
	wantShortWay(t, long, false)
	if kept {
		keepWays(t, short)
		keepWays(t, long)
	}
	r := random(t)
	for _, m := range masqueradings {
		for _, frame := range [][]byte{tcpFrame(m.client, m.vip, "S"), udpFrame(m.client, m.vip, 1)} {
			for _, p := range []*Plane{short, long} {
				wantVerdict(t, p, frame, "forward", xdpTX)
			}
		}
		greeting := numberedSegment{flags: "SA", ack: 1}
		for _, p := range []*Plane{short, long} {
			wantVerdict(t, p, fromServer(greeting.frame(m.server, way.client(m)), m.server), "forward-reply", xdpTX)
		}
	}
	var told [2]map[string]uint64
	frames := make([][]byte, 20_000)
	for i := range frames {
		frames[i] = way.frame(r)
	}
	var outs [2][]string
	for i, p := range []*Plane{short, long} {
		told[i] = verdictDelta(t, p, func() {
			for _, frame := range frames {
				action, out := mustRun(t, p, frame)
				outs[i] = append(outs[i], fmt.Sprintf("%d %x", action, out))
			}
		})
	}
	for i, frame := range frames {
		// ICMP answers have a random id, and a limit; what they are is told by the verdicts.
		if outs[0][i] != outs[1][i] && outs[1][i][0] == '3' && len(outs[1][i]) == 2+2*len(frame) {
			t.Fatalf("packet %d, %x:\nshort way %s\nlong way  %s", i, frame, outs[0][i], outs[1][i])
		}
	}
	merge := func(counts map[string]uint64) map[string]uint64 {
		counts = maps.Clone(counts)
		answered := counts["answer-ttl"] + counts["answer-too-big"] + counts["drop-rate-limit"]
		for _, name := range []string{"answer-ttl", "answer-too-big", "drop-rate-limit"} {
			delete(counts, name)
		}
		counts["answered"] = answered
		return counts
	}
	if diff := cmp.Diff(merge(told[0]), merge(told[1])); diff != "" {
		t.Errorf("verdicts (-short +long):\n%s", diff)
	}
	byKept := slices.ContainsFunc(outs[0], func(out string) bool { return strings.HasPrefix(out, fmt.Sprintf("3 %x", keptMAC[:])) })
	if byKept != kept {
		t.Errorf("replies go by the kept way: %v, want %v", byKept, kept)
	}
	if told[0]["forward"] < 5000 || told[0]["forward-reply"] < 5000 {
		t.Errorf("verdicts %v", told[0])
	}
	if diff := cmp.Diff(shortWayCounts(t, short), shortWayCounts(t, long)); diff != "" {
		t.Errorf("counts (-short +long):\n%s", diff)
	}
	checkTable(t, short)
}

// shortWayCounts tells connections with their state and packets, and real servers' counters.
func shortWayCounts(t *testing.T, p *Plane) []string {
	t.Helper()
	var all []string
	for c := range p.Connections() {
		all = append(all, fmt.Sprint(c.Protocol, c.Client, c.Virtual, c.Server, c.State, c.Packets, c.Bytes))
	}
	services := mustServices(t, p)
	for _, svc := range services {
		all = append(all, fmt.Sprint(svc.ServiceKey, svc.Servers[0].Active, svc.Servers[0].Inactive, svc.Servers[0].Counters))
	}
	slices.Sort(all)
	return all
}
