package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
)

const (
	// faultTimeout bounds how long traffic is watched for a fault to show, or to
	// be gone.
	faultTimeout = 20 * time.Second
	// faultPatience is how long a request may take before it counts as failed: as
	// long as a client's kernel waits until it sends a SYN again, and more.
	faultPatience = 1500 * time.Millisecond
	// enoughHarm is how many requests must go wrong, and enoughGood how many in a
	// row must go right.
	enoughHarm = 3
	enoughGood = 20
	// uploadSize is that of a large request.
	uploadSize = 100_000
)

// An Observation is what became of requests, seen on the wires.
type Observation struct {
	Sent     int            `json:"sent"`
	Answered int            `json:"answered"`
	ByServer map[string]int `json:"by_server"`
	// Uploads are requests of 100 kB. They are sent only where a fault is theirs.
	Uploads  int `json:"uploads,omitempty"`
	Uploaded int `json:"uploaded,omitempty"`
	// SentTo counts the SYNs that left the client, or the router before it, by the
	// host whose MAC address they went to: all are the director's when all is well.
	SentTo map[string]int `json:"sent_to"`
	// Rescheduled counts the SYNs that a real server sent on to another one.
	Rescheduled int `json:"rescheduled"`
	// Claimed counts who told a MAC address for the VIP.
	Claimed map[string]int `json:"claimed"`
	// Learnt is the host whose MAC address the client, or the router before it, has
	// for the VIP in the end; LearntBy says which of the two it is.
	Learnt   string `json:"learnt"`
	LearntBy string `json:"learnt_by"`
	// Switch is the port on which the switch has learnt each host.
	Switch map[string]string `json:"switch"`
}

// bypassed returns how many SYNs went to another host than the director.
func (o Observation) bypassed() int {
	n := 0
	for host, count := range o.SentTo {
		if host != Director {
			n += count
		}
	}
	return n
}

// unanswered returns how many requests were, of either kind.
func (o Observation) unanswered() int { return o.Sent - o.Answered + o.Uploads - o.Uploaded }

// harm returns how many requests went wrong.
func (o Observation) harm() int { return o.unanswered() + o.bypassed() + o.Rescheduled }

func isWell(o Observation) bool { return o.Sent >= enoughGood && o.harm() == 0 }

func isHarmed(o Observation) bool { return o.harm() >= enoughHarm }

// String tells the observation in one line.
func (o Observation) String() string { return strings.Join(o.lines(), "; ") }

// lines tells the observation, one thing a line.
func (o Observation) lines() []string {
	answered := fmt.Sprintf("%d of %d requests answered", o.Answered, o.Sent)
	if o.Answered > 0 {
		answered += ", by " + listCounts(o.ByServer)
	}
	lines := []string{answered}
	if o.Uploads > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d requests of %d kB answered", o.Uploaded, o.Uploads, uploadSize/1000))
	}
	lines = append(lines,
		fmt.Sprintf("SYNs of the %s went to: %s", o.LearntBy, orNone(o.SentTo)),
		"who claimed the VIP: "+orNone(o.Claimed))
	if o.Rescheduled > 0 {
		lines = append(lines, fmt.Sprintf("SYNs that a real server sent on to another: %d", o.Rescheduled))
	}
	learnt := o.Learnt
	if learnt == "" {
		learnt = "nobody"
	}
	return append(lines,
		fmt.Sprintf("the %s holds the VIP to be at: %s", o.LearntBy, learnt),
		"the switch holds to be at its ports: "+listPorts(o.Switch))
}

func orNone(counts map[string]int) string {
	if len(counts) == 0 {
		return "nobody"
	}
	return listCounts(counts)
}

// A faultWatch sends requests, each from a port of its own.
type faultWatch struct {
	lab     *Lab
	fault   Fault
	family  Family
	service netip.AddrPort
	ports   portWalk
}

// until sends requests, and observes them, until the observation is as wanted or
// the time is over; an observation that can no longer be well is begun anew. It
// returns the last one.
func (w *faultWatch) until(ctx context.Context, wanted func(Observation) bool) (Observation, error) {
	deadline := time.Now().Add(faultTimeout)
	for {
		o, err := w.observe(ctx, deadline, wanted)
		if err != nil || wanted(o) || !time.Now().Before(deadline) {
			return o, err
		}
	}
}

// observe watches requests until they are as wanted, enough of them are not, or the
// deadline.
func (w *faultWatch) observe(ctx context.Context, deadline time.Time, wanted func(Observation) bool) (Observation, error) {
	seen := Observation{SentTo: map[string]int{}} // what the wires show
	tally := newTally(w.service, w.lab.ports)
	capture, err := w.lab.Capture(0, func(frame journey.Frame) {
		tally.observe(frame)
		p := journey.Decode(frame.Data)
		if frame.Direction != journey.Out || p.Kind != journey.TCP || p.Flags != journey.SYN ||
			netip.AddrPortFrom(p.Destination, p.DestinationPort) != w.service {
			return
		}
		switch {
		case frame.Host == tally.edge:
			seen.SentTo[tally.name(p.DestinationMAC)]++
		case isServer(frame.Host):
			seen.Rescheduled++
		}
	})
	if err != nil {
		return seen, err
	}
	o, err := w.send(ctx, deadline, wanted)
	// What was lost only makes the counts of frames smaller.
	_, lost := capture.Stop()
	if err := errors.Join(err, lost, context.Cause(ctx)); err != nil {
		return o, err
	}
	o.SentTo, o.Rescheduled, o.Claimed = seen.SentTo, seen.Rescheduled, tally.claims
	o.LearntBy = tally.edge
	if o.Learnt, err = w.lab.learnt(w.family); err != nil {
		return o, err
	}
	o.Switch, err = w.lab.switchTable()
	return o, err
}

// send sends requests until enough are as wanted or enough are not answered.
func (w *faultWatch) send(ctx context.Context, deadline time.Time, wanted func(Observation) bool) (Observation, error) {
	const most = 100
	o := Observation{ByServer: map[string]int{}}
	for o.Sent < most && time.Now().Before(deadline) && ctx.Err() == nil {
		if w.fault.before != nil {
			if err := w.fault.before(w.lab, w.family); err != nil {
				return o, err
			}
		}
		kinds := []func(context.Context, *Observation){w.request}
		if w.fault.uploads {
			kinds = append(kinds, w.upload)
		}
		// By turns the one or the other first: a scheduler that goes round would
		// give all of one kind to the same real servers.
		if o.Sent%2 == 1 {
			kinds[0], kinds[len(kinds)-1] = kinds[len(kinds)-1], kinds[0]
		}
		for _, send := range kinds {
			send(ctx, &o)
		}
		if o.unanswered() >= enoughHarm || o.Sent == enoughGood && wanted(o) {
			break
		}
	}
	return o, nil
}

// request sends a small request.
func (w *faultWatch) request(ctx context.Context, o *Observation) {
	o.Sent++
	if answer, ok := w.exchange(ctx, w.lab.get); ok {
		o.Answered++
		o.ByServer[answer.Server]++
	}
}

// upload sends a large request.
func (w *faultWatch) upload(ctx context.Context, o *Observation) {
	o.Uploads++
	if _, ok := w.exchange(ctx, w.lab.post); ok {
		o.Uploaded++
	}
}

func (w *faultWatch) exchange(ctx context.Context, exchange func(context.Context, netip.AddrPort, net.Dialer) (Answer, error)) (Answer, bool) {
	ctx, cancel := context.WithTimeout(ctx, faultPatience)
	defer cancel()
	answer, err := exchange(ctx, w.service, w.ports.next(w.service))
	return answer, err == nil
}
