package dataplane

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// sweepFrom runs the sweeper once, with defended of each DEFENCE_SHARE groups
// looked through for entries to give up. The lower half of what it returns counts
// entries in use, the upper half those that it ended.
func (p *Plane) sweepFrom(first, defended uint32) (uint32, error) {
	found, err := p.progs.Sweep.Run(&ebpf.RunOptions{Context: directorSweepRange{First: first, Defended: defended}})
	if err != nil {
		return 0, fmt.Errorf("sweep the connection table from group %d: %w", first, err)
	}
	return found, nil
}
