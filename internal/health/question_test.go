package health

import (
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A server that answers in turns is down within the time in which a silent one is, two
// checks, whatever the interval; one that has failed once is asked as ever soon after.
func TestFlappingIsFoundInTime(t *testing.T) {
	for _, interval := range []time.Duration{time.Second, 5 * time.Second, time.Minute} {
		q := &question{prober: &prober{check: lvs.Check{Interval: interval, Rise: 1, Fall: 2}}, state: lvs.HealthUnknown}
		q.take(success("it answers"))
		if q.pause() != interval {
			t.Errorf("interval %s: the next check is after %s", interval, q.pause())
		}
		// From the moment at which it begins, just after a check.
		passed := time.Duration(0)
		for fails := true; q.state != lvs.HealthDown; fails = !fails {
			passed += q.pause()
			if fails {
				q.take(failure(BadStatus, "status 503"))
			} else {
				q.take(success("it answers"))
			}
		}
		if q.cause != Flapping || passed > 2*interval {
			t.Errorf("interval %s: %s after %s", interval, q.cause, passed)
		}

		q = &question{prober: q.prober, state: lvs.HealthUp}
		q.take(success("it answers"))
		q.take(failure(BadStatus, "status 503"))
		for range window {
			q.take(success("it answers"))
		}
		if q.state != lvs.HealthUp || q.pause() != interval {
			t.Errorf("interval %s: %s, the next check is after %s", interval, q.state, q.pause())
		}
	}
}
