package dataplane

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// sweepFrom runs the sweeper once, for connections or for templates. The lower half
// of what it returns counts entries in use, the upper half those that it ended.
func (p *Plane) sweepFrom(sweep directorSweepRange) (uint32, error) {
	found, err := p.progs.Sweep.Run(&ebpf.RunOptions{Context: sweep})
	if err != nil {
		return 0, fmt.Errorf("sweep the connection table from group %d: %w", sweep.First, err)
	}
	return found, nil
}

// endEarly returns what the next sweep is to end before its time: nearly always
// nothing, which costs a sweep nothing.
func (p *Plane) endEarly() directorSweepRange {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sweep directorSweepRange
	if p.defended {
		sweep.Defended = 1
	}
	for _, slot := range p.removed {
		policy := p.policyAt(p.view.servers.elements[slot].Policy)
		if policy.Sysctls[explainSysctlSYSCTL_EXPIRE_NODEST_CONN] != 0 {
			sweep.Abandoned = 1
		}
	}
	if p.expiring > 0 {
		sweep.Abandoned = 1
	}
	return sweep
}
