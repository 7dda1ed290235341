package health

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func addrPort(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

// A server is a real server of a service, with its questions.
type server struct {
	lvs.ServerHealth
	service   *service
	questions []*question

	state  lvs.HealthState
	since  time.Time
	weight *uint32 // what its checks say; nil: nothing

	suspicion string // what brought its checks forward last
	suspected time.Time
}

// A service has its servers' health, and its quorum.
type service struct {
	lvs.ServiceHealth
	servers map[lvs.RealServerKey]*server

	quorum lvs.QuorumStatus
}

// judge returns what the questions come to, and the one that says why, or nil.
func (s *server) judge() (lvs.HealthState, *question) {
	state, because := lvs.HealthUp, (*question)(nil)
	for _, q := range s.questions {
		switch {
		case q.state == lvs.HealthDown:
			return lvs.HealthDown, q
		case q.state == lvs.HealthUnknown:
			state = lvs.HealthUnknown
		}
		if !q.last.OK() && because == nil {
			because = q
		}
	}
	return state, because
}

// isLive reports whether clients are sent to the server.
func (s *server) isLive() bool {
	return s.state == lvs.HealthUp || s.state == lvs.HealthUnknown && !s.Alpha
}

// lightest returns the least weight that a check says; nil: none says one.
func (s *server) lightest() *uint32 {
	var least *uint32
	for _, q := range s.questions {
		if q.weight != nil && (least == nil || *q.weight < *least) {
			least = q.weight
		}
	}
	return least
}

// status returns what is told of the server.
func (s *server) status() lvs.HealthStatus {
	status := lvs.HealthStatus{State: s.state, Since: s.since, Suspicion: s.suspicion, Suspected: s.suspected}
	_, because := s.judge()
	if because != nil {
		status.Cause, status.Detail = string(because.last.Cause), because.last.Detail
		if because.state == lvs.HealthDown {
			status.Cause, status.Detail = string(because.cause), because.detail
		}
		status.Detail = string(because.check.Type) + ": " + status.Detail
	}
	for _, q := range s.questions {
		status.Latency = max(status.Latency, q.last.Latency)
	}
	return status
}

// weightOf returns the weight that a server has while it is live.
func (s *service) weightOf(told lvs.RealServer) uint32 {
	if server := s.servers[told.RealServerKey]; server != nil && server.weight != nil && told.Weight > 0 {
		return *server.weight
	}
	return told.Weight
}

// isLive reports whether clients are sent to a server; one without checks is.
func (s *service) isLive(key lvs.RealServerKey) bool {
	server := s.servers[key]
	return server == nil || server.isLive()
}

// count looks at the quorum, and reports whether it was lost or regained.
func (s *service) count(told []lvs.RealServer, now time.Time) bool {
	if s.Quorum == 0 {
		return false
	}
	have := uint64(0)
	for _, t := range told {
		if s.isLive(t.RealServerKey) {
			have += uint64(s.weightOf(t))
		}
	}
	q := &s.quorum
	q.Needed, q.Have = s.Quorum, uint32(min(have, 1<<32-1))
	lost := q.Lost
	switch up, down := uint64(s.Quorum)+uint64(s.Hysteresis), max(int64(s.Quorum)-int64(s.Hysteresis), 0); {
	case q.Lost && have >= up:
		lost = false
	case !q.Lost && (int64(have) < down || have == 0):
		lost = true
	}
	changed := lost != q.Lost
	if changed || q.Since.IsZero() {
		q.Since = now
	}
	q.Lost = lost
	q.Sorry = lost && s.Sorry.Address.IsValid()
	return changed
}

// inForce returns what clients are to be given of the servers that were told. The
// quorum has been counted.
func (s *service) inForce(told []lvs.RealServer) []lvs.RealServer {
	servers := make([]lvs.RealServer, 0, len(told)+1)
	for _, t := range told {
		server := s.servers[t.RealServerKey]
		switch {
		case s.isLive(t.RealServerKey) && !s.quorum.Sorry:
			t.Weight = s.weightOf(t)
		case server == nil || !server.Inhibit:
			continue
		default:
			t.Weight = 0
		}
		servers = append(servers, t)
	}
	sorry := s.Sorry
	there := slices.ContainsFunc(servers, func(t lvs.RealServer) bool { return t.RealServerKey == sorry.RealServerKey })
	if !sorry.Address.IsValid() || there || !s.quorum.Sorry && !s.SorryInhibit {
		return servers
	}
	if !s.quorum.Sorry {
		sorry.Weight = 0
	}
	return append(servers, sorry)
}
