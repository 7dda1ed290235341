package dataplane

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// SetICMPLimit limits the ICMP answers that the data plane gives: one an interval
// in the long run, burst of them at once. An interval of 0 lifts the limit. A new
// Plane has the kernel's: one a millisecond, 50 at once. It wraps lvs.ErrRange
// for what does not fit: intervals above four seconds, negative numbers.
func (p *Plane) SetICMPLimit(interval time.Duration, burst int) error {
	if interval < 0 || interval > math.MaxUint32 || burst < 0 || burst > math.MaxInt32 {
		return fmt.Errorf("limit ICMP answers to one in %s, %d at once: %w", interval, burst, lvs.ErrRange)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	set := p.settings()
	atomic.StoreUint32(&set.IcmpInterval, uint32(interval))
	atomic.StoreUint32(&set.IcmpBurst, uint32(burst))
	return nil
}
