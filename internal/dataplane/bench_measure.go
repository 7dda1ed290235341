package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Packets of a benchmark on their way, and the time that they take.

// run sends packets of clients with these flags, each of the next flow, and returns the
// ns that one took in the quickest turn: what else runs on a shared machine makes others slower.
// A turn ends with the packet after it: of no more packets than a turn has, the result means nothing.
func (b *bench) run(prog *ebpf.Program, flags byte, packets int) (float64, error) {
	return b.runWay(prog, flags, benchRequests, packets)
}

// runWay is run in a direction.
func (b *bench) runWay(prog *ebpf.Program, flags byte, direction benchDirection, packets int) (float64, error) {
	if err := b.objects.Programs.Put(uint32(0), prog); err != nil {
		return 0, fmt.Errorf("choose the program: %w", err)
	}
	frame := b.frame(flags, direction)
	run := benchBenchRun{
		Quickest: math.MaxUint64, Turn: uint32(b.turn()),
		Flows: uint32(b.Flows), Stride: b.stride, Next: b.next, Macs: toMACs(lvs.MAC(frame[:6]), lvs.MAC(frame[6:])), Ttl: benchTTL,
	}
	if b.Scheduler != "" {
		run.Warm = 1
	}
	if b.Tunnel != nil {
		run.Tunnelled = 1
	}
	b.place(&run, frame[:], direction)
	run.Ethertype, run.Length = toPort(binary.BigEndian.Uint16(frame[12:])), uint16(len(frame))
	if err := b.objects.Runs.Put(uint32(0), run); err != nil {
		return 0, fmt.Errorf("set the packets: %w", err)
	}
	opts := ebpf.RunOptions{
		Data:    frame[:],
		Context: xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: benchIfindex},
		Repeat:  uint32(packets),
	}
	action, err := b.objects.NextPacket.Run(&opts)
	if err != nil {
		return 0, err
	}
	if action != xdpActionTX {
		return 0, fmt.Errorf("the last packet was not forwarded: XDP action %d", action)
	}
	b.next += uint64(b.stride) * uint64(packets)
	if err := b.objects.Runs.Lookup(uint32(0), &run); err != nil {
		return 0, fmt.Errorf("read what the packets took: %w", err)
	}
	return float64(run.Quickest) / float64(b.turn()), nil
}

// stayOnCPU keeps the caller on one processor until release is called. What one
// turn leaves in its cache would else be fetched from there in the next.
func stayOnCPU() (release func(), err error) {
	runtime.LockOSThread()
	var allowed, one unix.CPUSet
	err = unix.SchedGetaffinity(0, &allowed)
	if err == nil {
		for cpu := range len(allowed) * 64 {
			if allowed.IsSet(cpu) {
				one.Set(cpu)
				break
			}
		}
		err = unix.SchedSetaffinity(0, &one)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("stay on one processor: %w", err)
	}
	return func() {
		// The thread ends with its goroutine if it can't be set free.
		if unix.SchedSetaffinity(0, &allowed) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

const xdpActionTX = 3 // linux/bpf.h

// expireAll moves the clock past every timer and sweeps.
func (b *bench) expireAll() error {
	b.clock += time.Hour
	b.plane.SetClockOffset(b.clock)
	_, err := b.plane.Sweep()
	return err
}

func (b *bench) measure(ctx context.Context, rounds int, costs *benchCosts) error {
	round := b.roundOfKnown
	if b.Scheduler != "" {
		round = b.roundOfNew
	} else if err := b.establish(); err != nil {
		return err
	}
	for range rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		took, least, err := round()
		if err != nil {
			return err
		}
		costs.tested = append(costs.tested, took)
		costs.bare = append(costs.bare, least)
		costs.above = append(costs.above, took-least)
	}
	return nil
}

// roundOfKnown lets the two programs take turns with packets of established
// connections.
func (b *bench) roundOfKnown() (tested, bare float64, err error) {
	tested, bare = math.Inf(1), math.Inf(1)
	for range benchRuns {
		least, err := b.runWay(b.objects.Bare, flagACK, b.Direction, benchPackets)
		if err != nil {
			return 0, 0, err
		}
		took, err := b.runWay(b.tested, flagACK, b.Direction, benchPackets)
		if err != nil {
			return 0, 0, err
		}
		tested, bare = min(tested, took), min(bare, least)
	}
	return tested, bare, nil
}

// roundOfNew lets them take turns with the first packets of flows, all of which it
// ends before the next turn.
func (b *bench) roundOfNew() (tested, bare float64, err error) {
	tested, bare = math.Inf(1), math.Inf(1)
	for range benchRuns {
		least, err := b.run(b.objects.Bare, flagSYN, b.Flows)
		if err != nil {
			return 0, 0, err
		}
		took, err := b.run(b.tested, flagSYN, b.Flows)
		if err != nil {
			return 0, 0, err
		}
		if err := b.expireAll(); err != nil {
			return 0, 0, err
		}
		tested, bare = min(tested, took), min(bare, least)
	}
	return tested, bare, nil
}

// establish sets up every flow, in another order than that in which their packets
// come afterwards: a kernel hash map lays its entries in the order in which they
// were made, and would be read like a book.
func (b *bench) establish() error {
	b.stride = 1
	defer func() { b.stride = benchStride }()
	for _, flags := range []byte{flagSYN, flagACK} {
		if _, err := b.run(b.tested, flags, b.Flows); err != nil {
			return fmt.Errorf("set up %d connections: %w", b.Flows, err)
		}
	}
	if b.HashMap {
		return nil
	}
	want := b.Flows
	if b.Masqueraded {
		want *= 2 // and their replies' entries
	}
	found, err := b.plane.Sweep()
	if err == nil && found.Used != want {
		err = fmt.Errorf("set up %d connections: the table holds %d entries", b.Flows, found.Used)
	}
	return err
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
