package dataplane

import (
	"fmt"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Where services are found (bpf/service.h): at the place that the hash of the key
// tells or, if others are there, at one after it. A place at which nobody ever was
// ends the search. A service never moves: a packet that looks for it meanwhile
// would miss it.
const (
	servicePlaces = uint32(directorLimitSERVICE_PLACES)
	serviceProbes = uint32(directorLimitSERVICE_PROBES)
	serviceWent   = 0xffffffff // SERVICE_WENT
)

// homeOf is the place where the search for a key begins.
func (p *Plane) homeOf(key directorServiceKey) uint32 {
	const mix = 0x9e3779b97f4a7c15
	k := p.settings().HashKeys
	word := uint64(key.Protocol)<<32 | uint64(key.Vport)<<16
	hash := k[0]*k[1] + (key.Vaddr.High+k[2])*(key.Vaddr.Low+k[3]) + word*k[4]
	return uint32((hash ^ hash>>32) * mix >> (64 - uint32(directorLimitSERVICE_PLACES_SHIFT)))
}

// enterService makes a service be found whose slot is filled. It wraps
// lvs.ErrTableFull.
func (p *Plane) enterService(key directorServiceKey, index uint32) error {
	home := p.homeOf(key)
	for i := range serviceProbes {
		place := &p.view.places.elements[(home+i)%servicePlaces].Service
		if *place == 0 || *place == serviceWent {
			atomic.StoreUint32(place, index+1)
			return nil
		}
	}
	return fmt.Errorf("find a place for service %s: %w", fromServiceKey(key), lvs.ErrTableFull)
}

// leaveService makes a service be found no more. Places that no search has to go
// past any more are as if nobody had been there.
func (p *Plane) leaveService(key directorServiceKey, index uint32) {
	home := p.homeOf(key)
	for i := range serviceProbes {
		at := (home + i) % servicePlaces
		place := &p.view.places.elements[at].Service
		if *place != index+1 {
			continue
		}
		atomic.StoreUint32(place, serviceWent)
		for p.view.places.elements[(at+1)%servicePlaces].Service == 0 && *place == serviceWent {
			atomic.StoreUint32(place, 0)
			at = (at + servicePlaces - 1) % servicePlaces
			place = &p.view.places.elements[at].Service
		}
		return
	}
}

// foundServices are the indexes of the services that the data plane finds, as a
// search for their keys does. Places of others are given up.
func (p *Plane) foundServices() map[uint32]bool {
	found := map[uint32]bool{}
	for at := range p.view.places.elements {
		place := &p.view.places.elements[at].Service
		index := *place - 1
		if *place == 0 || *place == serviceWent {
			continue
		}
		if index >= uint32(directorLimitMAX_SERVICES) || p.view.services.elements[index].Used == 0 || found[index] {
			atomic.StoreUint32(place, serviceWent)
			continue
		}
		found[index] = true
	}
	return found
}
