package dataplane

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// tellTraced puts what the tracing program noted into the words of Explain. The
// names of services and real servers are those of now: p.mu is held.
func (p *Plane) tellTraced(t *traced, at time.Time) lvs.TracedPacket {
	sight := explainSight{
		Caddr: explainAddress(t.Caddr), Vaddr: explainAddress(t.Vaddr),
		Cport: uint16(t.Word), Vport: uint16(t.Word >> 16), Protocol: uint8(t.Word >> 32),
		Verdict: t.Parsed, HasService: t.HasService,
	}
	told := lvs.TracedPacket{
		Explanation: p.tell(t.in, int(t.Ifindex), t.Now, &sight, p.tracedStage(t), t.outcome()),
		Time:        at,
		InData:      t.in,
		OutData:     t.out,
	}
	told.In.Length = int(t.InLength)
	if told.Out != nil {
		told.Out.Length = int(t.OutLength)
	}
	if told.Candidates != nil {
		told.Omitted = max(int(t.Edition.Servers)-len(t.candidates), 0)
		told.Choice.Why = amongOmitted(told.Choice.Why, told.Omitted)
	}
	if t.Parsed == uint32(directorVerdictCONTINUE) {
		told.Protocol = lvs.Protocol(sight.Protocol)
		told.Client = netip.AddrPortFrom(fromAddress(directorAddress(t.Caddr)), fromPort(sight.Cport))
		told.Virtual = netip.AddrPortFrom(fromAddress(directorAddress(t.Vaddr)), fromPort(sight.Vport))
		if told.Protocol == lvs.TCP {
			told.Flags = readTCPFlags(t.in)
		}
	}
	return told
}

// amongOmitted completes a reason that was found without some of the servers.
func amongOmitted(why string, omitted int) string {
	switch {
	case omitted == 0:
		return why
	case why == "":
		return "it is one of the servers that are not told"
	}
	return fmt.Sprintf("%s, of those that are told; %d more are not", why, omitted)
}

// tracedStage is what the packet met.
func (p *Plane) tracedStage(t *traced) *stage {
	before := directorConnectionGroup{}
	before.Slots[0] = sameLayout[directorConnection](t.Before)
	s := &stage{
		groups:  map[uint32]directorConnectionGroup{0: before},
		servers: map[uint32]directorRealServer{},
		edition: sameLayout[directorEdition](t.Edition),
		passed:  true,
	}
	if t.HasService != 0 {
		s.service = p.tracedService(t, s.edition)
	}
	for _, c := range t.candidates {
		s.servers[c.Server] = directorRealServer{
			Weight: c.Weight, Active: c.Active, Inactive: c.Inactive, Overloaded: c.Overloaded,
		}
	}
	if t.Index != noServer {
		s.servers[t.Index] = withCounts(sameLayout[directorRealServer](t.Server), s.servers[t.Index])
	}
	return s
}

// withCounts returns the server with what its scheduler saw of it.
func withCounts(server, seen directorRealServer) directorRealServer {
	server.Weight, server.Active, server.Inactive = seen.Weight, seen.Active, seen.Inactive
	server.Overloaded = seen.Overloaded
	return server
}

// tracedService is the service that the packet found, which may have been changed
// or deleted since.
func (p *Plane) tracedService(t *traced, edition directorEdition) *service {
	key := fromServiceKey(sameLayout[directorServiceKey](t.Service))
	found := service{Service: lvs.Service{ServiceKey: key}}
	if svc := p.services[key]; svc != nil {
		found.Service = svc.Service
	}
	if name := fromScheduler(edition.Scheduler); name != "" {
		found.Scheduler = name
	}
	for _, c := range t.candidates {
		found.servers = append(found.servers, c.Server)
	}
	return &found
}

// outcome is what the packet did.
func (t *traced) outcome() *outcome {
	after := directorConnectionGroup{}
	after.Slots[0] = sameLayout[directorConnection](t.After)
	return &outcome{
		action:    t.Action,
		frame:     t.out,
		verdict:   directorVerdict(t.Verdict),
		server:    t.Index,
		scheduled: t.Choice == traceTraceChoiceTRACE_SCHEDULED && t.Index != noServer,
		nobody:    t.Choice != traceTraceChoiceTRACE_NOT_ASKED && t.Index == noServer,
		groups:    map[uint32]directorConnectionGroup{0: after},
		cursor:    t.Cursor,
	}
}

// readTCPFlags reads the flags of a frame that holds a TCP segment.
func readTCPFlags(frame []byte) lvs.TCPFlags {
	const flagsAt, tcp = 13, 6
	_, ethertype, packet := network(frame)
	var protocol byte
	var header int
	switch {
	case ethertype == ethertypeIPv4 && len(packet) >= 20:
		protocol, header = packet[9], int(packet[0]&15)*4
	case ethertype == ethertypeIPv6 && len(packet) >= 40:
		protocol, header = skipExtensions(packet)
	}
	if protocol != tcp || len(packet) <= header+flagsAt {
		return 0
	}
	return lvs.TCPFlags(packet[header+flagsAt])
}

// skipExtensions returns the upper layer of an IPv6 packet, and where it begins.
func skipExtensions(packet []byte) (protocol byte, at int) {
	const hopByHop, routing, fragment, authentication, destination = 0, 43, 44, 51, 60
	protocol, at = packet[6], 40
	for len(packet) >= at+8 {
		next, length := packet[at], int(packet[at+1])
		switch protocol {
		case hopByHop, routing, destination:
			at += (length + 1) * 8
		case authentication:
			at += (length + 2) * 4
		case fragment:
			at += 8
		default:
			return protocol, at
		}
		protocol = next
	}
	return protocol, at
}
