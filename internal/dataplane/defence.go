package dataplane

import "sync/atomic"

// The modes of defence (drop_entry, drop_packet, secure_tcp), as IPVS has them
// (ip_vs_ctl.c, update_defense_level): 0 is off, 3 is on, and 1 turns to 2, which
// is on, while memory is short. A connection table has all its memory from the
// start, so what runs short is its room.
const (
	defenceReady  = 1
	defenceActive = 2
	defenceAlways = 3
)

const (
	connectionsPerPage = 4096 / 64
	// shortShare is the largest share of the table that amemthresh can ask to
	// be free: the default is meant for a large one.
	shortShare = 16
)

// A shortage is how much room is left, in pages.
type shortage struct{ threshold, available int }

func (s shortage) holds() bool { return s.available < s.threshold }

func (p *Plane) shortage() shortage {
	threshold := int(p.settings().Policy.Sysctls[sysctlSlots["amemthresh"]])
	return shortage{
		threshold: min(threshold, p.TableSize()/connectionsPerPage/shortShare),
		available: (p.TableSize() - p.used) / connectionsPerPage,
	}
}

// defend works out what the modes come to.
func (p *Plane) defend() {
	short := p.shortage()
	p.settings().Policy.defend(short)
	p.defended = p.settings().Policy.DropEntries != 0
	for _, svc := range p.services {
		if !p.hasPolicy(svc) {
			continue
		}
		policy := p.policyOf(svc)
		next := *policy
		p.inherit(&next)
		p.storePolicy(policy, &next)
		policy.defend(short)
		p.defended = p.defended || policy.DropEntries != 0
	}
}

func (policy *directorPolicy) defend(short shortage) {
	storeBool(&policy.Secure, policy.turnMode("secure_tcp", short))
	storeBool(&policy.DropEntries, policy.turnMode("drop_entry", short))
	rate := int32(0)
	if policy.turnMode("drop_packet", short) {
		rate = policy.Sysctls[sysctlSlots["am_droprate"]]
		if policy.Sysctls[sysctlSlots["drop_packet"]] == defenceActive {
			rate = int32(short.threshold / (short.threshold - short.available))
			atomic.StoreInt32(&policy.DropCounter, rate)
		}
	}
	atomic.StoreInt32(&policy.DropRate, rate)
}

// turnMode turns a mode to what the shortage makes of it, and reports whether it
// is on.
func (policy *directorPolicy) turnMode(name string, short shortage) bool {
	mode := &policy.Sysctls[sysctlSlots[name]]
	switch *mode {
	case defenceReady, defenceActive:
		if !short.holds() {
			atomic.StoreInt32(mode, defenceReady)
			return false
		}
		atomic.StoreInt32(mode, defenceActive)
		return true
	case defenceAlways:
		return true
	}
	return false
}

func storeBool(to *uint32, is bool) {
	value := uint32(0)
	if is {
		value = 1
	}
	atomic.StoreUint32(to, value)
}
