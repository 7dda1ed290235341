package health

import (
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// window is how many answers are looked back on for flapping.
	window = 10
	// manyChanges between success and failure in the window are flapping, which ends
	// when there are no more than fewChanges.
	manyChanges = 5
	fewChanges  = 1
	// someChanges may become many.
	someChanges = 2
	// confirmed is how long after a failure a question is put again that was put
	// because its server was suspected.
	confirmed = time.Second
	// stalled is how late, and by half of the time that a question has, a check must be
	// told that its time is over to be no word on the server: this host has had no
	// processor for it.
	stalled = 200 * time.Millisecond
)

// A question is one check of one target, with what has become of it. It serves every
// server of every service that asks the same.
type question struct {
	*prober
	key   string
	users map[*server]struct{}

	// The manager's mutex guards what follows.
	timer     *time.Timer // nil: stopped
	asking    bool
	due       time.Time
	suspected time.Time // when it was last brought forward
	state     lvs.HealthState
	cause     Cause // why it is down
	detail    string
	row       int    // answers of the same kind in a row
	last      Result // the last answer
	history   uint64 // 1 is a success; the lowest bit is the last answer
	answers   int
	weight    *uint32 // what the last success said
}

// keyOf returns the same text for the same questions, and only for those.
func keyOf(check lvs.Check, target Target) (string, error) {
	text, err := json.Marshal(struct {
		Check  lvs.Check
		Target Target
	}{check, target})
	return string(text), err
}

// targetOf returns whom a check of a real server asks. It wraps lvs.ErrInvalid.
func targetOf(service lvs.ServiceKey, server lvs.RealServer, check lvs.Check) (Target, error) {
	ports := []uint16{check.Port, server.Port, service.Port}
	port := uint16(0)
	for _, port = range ports {
		if port != 0 {
			break
		}
	}
	t := Target{Path: lvs.PathRIP}
	switch {
	case check.Type == lvs.CheckFile:
		return Target{}, nil
	case check.Type == lvs.CheckScript:
		return Target{Server: lvs.RealServer{RealServerKey: server.RealServerKey}}, nil
	case check.Address.IsValid():
		t.Address = addrPort(check.Address, port)
	// A masqueraded client's packet goes to the real server's own address and port.
	case check.Path == lvs.PathRIP, server.Method.Translates():
		t.Address = addrPort(server.Address, port)
	case service.Mark != 0:
		return Target{}, fmt.Errorf("check %s of %s: path vip: %w: a firewall mark has no address; say path: rip", check.Type, service, lvs.ErrInvalid)
	default:
		port = check.Port
		if port == 0 {
			port = service.Port
		}
		t = Target{Path: lvs.PathVIP, Address: addrPort(service.Address, port), Server: server}
		t.Server.Weight, t.Server.UpperThreshold, t.Server.LowerThreshold = 0, 0, 0
	}
	if t.Address.Port() == 0 && check.Type != lvs.CheckICMP {
		return Target{}, fmt.Errorf("check %s of %s: port: %w: the service is of all ports; say which one is checked", check.Type, service, lvs.ErrInvalid)
	}
	return t, nil
}

// aside returns the target that tells a server that is down from one that clients
// can't reach: the same question to its own address.
func (q *question) aside() Target {
	return Target{Path: lvs.PathRIP, Address: addrPort(q.target.Server.Address, q.target.Address.Port())}
}

// put puts the question once, in the time that it has.
func (q *question) put(ctx context.Context) Result {
	begin := time.Now()
	result := q.inquire(ctx)
	late := time.Since(begin) - q.check.Timeout
	if late > max(q.check.Timeout/2, stalled) && q.isSilence(result) {
		return failure(CheckFailed, "this host was too busy: it looked for the answer %s after the time was over", late.Round(time.Millisecond))
	}
	return result
}

// isSilence reports whether an answer may have been missed.
func (q *question) isSilence(r Result) bool {
	switch r.Cause {
	case Timeout, Slow, HostDown, PathBroken:
		return q.check.Type != lvs.CheckScript // its end may be late by its own fault
	}
	return false
}

