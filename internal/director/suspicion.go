package director

import (
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// leastSigns is how many signs there have to be: more than one client alone brings
	// about, whose own way may be broken.
	leastSigns = 3
	// timesTheBest is how many times as often as at the best of its fellows signs have to
	// come: what a flood brings comes to all of them.
	timesTheBest = 4
)

// Signs are what clients' packets of late say against a real server. What is older
// counts half for each interval.
type signs struct {
	connections, retries, resets float64
	last                         lvs.RealServerStatus
}

// interval takes the real server as it is at the end of an interval.
func (s *signs) interval(now lvs.RealServerStatus) {
	s.connections = s.connections/2 + float64(since(s.last.Counters.Connections, now.Counters.Connections))
	s.retries = s.retries/2 + float64(since(s.last.Retries, now.Retries))
	s.resets = s.resets/2 + float64(since(s.last.Resets, now.Resets))
	s.last = now
}

// since returns what a counter has counted, which goes round and may have begun anew.
func since[T uint32 | uint64](last, now T) T {
	if came := now - last; came <= ^T(0)/2 {
		return came
	}
	return now
}

func (s *signs) count() float64 { return s.retries + s.resets }

// share returns how many signs there are for each connection.
func (s *signs) share() float64 { return s.count() / max(s.connections, 1) }

func (s *signs) String() string {
	return fmt.Sprintf("of late %.0f first packets came again unanswered, %.0f connections were refused or broken off; %.0f were new",
		s.retries, s.resets, s.connections)
}

// A suspect is a real server that clients seem to get no answers from.
type suspect struct {
	serverID
	reason string
}

// Suspicions are the signs of all real servers. Those that do worse than their fellows of
// the same service are suspects. It is safe for one goroutine.
type suspicions map[serverID]*signs

// interval takes the services as they are at the end of an interval, and returns who is
// a suspect. Of a real server that it did not know, it counts from now on.
func (s suspicions) interval(services []lvs.ServiceStatus) (next suspicions, found []suspect) {
	next = make(suspicions, len(s))
	for i := range services {
		key := services[i].ServiceKey
		var best bests
		for _, server := range services[i].Servers {
			id := serverID{key, server.RealServerKey}
			known := s[id]
			if known == nil {
				known = &signs{last: server}
			}
			known.interval(server)
			next[id] = known
			best.add(known)
		}
		for _, server := range services[i].Servers {
			id := serverID{key, server.RealServerKey}
			if known := next[id]; known.count() >= leastSigns && !best.excuses(known) {
				found = append(found, suspect{id, known.String()})
			}
		}
	}
	return next, found
}

// Bests are the two real servers of a service with the fewest signs for a connection, of
// those that have connections.
type bests [2]*signs

func (b *bests) add(s *signs) {
	switch {
	case s.connections < 1:
	case b[0] == nil || s.share() < b[0].share():
		b[0], b[1] = s, b[0]
	case b[1] == nil || s.share() < b[1].share():
		b[1] = s
	}
}

// excuses reports whether another real server does about as badly.
func (b *bests) excuses(s *signs) bool {
	fellow := b[0]
	if fellow == s {
		fellow = b[1]
	}
	return fellow != nil && s.share() <= timesTheBest*fellow.share()
}
