package dataplane

import (
	"sync/atomic"
	"time"
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
	now, err := p.now()
	if err != nil {
		return err
	}
	atomic.StoreUint32(&rs.SlowStartSince, now)
	atomic.StoreUint32(&rs.SlowStartTicks, p.toTicks(time.Duration(seconds)*time.Second))
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
