package oracle

import (
	"fmt"
	"slices"
	"time"

	fairlead "github.com/fairlead-lb/fairlead/internal/director"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// Our data plane's clock can't be stopped: it is set back before whatever looks at it. On a
// host that is busy with other things, seconds may pass between the two, and timers run
// out that should not. A scenario in which that happened is played once more.

// clockError is how far the clock may be off, to both sides: it counts ticks, and
// goes on while a packet is on its way. Scenarios look at least twice as long after
// a packet, and half a second at most.
const clockError = 100 * time.Millisecond

// hold sets the clock to what it should show: real time passes as the test runs.
func (d *director) hold() { d.SetClockOffset(d.clock - time.Since(d.started)) }

// onTime carries out what looks at the clock, and notes if that took too long to be
// relied on.
func (d *director) onTime(do func()) {
	d.hold()
	began := time.Now()
	do()
	d.late = d.late || time.Since(began) > clockError/2
}

// plays is how often a scenario is tried. Half a second's worth of packets is not held
// up every time.
const plays = 20

// play plays a scenario from its beginning.
func (d *director) play(s *scenario.Scenario) (*scenario.Scenario, error) {
	for range plays {
		if err := d.reset(); err != nil {
			return nil, err
		}
		d.rates = nil
		if slices.ContainsFunc(s.Steps, func(step scenario.Step) bool { return slices.Contains(step.Words, "--rate") }) {
			d.rates = fairlead.NewEstimator(nil)
		}
		d.late = false
		played, err := scenario.Play(machine{d}, s)
		if !d.late {
			return played, err
		}
	}
	return nil, fmt.Errorf("%s: played %d times, and each time the host was too busy with other things for a clock to be kept", s.Name, plays)
}

// turn is the time from one turn of the kernel's estimator to the next: two seconds, for
// whose timer the wheel of a kernel of 100 ticks a second has marks of 80 ms alone, and
// the next of those.
const turn = 2080 * time.Millisecond

// mostTurns is how many turns of one sleep are taken: a rate is 0 by then.
const mostTurns = 100

// estimate has the estimator take the turns of a sleep, if there is one. It takes those
// that end with a multiple of their time; the kernel's have another beginning.
func (m machine) estimate(slept time.Duration) error {
	if m.rates == nil {
		return nil
	}
	turns := (m.sinceTurn + slept) / turn
	m.sinceTurn = (m.sinceTurn + slept) % turn
	for range min(turns, mostTurns) {
		services, err := m.Plane.Services()
		if err != nil {
			return err
		}
		m.rates.Interval(services)
	}
	return nil
}
