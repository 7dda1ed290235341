package reconcile

import (
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Merge returns the state that a configuration leads to: base is what the last one
// asked for, have what there is now, want what the new one asks for. Where the two
// configurations differ the new one counts; where they do not, have does, so that what
// was added, edited or deleted by hand since then stays as it is. No state may have a
// key twice. The order of services has no meaning.
func Merge(base, have, want lvs.State) lvs.State {
	state := lvs.State{
		Sysctls: mergeSettings(base.Sysctls, have.Sysctls, want.Sysctls),
		Peers:   mergeList(base.Peers, have.Peers, want.Peers, itself[netip.Addr], keepKey),
		Marks:   mergeList(base.Marks, have.Marks, want.Marks, itself[lvs.MarkRule], keepKey),
	}
	state.LocalAddresses = mergeList(base.LocalAddresses, have.LocalAddresses, want.LocalAddresses,
		func(l lvs.LocalAddress) netip.Prefix { return l.Prefix }, func(b, h, w lvs.LocalAddress, there presence) (lvs.LocalAddress, bool) {
			same := b == w
			if there.base && there.have {
				w.Ports = pick(b.Ports, h.Ports, w.Ports)
			}
			return w, same
		})
	state.Services = mergeList(base.Services, have.Services, want.Services,
		func(s lvs.ServiceState) lvs.ServiceKey { return s.ServiceKey }, mergeService)
	return state
}

func itself[K any](k K) K { return k }

// A merger merges what has the same key in all three; same reports whether the
// configurations ask for the same. It is called with the zero value where there is
// none; there says where there is one.
type merger[V any] func(base, have, want V, there presence) (merged V, same bool)

type presence struct{ base, have bool }

// keepKey merges what is nothing but its key.
func keepKey[K any](_, _, want K, there presence) (K, bool) { return want, there.base }

// mergeList merges lists whose items have keys. Those of want stand in its order; one
// that was added by hand stands before what it stands before in have.
func mergeList[K comparable, V any](base, have, want []V, key func(V) K, merge merger[V]) []V {
	old, now := index(base, key), index(have, key)
	wanted := index(want, key)
	var merged []V
	for _, w := range want {
		b, inBase := old[key(w)]
		h, inHave := now[key(w)]
		m, same := merge(b, h, w, presence{inBase, inHave})
		if inBase && same && !inHave {
			continue // deleted by hand
		}
		merged = append(merged, m)
	}
	place := map[K]int{}
	for i, m := range merged {
		place[key(m)] = i
	}
	// What was added by hand, by the item of merged that it comes before.
	before := make([][]V, len(merged)+1)
	at, added := len(merged), false
	for _, h := range slices.Backward(have) {
		_, inWant := wanted[key(h)]
		_, inBase := old[key(h)]
		if i, ok := place[key(h)]; ok {
			at = i
		} else if !inWant && !inBase {
			before[at] = append(before[at], h)
			added = true
		}
	}
	if !added {
		return merged
	}
	var all []V
	for i, extra := range before {
		slices.Reverse(extra)
		all = append(all, extra...)
		if i < len(merged) {
			all = append(all, merged[i])
		}
	}
	return all
}

func index[K comparable, V any](list []V, key func(V) K) map[K]V {
	byKey := make(map[K]V, len(list))
	for _, v := range list {
		byKey[key(v)] = v
	}
	return byKey
}

// pick returns want where that differs from base, else have.
func pick[V comparable](base, have, want V) V {
	if base == want {
		return have
	}
	return want
}

func mergeService(base, have, want lvs.ServiceState, there presence) (lvs.ServiceState, bool) {
	same := sameService(base, want)
	if !there.base || !there.have || sameService(base, have) {
		return want, same // nothing was changed by hand
	}
	merged := want
	type scheduling struct {
		scheduler lvs.Scheduler
		flags     lvs.SchedulerFlags
	}
	s := pick(scheduling{base.Scheduler, base.SchedulerFlags}, scheduling{have.Scheduler, have.SchedulerFlags},
		scheduling{want.Scheduler, want.SchedulerFlags})
	merged.Scheduler, merged.SchedulerFlags = s.scheduler, s.flags
	p := persistenceOf(have.Service)
	if persistenceOf(base.Service) != persistenceOf(want.Service) {
		p = persistenceOf(want.Service)
	}
	merged.PersistenceTimeout, merged.PersistenceMask, merged.PersistenceEngine = p.PersistenceTimeout, p.PersistenceMask, p.PersistenceEngine
	merged.OnePacket = pick(base.OnePacket, have.OnePacket, want.OnePacket)
	merged.Sysctls = mergeSettings(base.Sysctls, have.Sysctls, want.Sysctls)
	merged.Servers = mergeList(base.Servers, have.Servers, want.Servers,
		func(r lvs.RealServer) lvs.RealServerKey { return r.RealServerKey }, mergeServer)
	return merged, same
}

// sameService reports whether two services are the same, with all that is in them.
func sameService(a, b lvs.ServiceState) bool {
	return a.Service == b.Service && slices.Equal(a.Sysctls, b.Sysctls) && slices.Equal(a.Servers, b.Servers)
}

// persistenceOf returns a service's persistence alone.
func persistenceOf(s lvs.Service) lvs.Service {
	return lvs.Service{
		PersistenceTimeout: s.PersistenceTimeout, PersistenceMask: s.PersistenceMask, PersistenceEngine: s.PersistenceEngine,
	}
}

func mergeServer(base, have, want lvs.RealServer, there presence) (lvs.RealServer, bool) {
	if !there.base || !there.have {
		return want, base == want
	}
	merged := want
	type method struct {
		method lvs.ForwardingMethod
		tunnel lvs.Tunnel
		toa    bool
	}
	m := pick(method{base.Method, base.Tunnel, base.TOA}, method{have.Method, have.Tunnel, have.TOA}, method{want.Method, want.Tunnel, want.TOA})
	merged.Method, merged.Tunnel, merged.TOA = m.method, m.tunnel, m.toa
	merged.Weight = pick(base.Weight, have.Weight, want.Weight)
	type thresholds struct{ upper, lower uint32 }
	t := pick(thresholds{base.UpperThreshold, base.LowerThreshold}, thresholds{have.UpperThreshold, have.LowerThreshold},
		thresholds{want.UpperThreshold, want.LowerThreshold})
	merged.UpperThreshold, merged.LowerThreshold = t.upper, t.lower
	return merged, base == want
}

func mergeSettings(base, have, want []lvs.SysctlSetting) []lvs.SysctlSetting {
	name := func(s lvs.SysctlSetting) string { return s.Name }
	return mergeList(base, have, want, name, func(b, h, w lvs.SysctlSetting, there presence) (lvs.SysctlSetting, bool) {
		same := b == w
		if there.base && there.have {
			w.Value = pick(b.Value, h.Value, w.Value)
		}
		return w, same
	})
}
