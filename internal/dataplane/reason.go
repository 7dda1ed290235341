package dataplane

import (
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Why a scheduler chose whom it chose, in words.

// load is the figure that a scheduler compares: load divided by divisor; both
// are 0 if it compares none.
func load(name lvs.Scheduler, c lvs.Candidate) (load uint64, divisor uint32) {
	connections := uint64(c.Active)<<8 + uint64(c.Inactive)
	switch name {
	case lvs.LeastConnection:
		return connections, 1
	case lvs.WeightedLeastConnection, lvs.LocalityBasedLeastConnection,
		lvs.LocalityBasedLeastConnectionReplicate, lvs.PowerOfTwo:
		return connections, c.Weight
	case lvs.ShortestExpectedDelay, lvs.NeverQueue:
		return uint64(c.Active) + 1, c.Weight
	}
	return 0, 0
}

// formulas name those figures.
var formulas = map[lvs.Scheduler]string{
	lvs.LeastConnection:         "active*256+inactive",
	lvs.WeightedLeastConnection: "(active*256+inactive)/weight",
	lvs.ShortestExpectedDelay:   "(active+1)/weight",
	lvs.NeverQueue:              "(active+1)/weight",

	lvs.LocalityBasedLeastConnection:          "(active*256+inactive)/weight",
	lvs.LocalityBasedLeastConnectionReplicate: "(active*256+inactive)/weight",
}

func whyNobody(s *stage, candidates []lvs.Candidate) string {
	if len(candidates) == 0 {
		return "the service has no real server"
	}
	if countUsable(candidates) == 0 {
		return "no real server is usable"
	}
	switch s.service.Scheduler {
	case lvs.DestinationHashing, lvs.SourceHashing, lvs.MaglevHashing:
		return fmt.Sprintf("the real server that the hash of %s picks is not usable", hashed(s))
	case lvs.WeightedOverflow:
		return "every usable real server has more active connections than its weight"
	}
	return "the scheduler chose none"
}

// hashed names what dh, sh and mh look at.
func hashed(s *stage) string {
	switch {
	case s.service.Scheduler == lvs.DestinationHashing:
		return "the virtual address"
	case s.edition.Flags&directorSchedulerFlagFLAG_PORT != 0:
		return "the client's address and port"
	}
	return "the client's address"
}

func countUsable(candidates []lvs.Candidate) int {
	usable := 0
	for _, c := range candidates {
		if c.Usable() {
			usable++
		}
	}
	return usable
}

// whyScheduled says why the candidate at that position was chosen.
func whyScheduled(s *stage, o *outcome, candidates []lvs.Candidate, chosen int) string {
	if chosen < 0 {
		return ""
	}
	c := candidates[chosen]
	switch {
	case countUsable(candidates) <= 1:
		return fmt.Sprintf("%s is the only usable real server", c.RealServerKey)
	case s.service.Scheduler == lvs.RoundRobin:
		return whyRR(s, c.RealServerKey)
	case s.service.Scheduler == lvs.WeightedRoundRobin:
		return whyWRR(s, o, c.RealServerKey, chosen)
	case s.service.Scheduler == lvs.NeverQueue && c.Active == 0:
		return fmt.Sprintf("%s is the first idle real server of the list", c.RealServerKey)
	}
	switch s.service.Scheduler {
	case lvs.WeightedFailover:
		return fmt.Sprintf("%s has the highest weight, %d, or is the first in the list of those that have it", c.RealServerKey, c.Weight)
	case lvs.WeightedOverflow:
		return fmt.Sprintf("%s has the highest weight, %d, of those with no more active connections than that", c.RealServerKey, c.Weight)
	case lvs.PowerOfTwo:
		why := fmt.Sprintf("%s has the lower (active*256+inactive)/weight of two that were drawn by lot", c.RealServerKey)
		if !s.passed {
			why += "; the packet itself may draw others"
		}
		return why
	case lvs.DestinationHashing, lvs.SourceHashing, lvs.MaglevHashing:
		return fmt.Sprintf("the hash of %s picks %s", hashed(s), c.RealServerKey)
	case lvs.LocalityBasedLeastConnection, lvs.LocalityBasedLeastConnectionReplicate:
		if !isLeast(candidates, chosen) {
			return fmt.Sprintf("%s served the virtual address before", c.RealServerKey)
		}
	}
	why := whyLeast(s.service.Scheduler, candidates, chosen)
	if s.service.Scheduler == lvs.NeverQueue {
		return "no real server is idle: " + why
	}
	return why
}

func whyRR(s *stage, chosen lvs.RealServerKey) string {
	position := uint32(s.edition.Cursor)
	if position >= s.edition.Servers {
		position = 0
	}
	return fmt.Sprintf("the walk goes on at server %d of %d: %s is the first usable one from there",
		position+1, s.edition.Servers, chosen)
}

func whyWRR(s *stage, o *outcome, chosen lvs.RealServerKey, at int) string {
	position, weight := uint32(s.edition.Cursor), uint32(s.edition.Cursor>>32)
	reached := uint32(o.cursor >> 32)
	if reached == weight && at >= int(position) {
		return fmt.Sprintf("the walk goes on at server %d of %d with current weight %d: %s is the first usable one from there that has it",
			position+1, s.edition.Servers, weight, chosen)
	}
	return fmt.Sprintf("nobody is left at current weight %d: of the next round, with current weight %d, %s is the first usable one that has it",
		weight, reached, chosen)
}

// whyLeast names the least figure and the next one.
func whyLeast(name lvs.Scheduler, candidates []lvs.Candidate, chosen int) string {
	second := -1
	for i, c := range candidates {
		if i != chosen && c.Usable() && (second < 0 || less(c, candidates[second])) {
			second = i
		}
	}
	won, lost := candidates[chosen], candidates[second]
	if less(won, lost) {
		return fmt.Sprintf("least %s: %s %s beats %s %s", formulas[name],
			won.RealServerKey, figure(name, won), lost.RealServerKey, figure(name, lost))
	}
	return fmt.Sprintf("least %s: %s %s ties with %s %s; the first of the list, the newest, wins", formulas[name],
		won.RealServerKey, figure(name, won), lost.RealServerKey, figure(name, lost))
}

// isLeast reports whether nobody who is usable has less.
func isLeast(candidates []lvs.Candidate, chosen int) bool {
	for _, c := range candidates {
		if c.Usable() && less(c, candidates[chosen]) {
			return false
		}
	}
	return true
}

// less compares crosswise, as schedule.h does.
func less(a, b lvs.Candidate) bool {
	return a.Load*uint64(b.Divisor) < b.Load*uint64(a.Divisor)
}

func figure(name lvs.Scheduler, c lvs.Candidate) string {
	if name == lvs.LeastConnection {
		return fmt.Sprint(c.Load)
	}
	return fmt.Sprintf("%d/%d", c.Load, c.Divisor)
}
