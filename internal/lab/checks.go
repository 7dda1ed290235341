package lab

import (
	"fmt"
	"math"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Check is one promise of LVS, and whether it was kept. The names are part
// of the command's interface.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// An evidence is all that a demonstration has seen.
type evidence struct {
	method      Method
	options     Options
	servers     []Host
	traffic     traffic
	tally       *tally
	translated  *translatedTally // nil unless the method translates
	counted     uint64           // connections, by the director's own count
	captureLost error
}

func (e *evidence) checks() []Check {
	checks := []Check{e.requestsAnswered(), e.sharesByWeight()}
	kind, isTunnel := e.method.tunnel()
	switch {
	case e.translated != nil:
		checks = append(checks, e.translatedChecks()...)
	case isTunnel:
		checks = append(checks, e.repliesBypassDirector(), e.onlyWrapped(kind), e.serversSawClientAndVIP())
	default:
		checks = append(checks, e.repliesBypassDirector(), e.onlyMACsChanged(), e.serversSawClientAndVIP())
	}
	return append(checks, e.vipIsTheDirectors(), e.directorCounted(), e.captureComplete())
}

func (e *evidence) requestsAnswered() Check {
	t := e.traffic
	detail := fmt.Sprintf("%d of %d requests were answered", t.answered, t.sent)
	if t.firstFailure != nil {
		detail += fmt.Sprintf("; the first failure: %v", t.firstFailure)
	}
	return Check{"requests-answered", t.answered == t.sent, detail}
}

// sharesByWeight compares the requests of each server with its share: exactly
// for round robin, which counts, within 2 % for least connections, which
// measures.
func (e *evidence) sharesByWeight() Check {
	shares := e.shares()
	check := Check{Name: "shares-by-weight", OK: true}
	for i, server := range e.servers {
		got := e.traffic.byServer[server.Name]
		if i > 0 {
			check.Detail += ", "
		}
		if shares == nil {
			check.Detail += fmt.Sprintf("%s answered %d", server.Name, got)
			check.OK = check.OK && (got == 0 || e.options.Weights[i] > 0)
			continue
		}
		want := float64(e.traffic.sent) * shares[i]
		check.Detail += fmt.Sprintf("%s answered %d of %.4g expected", server.Name, got, want)
		check.OK = check.OK && math.Abs(float64(got)-want) <= e.tolerance(want, i)
	}
	if shares == nil {
		check.Detail += fmt.Sprintf("; %s promises no shares to servers that are idle between requests", e.options.Scheduler)
	}
	return check
}

// shares returns the part of the requests that each server ought to get, nil if
// the scheduler promises none for requests that come one after the other.
func (e *evidence) shares() []float64 {
	weights := slices.Clone(e.options.Weights)
	switch e.options.Scheduler {
	case lvs.WeightedRoundRobin, lvs.WeightedLeastConnection:
	case lvs.RoundRobin, lvs.LeastConnection:
		for i := range weights {
			weights[i] = min(weights[i], 1)
		}
	default:
		return nil
	}
	total := 0
	for _, weight := range weights {
		total += weight
	}
	shares := make([]float64, len(weights))
	for i, weight := range weights {
		shares[i] = float64(weight) / float64(max(total, 1))
	}
	return shares
}

// tolerance returns by how many requests server i may be off.
func (e *evidence) tolerance(want float64, i int) float64 {
	switch e.options.Scheduler {
	case lvs.WeightedRoundRobin:
		// A round is as many requests as all weights together, divided by
		// what they have in common; only the last one may be cut short.
		round, divisor := 0, 0
		for _, weight := range e.options.Weights {
			round += weight
			divisor = greatestCommonDivisor(divisor, weight)
		}
		if divisor == 0 || e.traffic.sent%(round/divisor) == 0 {
			return 1e-6
		}
		return float64(e.options.Weights[i] / divisor)
	case lvs.RoundRobin:
		return 1 - 1e-6
	}
	return max(2, want/50)
}

func greatestCommonDivisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (e *evidence) repliesBypassDirector() Check {
	t := e.tally
	arrival := "of them"
	if t.edge == Router {
		arrival = "came to its router"
	}
	return Check{
		Name: "replies-bypass-director",
		OK:   t.repliesAtDirector == 0 && t.repliesAtClient > 0 && t.repliesFromServer == t.repliesAtClient,
		Detail: fmt.Sprintf("%d reply packets reached the client, %d %s from a real server's MAC address; %d crossed the director",
			t.repliesAtClient, t.repliesFromServer, arrival, t.repliesAtDirector),
	}
}

func (e *evidence) onlyMACsChanged() Check {
	t := e.tally
	detail := fmt.Sprintf("%d packets came to the director and %d left it, %d changed or lost, %d not from it to a real server",
		t.requests, t.forwarded, t.changed(), t.misdirected)
	if len(t.ttls) > 0 {
		detail += "; TTL " + listCounts(t.ttls)
	}
	return Check{
		Name:   "only-macs-changed",
		OK:     t.requests > 0 && t.requests == t.forwarded && t.changed() == 0 && t.misdirected == 0,
		Detail: detail,
	}
}

// onlyWrapped wants each packet in an outer one from the director to the real server,
// and else as it came.
func (e *evidence) onlyWrapped(kind string) Check {
	check := e.onlyMACsChanged()
	check.Name = "only-wrapped"
	wrapped := e.tally.wrapped[kind]
	check.Detail += fmt.Sprintf("; %d left it in %s, from its own address to that of the real server", wrapped, kind)
	check.OK = check.OK && wrapped == e.tally.forwarded
	return check
}

func (e *evidence) vipIsTheDirectors() Check {
	claims := e.tally.claims
	detail := "nobody told the VIP's MAC address"
	if len(claims) > 0 {
		detail = "who told a MAC address for the VIP, how often: " + listCounts(claims)
	}
	return Check{"vip-is-the-directors", len(claims) == 1 && claims[Director] > 0, detail}
}

func (e *evidence) serversSawClientAndVIP() Check {
	t := e.traffic
	check := Check{
		Name:   "servers-saw-client-and-vip",
		OK:     t.answered > 0 && t.misled == 0,
		Detail: fmt.Sprintf("in %d of %d connections the server had the client's own address and %s", t.answered-t.misled, t.answered, t.service),
	}
	if t.misled > 0 {
		first := t.firstMisled
		check.Detail += fmt.Sprintf("; %s saw %s at %s instead of %s", first.Server, first.ClientAtServer, first.VirtualAtServer, first.Client)
	}
	return check
}

// directorCounted wants every connection counted; one that comes from the port
// of an earlier one may be taken for that.
func (e *evidence) directorCounted() Check {
	ports := len(e.traffic.clients)
	return Check{
		Name:   "director-counted-connections",
		OK:     e.counted >= uint64(ports) && e.counted <= uint64(e.traffic.sent),
		Detail: fmt.Sprintf("the director counted %d connections for %d requests from %d ports", e.counted, e.traffic.sent, ports),
	}
}

func (e *evidence) captureComplete() Check {
	check := Check{Name: "capture-complete", OK: e.captureLost == nil, Detail: "every frame was seen on every wire"}
	if e.captureLost != nil {
		check.Detail = e.captureLost.Error()
	}
	return check
}
