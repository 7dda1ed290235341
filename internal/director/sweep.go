package director

import (
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// A sweepRecord is what the sweeps of the connection table found. It is safe for
// concurrent use.
type sweepRecord struct {
	mu     sync.Mutex
	used   int
	sweeps api.Sweeps
	ended  time.Time
}

func (r *sweepRecord) read() (used int, sweeps api.Sweeps) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used, r.sweeps
}

// lastEnd returns when the last sweep ended that did not fail.
func (r *sweepRecord) lastEnd() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

func (r *sweepRecord) add(used, expired int, took time.Duration, ended time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used, r.ended = used, ended
	r.sweeps.Count++
	r.sweeps.Last = took
	r.sweeps.Time += took
	r.sweeps.Expired += uint64(expired)
}

// sweep frees the expired entries of the connection table.
func (d *Director) sweep() error {
	start := time.Now()
	result, err := d.plane.Sweep()
	if err != nil {
		return err
	}
	end := time.Now()
	d.swept.add(result.Used, result.Expired, end.Sub(start), end)
	return nil
}
