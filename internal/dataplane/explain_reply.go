package dataplane

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// findReply returns the entry for replies of a name: that of a masqueraded connection's way
// back.
func findReply(groups map[uint32]directorConnectionGroup, name entryName, now uint32) *directorConnection {
	for _, group := range groups {
		for i := range group.Slots {
			entry, ok := readEntry(&group.Slots[i], now)
			if ok && isReply(&entry) && name == (entryName{entry.Caddr, entry.Vaddr, entry.Cport, entry.Vport, entry.Protocol}) {
				return &entry
			}
		}
	}
	return nil
}

// ownerOf returns the slot of the connection that the entry for replies belongs to.
func ownerOf(reply *directorConnection) uint32 { return reply.Packets }

// copySecond copies what of a translated connection lies elsewhere in the table: for a reply,
// the connection that it is of; for a client's packet, what tells its local address.
func (r *rehearsal) copySecond(p *Plane, sight *explainSight, s *stage) error {
	now, err := p.now()
	if err != nil {
		return err
	}
	slot, ok := uint32(0), false
	if reply := findReply(s.groups, flowOf(sight), now); reply != nil {
		slot, ok = ownerOf(reply), true
	} else if own, conn := findSlot(s.groups, flowOf(sight), now); conn != nil && isFullNAT(conn) {
		slot, ok = p.replyOf(own)
	}
	if !ok {
		return nil
	}
	return r.copyGroups(p, []uint32{slot / uint32(directorLimitGROUP_SLOTS)}, s)
}

func (r *rehearsal) copyLocalAddresses(p *Plane) error {
	for _, word := range &p.settings().LocalAddresses {
		for at := word >> 16; at < word>>16+word&0xffff; at++ {
			if err := r.put(r.objects.LocalAddresses, at, p.view.locals.elements[at]); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookBack finds where the replies of the connection that a rehearsed packet begins have their
// entry, which only its server tells. False: nothing is to be copied for them.
func (r *rehearsal) lookBack(sight *explainSight, s *stage, o *outcome) (bool, error) {
	if sight.HasReply != 0 || !o.scheduled || !lvs.ForwardingMethod(s.servers[o.server].Method).Translates() {
		return false, nil
	}
	choice := explainChoice{Server: o.server}
	if s.edition.Persistence != 0 {
		choice.Flags = explainConnectionFlagCONNECTION_CONTROLLED
	}
	if _, err := r.ahead.Back.Run(&ebpf.RunOptions{Context: choice}); err != nil {
		return false, fmt.Errorf("look back: %w", err)
	}
	err := r.ahead.Sights.Lookup(uint32(0), sight)
	return sight.HasReply != 0, err
}

// tellReply tells of a masqueraded real server's packet: whose connection it is of, and what
// the client knows the real server as. False: it is none.
func (p *Plane) tellReply(e *lvs.Explanation, s *stage, o *outcome, sight *explainSight, now uint32) bool {
	reply := findReply(s.groups, flowOf(sight), now)
	if reply == nil {
		return false
	}
	owner := ownerOf(reply)
	slot := owner % uint32(directorLimitGROUP_SLOTS)
	// A packet that has passed has left no copy of it: there is the connection as it is now.
	group, copied := s.groups[owner/uint32(directorLimitGROUP_SLOTS)]
	after := o.groups[owner/uint32(directorLimitGROUP_SLOTS)]
	if !copied {
		group = p.view.connections.elements[owner/uint32(directorLimitGROUP_SLOTS)]
		after = group
	}
	before, ok := readEntry(&group.Slots[slot], now)
	if !ok || isReply(&before) {
		return false
	}
	was := p.connection(&before, now)
	e.Before = &was
	if left, ok := readEntry(&after.Slots[slot], now); ok {
		is := p.connection(&left, now)
		e.After = &is
	}
	if isFullNAT(reply) {
		local := netip.AddrPortFrom(fromAddress(reply.Vaddr), fromPort(reply.Vport))
		setLocal(e.Before, local)
		setLocal(e.After, local)
	}
	server := netip.AddrPortFrom(fromAddress(reply.Caddr), fromPort(reply.Cport))
	p.tellKnown(e, reply.Server, fmt.Sprintf("it is a reply: what %s sends to %s becomes a packet of %s", server, was.Client, was.Virtual))
	return true
}

// localOf returns where the packet of a FullNAT client comes from for its real server, if it
// is sent there. The entries are its connection's, nil where there is none.
func localOf(before, after *directorConnection, o *outcome) (netip.AddrPort, bool) {
	switch o.verdict {
	case directorVerdictFORWARD, directorVerdictFORWARD_NO_TOA, directorVerdictFORWARD_IN_FRAGMENTS:
	default:
		return netip.AddrPort{}, false
	}
	if (before == nil || !isFullNAT(before)) && (after == nil || !isFullNAT(after)) {
		return netip.AddrPort{}, false
	}
	return sourceOf(o.frame)
}

func setLocal(c *lvs.Connection, local netip.AddrPort) {
	if c != nil {
		c.Local = local
	}
}

// sourceOf returns the address and the port that a frame of TCP, UDP or SCTP comes from.
func sourceOf(frame []byte) (netip.AddrPort, bool) {
	_, ethertype, packet := network(frame)
	from, header := readFrame(frame).SourceIP, 0
	switch {
	case ethertype == ethertypeIPv4 && len(packet) >= 20:
		header = int(packet[0]&15) * 4
	case ethertype == ethertypeIPv6 && len(packet) >= 40:
		_, header = skipExtensions(packet)
	}
	if header == 0 || len(packet) < header+2 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(from, be16(packet[header:])), true
}

// interfaceOf returns the index of the interface that has the MAC address, or otherwise.
func (p *Plane) interfaceOf(mac lvs.MAC, otherwise int) int {
	for i := range p.view.interfaces.elements {
		if in := &p.view.interfaces.elements[i]; in.Ifindex != 0 && in.Ifindex != uint32(otherwise) && lvs.MAC(in.Mac) == mac {
			return int(in.Ifindex)
		}
	}
	return otherwise
}
