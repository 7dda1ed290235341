package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// xdpActions are the names of what a driver is told (linux/bpf.h).
var xdpActions = [...]string{"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"}

// Explain tells what would become of a frame that came in on an interface now,
// and why. It runs the director's own program on copies: no counter, connection
// or scheduler changes. Changes that packets make meanwhile may or may not be
// seen. It wraps lvs.ErrInvalid for an interface that the program is not attached
// to.
func (p *Plane) Explain(frame []byte, ifindex int) (lvs.Explanation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.explain(frame, ifindex)
	if err != nil {
		return lvs.Explanation{}, fmt.Errorf("explain a packet: %w", err)
	}
	return e, nil
}

func (p *Plane) explain(frame []byte, ifindex int) (e lvs.Explanation, err error) {
	if p.view.interfaces.elements[interfaceSlot(ifindex)].Ifindex != uint32(ifindex) {
		return e, fmt.Errorf("interface with index %d: %w: the data plane is not attached to it", ifindex, lvs.ErrInvalid)
	}
	if p.rehearsal == nil {
		if p.rehearsal, err = newRehearsal(p); err != nil {
			return e, err
		}
	}
	r := p.rehearsal
	defer func() { err = errors.Join(err, r.clear()) }()
	sight, err := r.lookAhead(frame, ifindex)
	if err != nil {
		return e, err
	}
	now, err := p.now()
	if err != nil {
		return e, err
	}
	s, o, err := r.rehearse(p, frame, &sight, ifindex)
	if err != nil {
		return e, err
	}
	return p.tell(frame, ifindex, now, &sight, s, &o), nil
}

// tell puts what was seen into words.
func (p *Plane) tell(frame []byte, ifindex int, now uint32, sight *explainSight, s *stage, o *outcome) lvs.Explanation {
	text := verdictTexts[o.verdict]
	e := lvs.Explanation{
		Verdict: text.Name, VerdictKind: text.Kind, VerdictMeaning: text.Meaning,
		Action: xdpActions[o.action],
		In:     readFrame(frame),
	}
	e.In.InterfaceIndex = ifindex
	if sight.Verdict != uint32(directorVerdictCONTINUE) {
		return e
	}
	if s.service != nil {
		found := s.service.Service
		e.Service = &found
	}
	before, after := findEntry(s.groups, flowOf(sight), now), findEntry(o.groups, flowOf(sight), now)
	if before != nil {
		c := p.connection(before, now)
		e.Before = &c
	}
	if after != nil {
		c := p.connection(after, now)
		e.After = &c
	}
	o.template = templateUsed(s, o, sight, now)
	switch {
	case p.tellReply(&e, s, o, sight, now):
	case o.template != nil:
		p.tellTemplate(&e, o, now)
	default:
		p.tellChoice(&e, s, o, before)
	}
	p.tellOut(&e, s, o, ifindex)
	if local, ok := localOf(before, after, o); ok {
		setLocal(e.Before, local)
		setLocal(e.After, local)
	}
	return e
}

// An entryName is what names an entry of the connection table.
type entryName struct {
	caddr, vaddr directorAddress
	cport, vport uint16
	protocol     uint8
}

func flowOf(sight *explainSight) entryName {
	return entryName{directorAddress(sight.Caddr), directorAddress(sight.Vaddr), sight.Cport, sight.Vport, sight.Protocol}
}

func templateOf(sight *explainSight) entryName {
	return entryName{
		caddr: directorAddress(sight.TemplateCaddr), vaddr: directorAddress(sight.TemplateVaddr),
		vport: sight.TemplateVport, protocol: sight.TemplateProtocol,
	}
}

// templateUsed returns the template that a packet's new connection follows, nil if
// it follows none: one that was there before, and that is not void afterwards.
func templateUsed(s *stage, o *outcome, sight *explainSight, now uint32) *directorConnection {
	if sight.HasTemplate == 0 || !o.scheduled {
		return nil
	}
	before := findEntry(s.groups, templateOf(sight), now)
	if before == nil || before.Server != o.server {
		return nil
	}
	return findEntry(o.groups, templateOf(sight), now)
}

// tellTemplate tells of a packet that a template sends to its server.
func (p *Plane) tellTemplate(e *lvs.Explanation, o *outcome, now uint32) {
	template := p.connection(o.template, now)
	e.Choice = lvs.Choice{
		By: lvs.ChosenByTemplate, Server: p.serverKey(o.server),
		Why: fmt.Sprintf("persistence: connections of %s go to the server of the first one, for %s more",
			template.Client.Addr(), template.Expires.Round(time.Second)),
	}
}

// findEntry returns the entry of a name, nil if there is none.
func findEntry(groups map[uint32]directorConnectionGroup, name entryName, now uint32) *directorConnection {
	_, entry := findSlot(groups, name, now)
	return entry
}

// findSlot returns the entry of a name, and its slot in the table.
func findSlot(groups map[uint32]directorConnectionGroup, name entryName, now uint32) (uint32, *directorConnection) {
	for index, group := range groups {
		for i := range group.Slots {
			entry, ok := readEntry(&group.Slots[i], now)
			void := explainConnectionFlag(entry.Flags)&explainConnectionFlagCONNECTION_VOID != 0
			if ok && !void && !isReply(&entry) && name == (entryName{entry.Caddr, entry.Vaddr, entry.Cport, entry.Vport, entry.Protocol}) {
				return index*uint32(directorLimitGROUP_SLOTS) + uint32(i), &entry
			}
		}
	}
	return 0, nil
}

