package scheduler

import (
	"net/netip"
	"slices"
)

// A CacheTimer takes out of the cache of lblc or lblcr what was not used for
// long, as the kernel's timer does (ip_vs_lblc.c, ip_vs_lblc_check_expire). Its
// zero value is not ready; see NewCacheTimer. Times are ticks of any length and
// may wrap.
type CacheTimer struct {
	minute uint32 // in ticks
	due    uint32
	round  int // counts up to the next full check
	rover  uint32
}

const (
	cacheBits       = 10 // CONFIG_IP_VS_LBLC_TAB_BITS
	cacheBuckets    = 1 << cacheBits
	cacheMaxEntries = 16 * cacheBuckets // above that, the timer looks earlier
	cacheFullRound  = 30                // COUNT_FOR_FULL_EXPIRATION
	cacheIdle       = 6                 // minutes: what is taken out of a cache that is too large
)

// NewCacheTimer returns the timer of a cache that is made now; minute is the
// ticks of a minute.
func NewCacheTimer(now, minute uint32) CacheTimer {
	return CacheTimer{minute: minute, due: now + minute, round: 1}
}

// Due reports whether the timer has to run.
func (t *CacheTimer) Due(now uint32) bool { return int32(now-t.due) >= 0 }

// Run does what is due up to now. It takes addresses out of lastUsed, which says
// when each was used last, and returns them: those that were not used for
// expiration, seen every half an hour; and out of a cache of more than 16384,
// some of those that were not used for six minutes, seen every minute.
func (t *CacheTimer) Run(now, expiration uint32, lastUsed map[netip.Addr]uint32) []netip.Addr {
	var expired []netip.Addr
	for ; t.Due(now); t.due += t.minute {
		switch {
		case t.round%cacheFullRound == 0:
			t.round = 1
			expired = append(expired, t.expire(lastUsed, expiration, len(lastUsed))...)
		case len(lastUsed) <= cacheMaxEntries:
			t.round++
		default:
			goal := min((len(lastUsed)-cacheMaxEntries)*4/3, cacheMaxEntries/2)
			expired = append(expired, t.expire(lastUsed, cacheIdle*t.minute, goal)...)
		}
	}
	return expired
}

// expire takes out what was not used for that long, bucket after bucket, until
// the goal is reached.
func (t *CacheTimer) expire(lastUsed map[netip.Addr]uint32, idle uint32, goal int) []netip.Addr {
	buckets := map[uint32][]netip.Addr{}
	for addr, used := range lastUsed {
		if int32(t.due-used-idle) >= 0 {
			bucket := cacheBucket(addr)
			buckets[bucket] = append(buckets[bucket], addr)
		}
	}
	var expired []netip.Addr
	for range cacheBuckets {
		t.rover = (t.rover + 1) % cacheBuckets
		expired = append(expired, buckets[t.rover]...)
		if len(expired) >= goal {
			break
		}
	}
	for _, addr := range expired {
		delete(lastUsed, addr)
	}
	slices.SortFunc(expired, netip.Addr.Compare)
	return expired
}

// cacheBucket is where the kernel keeps an address (ip_vs_lblc_hashkey).
func cacheBucket(addr netip.Addr) uint32 {
	const goldenRatio = 0x61c88647 // of hash_32, linux/hash.h
	return foldAddress(addr) * goldenRatio >> (32 - cacheBits)
}
