package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A real server that is added, or whose weight was 0, starts slowly if its
// service's sysctl slow_start says so: the data plane passes it over for a part
// of the connections that its scheduler chooses it for, less and less
// (schedule.h). Weights stay what they were set to.

// startSlowly opens the window of a server that gets this weight; without a
// weight or a slow start it has none.
func (p *Plane) startSlowly(svc *service, slot, weight uint32) error {
	rs := &p.view.servers.elements[slot]
	seconds := p.value(p.policyOf(svc), "slow_start")
	if seconds == 0 || weight == 0 {
		atomic.StoreUint32(&rs.SlowStartTicks, 0)
		return nil
	}
	return p.openWindow(slot, time.Duration(seconds)*time.Second)
}

// StartSlowly opens the window of a real server that has a weight, for as long as it
// is told, if its service's slow_start asks for none. It wraps lvs.ErrNoService and
// lvs.ErrNoServer.
func (p *Plane) StartSlowly(key lvs.ServiceKey, server lvs.RealServerKey, window time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, _, slot, err := p.findListed(key, server)
	if err != nil {
		return err
	}
	rs := &p.view.servers.elements[slot]
	if rs.Weight == 0 || p.value(p.policyOf(svc), "slow_start") != 0 {
		return nil
	}
	return p.openWindow(slot, window)
}

// openWindow begins a slow start now.
func (p *Plane) openWindow(slot uint32, window time.Duration) error {
	now, err := p.now()
	if err != nil {
		return err
	}
	rs := &p.view.servers.elements[slot]
	atomic.StoreUint32(&rs.SlowStartSince, now)
	atomic.StoreUint32(&rs.SlowStartTicks, p.toTicks(window))
	p.slowStarts[slot] = true
	return nil
}

// endSlowStarts closes the windows that are over: the clock comes round.
func (p *Plane) endSlowStarts() error {
	if len(p.slowStarts) == 0 {
		return nil
	}
	now, err := p.now()
	if err != nil {
		return err
	}
	for slot := range p.slowStarts {
		rs := &p.view.servers.elements[slot]
		if int32(now-rs.SlowStartSince) >= int32(rs.SlowStartTicks) {
			atomic.StoreUint32(&rs.SlowStartTicks, 0)
			delete(p.slowStarts, slot)
		}
	}
	return nil
}
