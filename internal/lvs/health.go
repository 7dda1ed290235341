package lvs

import (
	"fmt"
	"net/netip"
	"time"
)

// A HealthState is what checks have found out about a real server.
type HealthState string

// The states of a real server's health.
const (
	// HealthUnchecked: it has no checks.
	HealthUnchecked HealthState = ""
	// HealthUnknown: no check has come to a verdict yet. The server is used, unless
	// it is to be down until its first success.
	HealthUnknown HealthState = "unknown"
	HealthUp      HealthState = "up"
	HealthDown    HealthState = "down"
)

// A HealthStatus is the health of a real server of a service.
type HealthStatus struct {
	State HealthState
	// Since is when it came to State.
	Since time.Time
	// Cause names why it is down, or why its last check failed although it is up yet:
	// one of the causes of package health. "" if nothing is wrong.
	Cause string
	// Detail is for a person to read: which check, and what it met.
	Detail string
	// Latency is how long its slowest check took last.
	Latency time.Duration
	// Suspicion is what clients' packets said against it when that last brought its
	// checks forward, and Suspected when that was; the zero values: never.
	Suspicion string
	Suspected time.Time
}

// A QuorumStatus is whether a service has the live servers that it needs. It is the
// zero value for a service of which no quorum is asked.
type QuorumStatus struct {
	Needed uint32
	Have   uint32 // sum of the weights of live servers
	Lost   bool
	Since  time.Time
	// Sorry: its servers are replaced by the sorry server.
	Sorry bool
}

// A DrainEnd says what becomes of the connections that are left at the deadline of
// a drain.
type DrainEnd string

// The ends of a drain.
const (
	// DrainKeep leaves them alone: they go on until they end by themselves.
	DrainKeep DrainEnd = ""
	// DrainExpire takes their entries out of the connection table: the next packet
	// of each is a stranger's.
	DrainExpire DrainEnd = "expire"
	// DrainReset does so and tells both ends of a TCP connection by a RST.
	DrainReset DrainEnd = "reset"
)

// ParseDrainEnd returns what text names: "", "expire" or "reset". It wraps ErrInvalid.
func ParseDrainEnd(text string) (DrainEnd, error) {
	switch end := DrainEnd(text); end {
	case DrainKeep, DrainExpire, DrainReset:
		return end, nil
	}
	return "", fmt.Errorf("end of a drain %q: %w: want expire or reset", text, ErrInvalid)
}

// A DrainScope names real servers: those with an address and, unless it is 0, a port,
// in every service or in one.
type DrainScope struct {
	Address netip.Addr
	Port    uint16
	Service ServiceKey // the zero key: every service
}

// Has reports whether a real server of a service is meant.
func (s DrainScope) Has(service ServiceKey, server RealServerKey) bool {
	return server.Address == s.Address && (s.Port == 0 || s.Port == server.Port) &&
		(s.Service == ServiceKey{} || s.Service == service)
}

// String returns "192.0.2.11", "192.0.2.11:80" or "192.0.2.11:80 of TCP 192.0.2.100:80".
func (s DrainScope) String() string {
	text := s.Address.String()
	if s.Port != 0 {
		text = netip.AddrPortFrom(s.Address, s.Port).String()
	}
	if (s.Service != ServiceKey{}) {
		text += " of " + s.Service.String()
	}
	return text
}

// A Drain is what goes on at one real server of one service that gets no new
// connections, so that it can be taken away.
type Drain struct {
	Service ServiceKey
	Server  RealServerKey
	Since   time.Time
	// Deadline is when Then happens to what is left; the zero time: never.
	Deadline time.Time
	Then     DrainEnd
	// Initial is how many connections there were, Left how many there are: of TCP and
	// SCTP the active ones, of others all.
	Initial uint32
	Left    uint32
	// Rate is how many connections a second have ended of late.
	Rate float64
	// Remaining is how long it takes at that rate until none is left; negative: it is
	// not known.
	Remaining time.Duration
	// Ended: the deadline is over, and Then has happened.
	Ended bool
}

// Done reports whether nothing is left of the server's connections.
func (d Drain) Done() bool { return d.Left == 0 }
