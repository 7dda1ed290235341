package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/scheduler"
)

// What lblc and lblcr remember lies in one map, for all services. Each service
// that has such a scheduler has a cache of its own in it, with a number that is
// never used again: a scheduler that is set anew remembers nothing.

// A cache is a service's share of the map; the zero value is none.
type cache struct {
	number uint32
	timer  scheduler.CacheTimer
}

func hasCache(name lvs.Scheduler) bool {
	return name == lvs.LocalityBasedLeastConnection || name == lvs.LocalityBasedLeastConnectionReplicate
}

// newCache returns an empty cache for a scheduler, if it has one.
func (p *Plane) newCache(name lvs.Scheduler) (cache, error) {
	if !hasCache(name) {
		return cache{}, nil
	}
	p.cacheNumber++
	return p.timedCache(p.cacheNumber)
}

// timedCache returns the cache of that number. Its timer begins now.
func (p *Plane) timedCache(number uint32) (cache, error) {
	now, err := p.now()
	if err != nil {
		return cache{}, err
	}
	return cache{number, scheduler.NewCacheTimer(now, p.toTicks(time.Minute))}, nil
}

// expireCaches takes out what was not used for long, and what is of no service
// any more.
func (p *Plane) expireCaches() error {
	now, err := p.now()
	if err != nil {
		return err
	}
	if !p.cachesLeft && !p.cacheDue(now) {
		return nil
	}
	caches, err := p.readCaches()
	if err != nil {
		return err
	}
	var gone []directorCacheKey
	for _, svc := range p.services {
		if svc.cache.number == 0 {
			continue
		}
		expired := svc.cache.timer.Run(now, p.cacheExpiration(svc.Scheduler), caches[svc.cache.number])
		gone = append(gone, cacheKeys(svc.cache.number, expired)...)
		delete(caches, svc.cache.number)
	}
	for number, lastUsed := range caches {
		for addr := range lastUsed {
			gone = append(gone, toCacheKey(number, addr))
		}
	}
	for _, key := range gone {
		if err := p.maps.Caches.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget who served %s: %w", fromAddress(key.Vaddr), err)
		}
	}
	p.cachesLeft = false
	return nil
}

func (p *Plane) cacheDue(now uint32) bool {
	for _, svc := range p.services {
		if svc.cache.number != 0 && svc.cache.timer.Due(now) {
			return true
		}
	}
	return false
}

// cacheExpiration is how long what is not used stays, in ticks.
func (p *Plane) cacheExpiration(name lvs.Scheduler) uint32 {
	sysctl := "lblcr_expiration"
	if name == lvs.LocalityBasedLeastConnection {
		sysctl = "lblc_expiration"
	}
	return p.toTicks(time.Duration(p.value(&p.settings().Policy, sysctl)) * time.Second)
}

// readCaches returns when each address was used last, by cache.
func (p *Plane) readCaches() (map[uint32]map[netip.Addr]uint32, error) {
	caches := map[uint32]map[netip.Addr]uint32{}
	err := p.eachCached(func(key directorCacheKey, entry *directorCacheEntry) {
		if caches[key.Cache] == nil {
			caches[key.Cache] = map[netip.Addr]uint32{}
		}
		caches[key.Cache][fromAddress(key.Vaddr)] = entry.LastUsed
	})
	return caches, err
}

func (p *Plane) eachCached(visit func(directorCacheKey, *directorCacheEntry)) error {
	var (
		key   directorCacheKey
		entry directorCacheEntry
	)
	entries := p.maps.Caches.Iterate()
	for entries.Next(&key, &entry) {
		visit(key, &entry)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read what lblc and lblcr remember: %w", err)
	}
	return nil
}

// cacheWord is how a cache names the server in a slot (schedule_cache.h).
func (p *Plane) cacheWord(slot uint32) uint32 {
	return p.view.servers.elements[slot].Incarnation<<16 | slot
}

// remembered returns the servers that a cache remembers, by their words: as in
// IPVS, those wait for their return as long as that.
func (p *Plane) remembered() (map[uint32]bool, error) {
	words := map[uint32]bool{}
	err := p.eachCached(func(_ directorCacheKey, entry *directorCacheEntry) {
		for _, word := range entry.Servers[:min(max(entry.Size, 1), uint32(len(entry.Servers)))] {
			words[word] = true
		}
	})
	return words, err
}

func cacheKeys(number uint32, addrs []netip.Addr) []directorCacheKey {
	keys := make([]directorCacheKey, len(addrs))
	for i, addr := range addrs {
		keys[i] = toCacheKey(number, addr)
	}
	return keys
}

func toCacheKey(number uint32, addr netip.Addr) directorCacheKey {
	return directorCacheKey{Vaddr: toAddress(addr), Cache: number}
}

// readCacheNumber finds the number of the last cache in taken-over maps.
func (p *Plane) readCacheNumber() error {
	for _, svc := range p.services {
		p.cacheNumber = max(p.cacheNumber, svc.cache.number)
	}
	p.cachesLeft = true
	return p.eachCached(func(key directorCacheKey, _ *directorCacheEntry) {
		p.cacheNumber = max(p.cacheNumber, key.Cache)
	})
}
