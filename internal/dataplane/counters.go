package dataplane

import (
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A real server's slot counts on and on; what is shown is that plus a carry,
// modulo 2^64. Zeroing, the reuse of a slot and the leaving of a server change
// carries only, so no packet is ever counted twice or lost.

// rawCounters returns what a slot of real_servers counted, on all CPUs.
func (p *Plane) rawCounters(slot uint32) (lvs.Counters, error) {
	var perCPU []directorCounters
	if err := p.maps.ServerCounters.Lookup(slot, &perCPU); err != nil {
		return lvs.Counters{}, fmt.Errorf("read the counters of slot %d: %w", slot, err)
	}
	return sumCounters(perCPU), nil
}

func sumCounters(perCPU []directorCounters) (sum lvs.Counters) {
	for _, c := range perCPU {
		sum = sum.Add(fromCounters(c))
	}
	return sum
}

func (p *Plane) serverCarry(slot uint32) (lvs.Counters, error) {
	var c directorCounters
	err := p.maps.ServerCarry.Lookup(slot, &c)
	return fromCounters(c), err
}

func (p *Plane) setServerCarry(slot uint32, c lvs.Counters) error {
	return p.maps.ServerCarry.Put(slot, toCounters(c))
}

// editionCarry is the carry of a service whose edition that is.
func (p *Plane) editionCarry(edition uint32) (lvs.Counters, error) {
	var c directorCounters
	err := p.maps.EditionCarry.Lookup(edition, &c)
	return fromCounters(c), err
}

func (p *Plane) setEditionCarry(edition uint32, c lvs.Counters) error {
	return p.maps.EditionCarry.Put(edition, toCounters(c))
}
