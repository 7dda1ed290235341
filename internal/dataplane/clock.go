package dataplane

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// The data plane's clock counts ticks of four jiffies. The kernel tells nobody
// how many jiffies a second has, so that is measured, once for a set of maps.

// hzMeasure is how long that takes: enough to tell apart the kernel's choices.
const hzMeasure = 120 * time.Millisecond

// kernelHZ are the choices of CONFIG_HZ.
var kernelHZ = []uint32{24, 48, 100, 128, 250, 256, 300, 512, 1000, 1024, 1200}

func (p *Plane) readClock() (directorClockReading, uint32, error) {
	var reading directorClockReading
	tick, err := p.progs.ReadClock.Run(&ebpf.RunOptions{Context: reading, ContextOut: &reading})
	if err != nil {
		return reading, 0, fmt.Errorf("read the data plane's clock: %w", err)
	}
	return reading, tick, nil
}

// now is the data plane's time in ticks, its offset included.
func (p *Plane) now() (uint32, error) {
	_, tick, err := p.readClock()
	return tick, err
}

// measureHZ finds out how many jiffies a second has.
func (p *Plane) measureHZ() (uint32, error) {
	first, _, err := p.readClock()
	if err != nil {
		return 0, err
	}
	for {
		time.Sleep(hzMeasure)
		second, _, err := p.readClock()
		if err != nil {
			return 0, err
		}
		took := time.Duration(second.Ns - first.Ns)
		if took < hzMeasure {
			continue
		}
		return nearestHZ(float64(second.Jiffies-first.Jiffies) / took.Seconds()), nil
	}
}

func nearestHZ(measured float64) uint32 {
	return slices.MinFunc(kernelHZ, func(a, b uint32) int {
		return int(math.Abs(float64(a)-measured) - math.Abs(float64(b)-measured))
	})
}

// toTicks rounds to the nearest tick; fromTicks goes back.
func (p *Plane) toTicks(d time.Duration) uint32 {
	perTick := p.tickLength()
	return uint32((d + perTick/2) / perTick)
}

func (p *Plane) fromTicks(ticks uint32) time.Duration {
	return time.Duration(ticks) * p.tickLength()
}

func (p *Plane) tickLength() time.Duration {
	return time.Second << directorLimitTICK_JIFFIES_SHIFT / time.Duration(p.settings().Hz)
}
