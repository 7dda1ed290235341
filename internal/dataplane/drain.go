package dataplane

import (
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Drain says what a real server is spared beside what its weight spares it.
type Drain uint32

// The drains.
const (
	// NotDrained: it is as any other.
	NotDrained = Drain(directorServerDrainDRAIN_NONE)
	// DrainTemplates: while its weight is 0, templates send it no connections.
	DrainTemplates = Drain(directorServerDrainDRAIN_TEMPLATES)
	// DrainExpire: that, and sweeps end its connections and templates.
	DrainExpire = Drain(directorServerDrainDRAIN_EXPIRE)
)

// SetDrain changes what a real server is spared; it lasts until the server is deleted.
// It wraps lvs.ErrNoService and lvs.ErrNoServer.
func (p *Plane) SetDrain(key lvs.ServiceKey, server lvs.RealServerKey, drain Drain) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _, slot, err := p.findListed(key, server)
	if err != nil {
		return err
	}
	p.setDrain(slot, drain)
	return nil
}

func (p *Plane) setDrain(slot uint32, drain Drain) {
	rs := &p.view.servers.elements[slot]
	if Drain(rs.Drain) == DrainExpire {
		p.expiring--
	}
	if drain == DrainExpire {
		p.expiring++
	}
	atomic.StoreUint32((*uint32)(&rs.Drain), uint32(drain))
}

// readDrains finds the real servers whose connections the sweeps end.
func (p *Plane) readDrains() {
	for slot := range p.view.servers.elements {
		rs := &p.view.servers.elements[slot]
		switch {
		case rs.State != directorServerStateSERVER_LISTED:
			rs.Drain = directorServerDrainDRAIN_NONE
		case Drain(rs.Drain) == DrainExpire:
			p.expiring++
		}
	}
}
