package api

import (
	"time"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// healthToWire returns nil for a server without checks.
func healthToWire(h lvs.HealthStatus) *fairleadv1.Health {
	if h.State == lvs.HealthUnchecked {
		return nil
	}
	return &fairleadv1.Health{
		State: string(h.State), SinceUnixNanoseconds: timeToWire(h.Since), Cause: h.Cause, Detail: h.Detail,
		LatencyMicroseconds: uint64(max(h.Latency, 0) / time.Microsecond),
		Suspicion:           h.Suspicion, SuspectedUnixNanoseconds: timeToWire(h.Suspected),
	}
}

func healthFromWire(h *fairleadv1.Health) lvs.HealthStatus {
	return lvs.HealthStatus{
		State: lvs.HealthState(h.GetState()), Since: timeFromWire(h.GetSinceUnixNanoseconds()),
		Cause: h.GetCause(), Detail: h.GetDetail(),
		Latency:   time.Duration(h.GetLatencyMicroseconds()) * time.Microsecond,
		Suspicion: h.GetSuspicion(), Suspected: timeFromWire(h.GetSuspectedUnixNanoseconds()),
	}
}

// quorumToWire returns nil for a service of which none is asked.
func quorumToWire(q lvs.QuorumStatus) *fairleadv1.Quorum {
	if q == (lvs.QuorumStatus{}) {
		return nil
	}
	return &fairleadv1.Quorum{
		Needed: q.Needed, Have: q.Have, Lost: q.Lost, SinceUnixNanoseconds: timeToWire(q.Since), Sorry: q.Sorry,
	}
}

func quorumFromWire(q *fairleadv1.Quorum) lvs.QuorumStatus {
	return lvs.QuorumStatus{
		Needed: q.GetNeeded(), Have: q.GetHave(), Lost: q.GetLost(), Since: timeFromWire(q.GetSinceUnixNanoseconds()),
		Sorry: q.GetSorry(),
	}
}

// timeToWire returns 0 for the zero time.
func timeToWire(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeFromWire(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
