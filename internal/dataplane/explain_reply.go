package dataplane

import (
	"fmt"
	"net/netip"

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

// copyOwner copies the connection of the replies that a packet is one of, which lies
// elsewhere in the table.
func (r *rehearsal) copyOwner(p *Plane, sight *explainSight, s *stage) error {
	now, err := p.now()
	if err != nil {
		return err
	}
	reply := findReply(s.groups, flowOf(sight), now)
	if reply == nil {
		return nil
	}
	return r.copyGroups(p, []uint32{ownerOf(reply) / uint32(directorLimitGROUP_SLOTS)}, s)
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
	server := netip.AddrPortFrom(fromAddress(reply.Caddr), fromPort(reply.Cport))
	p.tellKnown(e, reply.Server, fmt.Sprintf("it is a reply: what %s sends to %s becomes a packet of %s", server, was.Client, was.Virtual))
	return true
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
