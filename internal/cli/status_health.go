package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// suspicionShown is for how long a suspicion is news.
const suspicionShown = 5 * time.Minute

// describeHealth returns the health of a real server in a word or two.
func describeHealth(r lvs.RealServerStatus) string {
	state := string(r.Health.State)
	switch {
	case r.Draining && state == "":
		return "drained"
	case r.Draining:
		return state + ", drained"
	case r.Health.State == lvs.HealthUp && r.Health.Cause != "":
		return "up, failing"
	}
	return orDash(state)
}

// describeWeight returns the weight in force, and the one that was asked for if that is
// another.
func describeWeight(r lvs.RealServerStatus, withheld bool) string {
	switch {
	case withheld:
		return fmt.Sprintf("out (%d)", r.ConfiguredWeight)
	case r.Weight != r.ConfiguredWeight && (r.Health.State != lvs.HealthUnchecked || r.Draining):
		return fmt.Sprintf("%d (%d)", r.Weight, r.ConfiguredWeight)
	}
	return fmt.Sprint(r.Weight)
}

// hasHealth reports whether there is anything to tell of health and drains.
func hasHealth(services []lvs.ServiceStatus) bool {
	for _, s := range services {
		for _, r := range s.All() {
			if r.Health.State != lvs.HealthUnchecked || r.Draining {
				return true
			}
		}
	}
	return false
}

// printTroubles prints what checks have found, and lost quorums.
func printTroubles(w io.Writer, services []lvs.ServiceStatus, now time.Time) error {
	title := "\n"
	tell := func(format string, args ...any) error {
		_, err := fmt.Fprintf(w, title+format+"\n", args...)
		title = ""
		return err
	}
	for _, s := range services {
		if s.Quorum.Lost {
			sorry := "no sorry server"
			if s.Quorum.Sorry {
				sorry = "the sorry server answers"
			}
			if err := tell("%s: quorum lost %s ago: weight %d is live, %d is needed; %s", s.ServiceKey,
				age(s.Quorum.Since, now), s.Quorum.Have, s.Quorum.Needed, sorry); err != nil {
				return err
			}
		}
		for _, r := range s.All() {
			if now.Sub(r.Health.Suspected) < suspicionShown {
				if err := tell("%s of %s: checked early %s ago: %s", r.RealServerKey, s.ServiceKey,
					age(r.Health.Suspected, now), r.Health.Suspicion); err != nil {
					return err
				}
			}
			if r.Health.Cause == "" {
				continue
			}
			if err := tell("%s of %s: %s for %s: %s: %s", r.RealServerKey, s.ServiceKey, r.Health.State, age(r.Health.Since, now),
				r.Health.Cause, r.Health.Detail); err != nil {
				return err
			}
		}
	}
	return nil
}

func age(since, now time.Time) time.Duration { return now.Sub(since).Round(time.Second) }

type healthJSON struct {
	State   string    `json:"state"` // "unknown", "up" or "down"
	Since   time.Time `json:"since"`
	Cause   string    `json:"cause,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Latency float64   `json:"latency_seconds"`
	// What clients' packets said against it when that last brought its checks forward.
	Suspicion string     `json:"suspicion,omitempty"`
	Suspected *time.Time `json:"suspected,omitempty"`
}

// newHealthJSON returns nil for a server without checks.
func newHealthJSON(h lvs.HealthStatus) *healthJSON {
	if h.State == lvs.HealthUnchecked {
		return nil
	}
	j := &healthJSON{
		State: string(h.State), Since: h.Since.UTC(), Cause: h.Cause, Detail: h.Detail, Latency: h.Latency.Seconds(),
		Suspicion: h.Suspicion,
	}
	if !h.Suspected.IsZero() {
		suspected := h.Suspected.UTC()
		j.Suspected = &suspected
	}
	return j
}

type quorumJSON struct {
	Needed uint32    `json:"needed"`
	Have   uint32    `json:"have"`
	Lost   bool      `json:"lost"`
	Since  time.Time `json:"since"`
	Sorry  bool      `json:"sorry"`
}

// newQuorumJSON returns nil if none is asked for.
func newQuorumJSON(q lvs.QuorumStatus) *quorumJSON {
	if q == (lvs.QuorumStatus{}) {
		return nil
	}
	return &quorumJSON{Needed: q.Needed, Have: q.Have, Lost: q.Lost, Since: q.Since.UTC(), Sorry: q.Sorry}
}