func (q *question) inquire(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, q.check.Timeout)
	defer cancel()
	if q.target.Path != lvs.PathVIP {
		return q.ask(ctx, q.target)
	}
	// A server that has not answered after half of the time is asked at its own
	// address, so that the verdict has its cause when the time is over.
	second := make(chan Result, 1)
	ask := func() { second <- q.ask(ctx, q.aside()) }
	timer := time.AfterFunc(q.check.Timeout/2, ask)
	first := q.ask(ctx, q.target)
	stopped := timer.Stop()
	if first.Cause != Timeout && first.Cause != HostDown {
		return first
	}
	if stopped {
		ask()
	}
	return diagnose(first, <-second, q.target)
}

// diagnose tells why a server that does not answer for the VIP does not, by what it
// answers at its own address.
func diagnose(first, second Result, target Target) Result {
	own := target.Server.Address
	switch second.Cause {
	case Timeout, HostDown, NoNextHop:
		first.Cause = HostDown
		first.Detail = fmt.Sprintf("answers neither for %s nor at %s", target.Address.Addr(), own)
	case PathUnavailable, CheckFailed:
	case ProcessDown:
		first.Cause = PathBroken
		first.Detail = fmt.Sprintf("refuses connections at %s, and answers nothing for %s: does it have the VIP? (fairlead doctor)", own, target.Address.Addr())
	default:
		first.Cause = PathBroken
		first.Detail = fmt.Sprintf("answers at %s, but not for %s: does it have the VIP? (fairlead doctor)", own, target.Address.Addr())
	}
	return first
}

// take notes an answer, and reports whether the verdict has changed.
func (q *question) take(r Result) bool {
	before := q.last
	q.last = r
	if r.Cause.ownFault() {
		return false // it says nothing of the server
	}
	if before.OK() != r.OK() || q.answers == 0 {
		q.row = 0
	}
	q.row++
	q.answers++
	q.history <<= 1
	if r.OK() {
		q.history |= 1
		q.weight = r.Weight
	}
	switch {
	case r.OK() && q.state == lvs.HealthUnknown,
		r.OK() && q.state == lvs.HealthDown && q.row >= q.check.Rise && !(q.cause == Flapping && q.changes() > fewChanges):
		return q.turn(lvs.HealthUp, "", "")
	case !r.OK() && q.state != lvs.HealthDown && q.row >= q.check.Fall:
		return q.turn(lvs.HealthDown, r.Cause, r.Detail)
	case q.state == lvs.HealthUp && q.changes() >= manyChanges:
		detail := fmt.Sprintf("%d times up or down in %d checks", q.changes(), min(q.answers, window))
		if !r.OK() {
			detail += fmt.Sprintf("; last: %s: %s", r.Cause, r.Detail)
		}
		return q.turn(lvs.HealthDown, Flapping, detail)
	case !r.OK() && q.state == lvs.HealthDown && q.cause != Flapping && q.cause != r.Cause:
		return q.turn(lvs.HealthDown, r.Cause, r.Detail)
	}
	return false
}

// turn comes to a verdict. Flapping is between two verdicts: what was before one does
// not count for the next.
func (q *question) turn(state lvs.HealthState, cause Cause, detail string) bool {
	if state != q.state && cause != Flapping {
		q.history, q.answers = q.history&1, min(q.answers, 1)
	}
	q.state, q.cause, q.detail = state, cause, detail
	return true
}

// changes returns how often success and failure have followed each other of late.
func (q *question) changes() int {
	n := min(q.answers, window)
	if n < 2 {
		return 0
	}
	return bits.OnesCount64((q.history ^ q.history>>1) & (1<<(n-1) - 1))
}

// pause returns how long after its beginning a question is put again. One that has
// failed is put sooner until there is a verdict, and very soon if clients had seen that
// before, or if it fails and succeeds in turns: that is found as fast as that a server is
// down.
func (q *question) pause() time.Duration {
	pause := q.check.Interval
	switch {
	case q.state == lvs.HealthDown || q.answers == 0:
	case q.changes() >= someChanges:
		pause /= 6
	case !q.last.OK() && time.Since(q.suspected) < q.check.Interval:
		pause = min(pause/2, confirmed)
	case !q.last.OK():
		pause /= 2
	}
	if q.check.Jitter > 0 {
		pause += time.Duration(rand.Int64N(int64(2*q.check.Jitter)+1)) - q.check.Jitter
	}
	return max(pause, 0)
}
