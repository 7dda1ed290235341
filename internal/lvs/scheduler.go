package lvs

import "slices"

// A Scheduler is the name of a scheduling algorithm, as ipvsadm -s takes it.
type Scheduler string

// The schedulers of the kernel's IPVS.
const (
	RoundRobin                            Scheduler = "rr"
	WeightedRoundRobin                    Scheduler = "wrr"
	LeastConnection                       Scheduler = "lc"
	WeightedLeastConnection               Scheduler = "wlc"
	LocalityBasedLeastConnection          Scheduler = "lblc"
	LocalityBasedLeastConnectionReplicate Scheduler = "lblcr"
	DestinationHashing                    Scheduler = "dh"
	SourceHashing                         Scheduler = "sh"
	ShortestExpectedDelay                 Scheduler = "sed"
	NeverQueue                            Scheduler = "nq"
	WeightedFailover                      Scheduler = "fo"
	WeightedOverflow                      Scheduler = "ovf"
	MaglevHashing                         Scheduler = "mh"
	PowerOfTwo                            Scheduler = "twos"
)

// DefaultScheduler is what ipvsadm takes without -s.
const DefaultScheduler = WeightedLeastConnection

// Schedulers lists the schedulers of the kernel's IPVS, in the order of
// ipvsadm's help.
func Schedulers() []Scheduler {
	return []Scheduler{
		RoundRobin, WeightedRoundRobin, LeastConnection, WeightedLeastConnection,
		LocalityBasedLeastConnection, LocalityBasedLeastConnectionReplicate,
		DestinationHashing, SourceHashing, ShortestExpectedDelay, NeverQueue,
		WeightedFailover, WeightedOverflow, MaglevHashing, PowerOfTwo,
	}
}

// Known reports whether the kernel's IPVS has a scheduler of that name.
func (s Scheduler) Known() bool { return slices.Contains(Schedulers(), s) }

// SchedulerFlags are the three flag bits that a scheduler may read.
type SchedulerFlags uint8

// The flags, and what sh and mh call them.
const (
	Flag1 SchedulerFlags = 1 << iota
	Flag2
	Flag3

	SHFallback = Flag1
	SHPort     = Flag2
	MHFallback = Flag1
	MHPort     = Flag2
	// MHStable makes mh the same for any order in which the servers were added.
	// It is not in the kernel's IPVS.
	MHStable = Flag3
)