// tellChoice tells which real server it is and why, and for a packet that no
// connection takes, whom the scheduler looks at.
func (p *Plane) tellChoice(e *lvs.Explanation, s *stage, o *outcome, before *directorConnection) {
	switch {
	case o.scheduled:
		e.Candidates = p.candidates(s)
		e.Choice = lvs.Choice{By: lvs.ChosenByScheduler, Server: p.serverKey(o.server)}
		chosen := mark(e.Candidates, e.Choice.Server)
		e.Choice.Why = whyScheduled(s, o, e.Candidates, chosen)
	case o.server != noServer && e.After == nil:
		e.Candidates = p.candidates(s)
		e.Choice = lvs.Choice{By: lvs.ChosenByHash, Server: p.serverKey(o.server)}
		mark(e.Candidates, e.Choice.Server)
		e.Choice.Why = "the connection table has no room for it: the packets of a client's port go to the same server, by hash"
	case o.server != noServer:
		p.tellKnown(e, o.server, "it is of a connection, which stays with its real server")
	case o.verdict == directorVerdictDROP_SERVER_REMOVED && before != nil:
		p.tellKnown(e, before.Server, "it is of a connection whose real server was removed and may return")
	case (o.verdict == directorVerdictANSWER_NO_SERVER || o.nobody) && s.service != nil:
		e.Candidates = p.candidates(s)
		e.Choice = lvs.Choice{By: lvs.ChosenByScheduler, Why: whyNobody(s, e.Candidates)}
	}
}

// tellKnown tells of a packet that goes where its connection goes. The service
// is the connection's: another may have its address by now.
func (p *Plane) tellKnown(e *lvs.Explanation, slot uint32, why string) {
	e.Choice = lvs.Choice{By: lvs.ChosenByConnection, Server: p.serverKey(slot), Why: why}
	key := fromServiceKey(p.view.servers.elements[slot].Service)
	if svc := p.services[key]; svc != nil {
		found := svc.Service
		e.Service = &found
	} else {
		e.Service = &lvs.Service{ServiceKey: key}
	}
}

// tellOut tells of the frame that is sent, if one is.
func (p *Plane) tellOut(e *lvs.Explanation, s *stage, o *outcome, ifindex int) {
	const tx, redirect = 3, 4
	if o.action != tx && o.action != redirect {
		return
	}
	out := readFrame(o.frame)
	out.InterfaceIndex = ifindex
	switch o.verdict {
	case directorVerdictFORWARD, directorVerdictFORWARD_NO_ENTRY, directorVerdictFORWARD_NO_TOA:
		rs := s.servers[o.server]
		out.InterfaceIndex = int(rs.nextHop().Ifindex)
	case directorVerdictFORWARD_REPLY:
		out.InterfaceIndex = p.interfaceOf(out.Source, ifindex)
	}
	e.Out = &out
}

// candidates are the service's servers as the scheduler finds them: an entry that
// gives way to the packet is still counted then.
func (p *Plane) candidates(s *stage) []lvs.Candidate {
	candidates := make([]lvs.Candidate, 0, len(s.service.servers))
	for _, slot := range s.service.servers {
		rs := s.servers[slot]
		c := lvs.Candidate{
			RealServerKey: p.serverKey(slot),
			Weight:        rs.Weight,
			Active:        atomic.LoadUint32(&rs.Active),
			Inactive:      atomic.LoadUint32(&rs.Inactive),
			Overloaded:    rs.Overloaded != 0,
		}
		c.Load, c.Divisor = load(s.service.Scheduler, c)
		candidates = append(candidates, c)
	}
	return candidates
}

// mark marks the chosen one, and returns its position.
func mark(candidates []lvs.Candidate, chosen lvs.RealServerKey) int {
	for i := range candidates {
		if candidates[i].RealServerKey == chosen {
			candidates[i].Chosen = true
			return i
		}
	}
	return -1
}

// readFrame reads the headers of a frame as far as it has them.
func readFrame(frame []byte) lvs.Frame {
	f := lvs.Frame{Length: len(frame)}
	if len(frame) < ethernetHeader {
		return f
	}
	f.Destination, f.Source = lvs.MAC(frame[:6]), lvs.MAC(frame[6:12])
	vlan, ethertype, packet := network(frame)
	f.VLAN = vlan
	switch {
	case ethertype == ethertypeIPv4 && len(packet) >= 20:
		f.TTL = packet[8]
		f.SourceIP, f.DestinationIP = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
	case ethertype == ethertypeIPv6 && len(packet) >= 40:
		f.TTL = packet[7]
		f.SourceIP, f.DestinationIP = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
	}
	return f
}

const (
	ethertypeIPv4 = 0x0800
	ethertypeIPv6 = 0x86dd
)

// network returns the innermost VLAN tag of a frame that has an Ethernet header,
// 0 for none, and what lies behind the tags.
func network(frame []byte) (vlan, ethertype uint16, packet []byte) {
	if len(frame) < ethernetHeader {
		return 0, 0, nil
	}
	ethertype, packet = be16(frame[12:]), frame[ethernetHeader:]
	for (ethertype == 0x8100 || ethertype == 0x88a8) && len(packet) >= 4 {
		vlan = be16(packet) & 0xfff
		ethertype, packet = be16(packet[2:]), packet[4:]
	}
	return vlan, ethertype, packet
}

func be16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
