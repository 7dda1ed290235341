package dataplane

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

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

const (
	// manyServers are read all at once, with those slots that are not used: a system call
	// for each costs more.
	manyServers = 128
	// batchSlots are read by one system call.
	batchSlots = 1024
)

// A counterReader returns what a slot of real_servers counted, and its carry.
type counterReader func(slot uint32) (raw, carry lvs.Counters, err error)

// readCounters returns a reader of the counters of real servers.
func (p *Plane) readCounters() (counterReader, error) {
	servers := 0
	for _, svc := range p.services {
		servers += len(svc.servers)
	}
	if servers < manyServers {
		return p.readOne, nil
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	raw, err := readAll(p.maps.ServerCounters, cpus)
	if err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	carries, err := readAll(p.maps.ServerCarry, 1)
	if err != nil {
		return nil, fmt.Errorf("read the carries of counters: %w", err)
	}
	return func(slot uint32) (lvs.Counters, lvs.Counters, error) { return raw[slot], carries[slot], nil }, nil
}

func (p *Plane) readOne(slot uint32) (raw, carry lvs.Counters, err error) {
	if raw, err = p.rawCounters(slot); err != nil {
		return raw, carry, err
	}
	carry, err = p.serverCarry(slot)
	return raw, carry, err
}

// readAll returns the counters of all slots of a map, each the sum of so many values.
func readAll(m *ebpf.Map, values int) ([]lvs.Counters, error) {
	all := make([]lvs.Counters, m.MaxEntries())
	keys, counters := make([]uint32, batchSlots), make([]directorCounters, batchSlots*values)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, counters, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i, slot := range keys[:n] {
			all[slot] = sumCounters(counters[i*values : (i+1)*values])
		}
		if err != nil { // there are no more
			return all, nil
		}
	}
}
