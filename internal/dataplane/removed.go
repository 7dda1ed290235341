package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Removed real servers wait for their return as in the kernel's trash (ip_vs_ctl.c,
// ip_vs_dest_trash_expire): it is looked through each minute; a server that nobody
// refers to any more begins to wait then, and has waited enough two minutes later.

const (
	// removedPeriod is how long a removed real server without connections and
	// templates is kept (include/net/ip_vs.h, IP_VS_DEST_TRASH_PERIOD).
	removedPeriod = 120 * time.Second
	// collectInterval is how often that is looked at.
	collectInterval = removedPeriod / 2
)

// retire marks a real server that is on no list any more as removed.
func (p *Plane) retire(key lvs.ServiceKey, slot uint32) error {
	if len(p.removed) == 0 {
		if err := p.scheduleCollection(); err != nil {
			return err
		}
	}
	p.view.servers.elements[slot].IdleSince = 0
	p.setDrain(slot, NotDrained)
	p.setServerState(slot, directorServerStateSERVER_REMOVED)
	p.removed[serverIdentity{key, p.serverKey(slot)}] = slot
	return nil
}

// scheduleCollection begins to look through the removed servers an interval from now.
func (p *Plane) scheduleCollection() error {
	now, err := p.now()
	p.collectAt = now + p.toTicks(collectInterval)
	return err
}

// collectRemoved looks through the removed servers as often as was due.
func (p *Plane) collectRemoved() error {
	if len(p.removed) == 0 {
		return nil
	}
	now, err := p.now()
	if err != nil || int32(now-p.collectAt) < 0 {
		return err
	}
	remembered, err := p.remembered()
	if err != nil {
		return err
	}
	for len(p.removed) > 0 && int32(now-p.collectAt) >= 0 {
		if err := p.collectAtTick(p.collectAt, remembered); err != nil {
			return err
		}
		p.collectAt += p.toTicks(collectInterval)
	}
	return nil
}

// collectAtTick looks through the removed servers as of a tick. Those that a cache
// of lblc or lblcr remembers are referred to as well.
func (p *Plane) collectAtTick(tick uint32, remembered map[uint32]bool) error {
	for identity, slot := range p.removed {
		rs := &p.view.servers.elements[slot]
		switch {
		case isBusy(rs), remembered[p.cacheWord(slot)]:
		case rs.IdleSince == 0:
			rs.IdleSince = max(1, tick)
		case tick-rs.IdleSince >= p.toTicks(removedPeriod):
			if err := p.forget(identity, slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropRemoved gives back the removed servers that nobody refers to, however long
// they have waited.
func (p *Plane) dropRemoved() error {
	for identity, slot := range p.removed {
		if isBusy(&p.view.servers.elements[slot]) {
			continue
		}
		if err := p.forget(identity, slot); err != nil {
			return err
		}
	}
	return nil
}

// forget gives the slot of a removed server back.
func (p *Plane) forget(identity serverIdentity, slot uint32) error {
	if err := p.parties.deleteServer(slot, identity.server.Address); err != nil {
		return err
	}
	delete(p.removed, identity)
	delete(p.problems, slot)
	p.setServerState(slot, directorServerStateSERVER_FREE)
	p.throwAway(func() { p.free.servers = append(p.free.servers, slot) })
	return nil
}

// isBusy reports whether connections or templates refer to a server.
func isBusy(rs *directorRealServer) bool {
	return atomic.LoadUint32(&rs.Active) != 0 || atomic.LoadUint32(&rs.Inactive) != 0 ||
		atomic.LoadUint32(&rs.Persistent) != 0
}
