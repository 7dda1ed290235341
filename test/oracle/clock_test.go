package oracle

import (
	"fmt"
	"time"

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
		d.late = false
		played, err := scenario.Play(machine{d}, s)
		if !d.late {
			return played, err
		}
	}
	return nil, fmt.Errorf("%s: played %d times, and each time the host was too busy with other things for a clock to be kept", s.Name, plays)
}
