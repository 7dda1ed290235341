package dataplane

import (
	"math/bits"
	"testing"
)

// checkTable checks, while no packet comes in, that the connection table agrees
// with itself: no slot is half done, every entry lies on its flow's way, passed
// counts are those of the entries, and so are the counts of real servers.
func checkTable(t testing.TB, p *Plane) {
	t.Helper()
	type place struct{ group, slot uint32 }
	passed := map[place]uint32{}
	active, inactive := map[uint32]uint32{}, map[uint32]uint32{}
	groups := p.view.connections.elements
	for g := range groups {
		for s := range groups[g].Slots {
			conn := &groups[g].Slots[s]
			switch conn.Control & directorControlCONTROL_STATUS {
			case directorControlCONTROL_FREE:
				continue
			case directorControlCONTROL_CLAIMED:
				t.Errorf("slot %d of group %d is claimed", s, g)
				continue
			}
			if conn.Flags&connectionEnded != 0 {
				t.Errorf("entry in slot %d of group %d has ended", s, g)
			}
			if isReply(conn) {
				checkReply(t, p, uint32(g), uint32(s))
			} else if conn.Flags&connectionInactive != 0 {
				inactive[conn.Server]++
			} else {
				active[conn.Server]++
			}
			way := wayOf(p, conn)
			if at := way[conn.Distance]; at != [2]uint32{uint32(g), uint32(s)} {
				t.Errorf("entry in slot %d of group %d has distance %d, where its way is at %v", s, g, conn.Distance, at)
			}
			for _, at := range way[:conn.Distance] {
				passed[place{at[0], at[1]}]++
			}
		}
	}
	for g := range groups {
		for s := range groups[g].Slots {
			got := uint32(groups[g].Slots[s].Control >> directorControlCONTROL_PASSED_SHIFT)
			if want := passed[place{uint32(g), uint32(s)}]; got != want {
				t.Errorf("slot %d of group %d was passed by %d entries, counts %d", s, g, want, got)
			}
		}
	}
	for i, rs := range testServers(p) {
		if slot := uint32(i); rs.Active != active[slot] || rs.Inactive != inactive[slot] {
			t.Errorf("server in slot %d counts %d active, %d inactive; the table has %d and %d", i, rs.Active, rs.Inactive, active[slot], inactive[slot])
		}
	}
}

// The flags of enum connection_flag.
const (
	connectionInactive = 1
	connectionEnded    = 2
)

// wayOf are the places where an entry's flow may lie, in order.
func wayOf(p *Plane, conn *directorConnection) (way [][2]uint32) {
	set := p.settings()
	k := set.HashKeys
	word := uint64(conn.Cport) | uint64(conn.Vport)<<16 | uint64(conn.Protocol)<<32
	const mix = 0x9e3779b97f4a7c15
	hash := (conn.Caddr.High+k[0])*(conn.Caddr.Low+k[1]) + (conn.Vaddr.High+k[2])*(conn.Vaddr.Low+k[3]) + word*k[4]
	hash = (hash ^ hash>>32) * mix
	groups := uint64(len(p.view.connections.elements))
	shift := 64 - bits.Len64(groups-1)
	first, home := hash>>shift, hash>>(shift-3)%8
	stride := (hash*mix)>>32 | 1
	for i := range uint64(directorLimitPROBE_GROUPS) {
		for s := range uint64(directorLimitGROUP_SLOTS) {
			way = append(way, [2]uint32{uint32((first + i*stride) % groups), uint32((home + s) % 8)})
		}
	}
	return way
}
