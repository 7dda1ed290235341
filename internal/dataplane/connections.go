package dataplane

import (
	"iter"
	"net/netip"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// SweepResult is what a sweep found.
type SweepResult struct {
	Expired int // entries that it ended
	Used    int // entries in use
}

// Sweep ends the connections whose time is over, gives their counts back, and
// lets go of what waits for a grace period. It also gives up what the modes of
// defence ask for, and works out what they come to until the next one. It goes through the table in slices
// of about a millisecond each; changes go on meanwhile.
func (p *Plane) Sweep() (SweepResult, error) {
	result, err := p.sweepTable(p.endEarly())
	if err != nil {
		return result, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = result.Used
	p.defend()
	if err := p.expireCaches(); err != nil {
		return result, err
	}
	p.collectRemoved(removedPeriod)
	if err := p.endSlowStarts(); err != nil {
		return result, err
	}
	if len(p.limbo) > 0 || len(p.flipped) > 0 {
		return result, p.settle()
	}
	return result, nil
}

// sweepTable sweeps the whole table; what it is given says what ends early.
func (p *Plane) sweepTable(sweep directorSweepRange) (SweepResult, error) {
	var result SweepResult
	groups := uint32(len(p.view.connections.elements))
	for first := uint32(0); first < groups; first += uint32(directorLimitSWEEP_GROUPS) {
		sweep.First = first
		found, err := p.sweepFrom(sweep)
		if err != nil {
			return result, err
		}
		result.Expired += int(found >> 16)
		result.Used += int(found & 0xffff)
	}
	return result, nil
}

// Connections returns the entries of the connection table, in its order. The
// table lives on meanwhile: an entry that comes or goes during the walk may or
// may not be there, but none is ever told half.
func (p *Plane) Connections() iter.Seq[lvs.Connection] {
	return func(yield func(lvs.Connection) bool) {
		now, err := p.now()
		if err != nil {
			return
		}
		for g := range p.view.connections.elements {
			group := &p.view.connections.elements[g]
			for s := range group.Slots {
				entry, ok := readEntry(&group.Slots[s], now)
				if ok && !yield(p.connection(&entry, now)) {
					return
				}
			}
		}
	}
}

// readEntry copies an entry, if it is live and stayed the same meanwhile.
func readEntry(slot *directorConnection, now uint32) (directorConnection, bool) {
	control := atomic.LoadUint32((*uint32)(&slot.Control))
	if directorControl(control)&directorControlCONTROL_STATUS != directorControlCONTROL_LIVE {
		return directorConnection{}, false
	}
	entry := *slot
	const same = directorControlCONTROL_STATUS | directorControlCONTROL_GENERATION
	again := atomic.LoadUint32((*uint32)(&slot.Control))
	if directorControl(control^again)&same != 0 || int32(entry.Expires-now) <= 0 {
		return directorConnection{}, false
	}
	return entry, true
}

func (p *Plane) connection(entry *directorConnection, now uint32) lvs.Connection {
	rs := &p.view.servers.elements[entry.Server]
	return lvs.Connection{
		Protocol: lvs.Protocol(entry.Protocol),
		Client:   netip.AddrPortFrom(fromAddress(entry.Caddr), fromPort(entry.Cport)),
		Virtual:  netip.AddrPortFrom(fromAddress(entry.Vaddr), fromPort(entry.Vport)),
		Server:   netip.AddrPortFrom(fromAddress(rs.Raddr), fromPort(rs.Rport)),
		State:    lvs.ConnectionState(entry.State),
		Expires:  p.fromTicks(entry.Expires - now),
		Packets:  entry.Packets,
		Bytes:    entry.Bytes,
	}
}
