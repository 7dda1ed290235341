package dataplane

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// coarseTime is the clock that the data plane reads (bpf_ktime_get_coarse_ns):
// CLOCK_MONOTONIC_COARSE, in ns.
func coarseTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("read the coarse clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// now is the data plane's time, its offset included.
func (p *Plane) now() (time.Duration, error) {
	t, err := coarseTime()
	return t + time.Duration(p.settings().ClockOffset), err
}

func tick(t time.Duration) uint32 { return uint32(t >> directorLimitTICK_SHIFT) }
