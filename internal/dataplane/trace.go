package dataplane

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// MaxTraces is how many traces can go on at the same time.
const MaxTraces = int(traceTraceLimitMAX_TRACES)

// MaxTracedFrame is how many bytes of a frame a trace tells.
const MaxTracedFrame = int(traceTraceLimitMAX_TRACED_FRAME)

// What a trace may tell at the most on one CPU: so many packets a second, and so
// many at once.
const (
	traceRate  = 5000
	traceBurst = 1000
)

const (
	// lostInterval is how often the packets that were lost are looked for.
	lostInterval = time.Second
	// traceBacklog is how many packets wait for one who traces.
	traceBacklog = 2 * traceBurst
)

var (
	errTraceEnd = errors.New("trace is over")
	errClosed   = errors.New("the data plane is closed")
)

// Trace tells visit of each packet that the filter picks, as it passes: what the
// program itself saw of it. The first report comes when packets are picked, and
// has none. The trace ends, with a last report without a packet, after
// filter.Count packets or filter.For; or with the error of ctx, or of visit.
//
// While anybody traces, a program that looks on is in the place of the plain one:
// it treats packets alike, and costs more. Nothing is dropped for a trace; picked
// packets that come too fast are not told of, but counted as lost. It wraps
// lvs.ErrTableFull when MaxTraces go on already, and lvs.ErrInvalid for a filter
// of two address families.
func (p *Plane) Trace(ctx context.Context, filter lvs.TraceFilter, visit func(lvs.TraceReport) error) error {
	raw, err := toTraceFilter(filter)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	s, err := p.beginTrace(raw)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	s.visit, s.left = visit, filter.Count
	if filter.Count == 0 {
		s.left = math.MaxUint64
	}
	err = p.followTrace(ctx, s, filter.For)
	if errors.Is(err, errTraceEnd) {
		err = p.lastReport(s)
	}
	return errors.Join(err, p.endTrace(s))
}

// followTrace tells until something ends it; errTraceEnd says it was the filter.
func (p *Plane) followTrace(ctx context.Context, s *traceStream, length time.Duration) error {
	if err := s.visit(lvs.TraceReport{}); err != nil {
		return err
	}
	var over <-chan time.Time
	if length > 0 {
		timer := time.NewTimer(length)
		defer timer.Stop()
		over = timer.C
	}
	look := time.NewTicker(lostInterval)
	defer look.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.tracer.done:
			return s.tracer.failure()
		case <-over:
			return p.tellWaiting(s)
		case <-look.C:
			err = p.reportLost(s)
		case record := <-s.records:
			err = p.tellRecord(s, record)
		}
		if err != nil {
			return err
		}
	}
}

// tellWaiting tells of the packets that have passed already.
func (p *Plane) tellWaiting(s *traceStream) error {
	for {
		select {
		case record := <-s.records:
			if err := p.tellRecord(s, record); err != nil {
				return err
			}
		default:
			return errTraceEnd
		}
	}
}

// tellRecord tells of one packet. It returns errTraceEnd if that was the last.
func (p *Plane) tellRecord(s *traceStream, record []byte) error {
	packet, err := p.readTrace(record)
	if err != nil {
		return err
	}
	if err := s.visit(lvs.TraceReport{Packet: packet, Lost: s.lost}); err != nil {
		return err
	}
	if s.left--; s.left == 0 {
		return errTraceEnd
	}
	return nil
}

// readTrace puts a record into words.
func (p *Plane) readTrace(record []byte) (*lvs.TracedPacket, error) {
	t, err := readTraced(record)
	if err != nil {
		return nil, err
	}
	at, err := wallClock(t.Time)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	told := p.tellTraced(&t, at)
	return &told, nil
}

// wallClock is the time of day at a time of CLOCK_MONOTONIC.
func wallClock(ns uint64) (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Time{}, fmt.Errorf("read the clock: %w", err)
	}
	return time.Now().Add(time.Duration(int64(ns) - now.Nano())).Round(0), nil
}

// A traceStream is one trace.
type traceStream struct {
	tracer  *tracer
	slot    int
	since   uint64 // CLOCK_MONOTONIC: records of before are another's
	records chan []byte
	dropped atomic.Uint64 // records that found no room

	visit func(lvs.TraceReport) error
	left  uint64 // packets to tell
	lost  uint64 // as told last
}

// reportLost looks for packets that were lost, and tells if there are more.
func (p *Plane) reportLost(s *traceStream) error {
	lost, err := p.countLost(s)
	if err != nil || lost == s.lost {
		return err
	}
	s.lost = lost
	return s.visit(lvs.TraceReport{Lost: lost})
}

func (p *Plane) lastReport(s *traceStream) error {
	lost, err := p.countLost(s)
	if err != nil {
		return err
	}
	return s.visit(lvs.TraceReport{Lost: lost})
}

func (p *Plane) countLost(s *traceStream) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, errClosed
	}
	lost := s.dropped.Load()
	var perCPU []traceTraceAccount
	if err := s.tracer.objects.Accounts.Lookup(uint32(s.slot), &perCPU); err != nil {
		return 0, fmt.Errorf("count lost packets: %w", err)
	}
	for _, a := range perCPU {
		lost += a.Limited + a.Full
	}
	return lost, nil
}

// beginTrace takes a slot for a filter. The first one puts the tracing program
// into the place of the plain one.
func (p *Plane) beginTrace(filter traceTraceFilter) (*traceStream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if p.tracer == nil {
		if err := p.startTracer(); err != nil {
			return nil, err
		}
	}
	s, err := p.tracer.add(filter, p.traceUntil)
	if err != nil {
		return nil, errors.Join(err, p.stopIdleTracer())
	}
	return s, nil
}

// endTrace gives the slot back. The last one puts the plain program back.
func (p *Plane) endTrace(s *traceStream) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil // Close has ended it
	}
	return errors.Join(s.tracer.remove(s), p.stopIdleTracer())
}

// startTracer loads the tracing program, for the plane's maps, and puts it into
// the place of the plain one.
func (p *Plane) startTracer() error {
	for name, a := range p.links {
		if a.Mode == ModeTC {
			return fmt.Errorf("interface %s: %w: the program for tc can't be traced; XDP's can (fairlead director --mode xdp)", name, lvs.ErrUnsupported)
		}
	}
	t, err := newTracer(p)
	if err != nil {
		return err
	}
	if err := p.replaceProgram(t.objects.Program); err != nil {
		return errors.Join(err, p.replaceProgram(p.progs.Director), t.close())
	}
	p.tracer = t
	return nil
}

func (p *Plane) stopIdleTracer() error {
	if p.tracer == nil || p.tracer.busy() {
		return nil
	}
	return p.stopTracer()
}

// stopTracer puts the plain program back. If that fails the tracing one goes on,
// which picks nothing any more.
func (p *Plane) stopTracer() error {
	t := p.tracer
	p.tracer = nil
	return errors.Join(p.replaceProgram(p.progs.Director), t.close())
}

// replaceProgram updates the links one by one; each goes over in one step.
func (p *Plane) replaceProgram(program *ebpf.Program) error {
	for name, a := range p.links {
		if err := a.link.Update(program); err != nil {
			return fmt.Errorf("replace the program on %s: %w", name, err)
		}
	}
	return nil
}

// program is what is to run on the interfaces.
func (p *Plane) program() *ebpf.Program {
	if p.tracer != nil {
		return p.tracer.objects.Program
	}
	return p.progs.Director
}

// traceUntil is when the tracing program gives up on filters that nobody renewed,
// in jiffies: a director that is killed leaves it behind.
func (p *Plane) traceUntil() (uint64, error) {
	reading, _, err := p.readClock()
	if err != nil {
		return 0, err
	}
	return reading.Jiffies + uint64(traceLease/time.Second)*uint64(p.settings().Hz), nil
}

func toTraceFilter(filter lvs.TraceFilter) (traceTraceFilter, error) {
	client, virtual := filter.Client, filter.Virtual
	raw := traceTraceFilter{
		Protocol: uint8(filter.Protocol),
		Cport:    toPort(client.Port),
		Vport:    toPort(virtual.Port),
	}
	if client.Prefix.IsValid() && virtual.Prefix.IsValid() && client.Prefix.Addr().Is4() != virtual.Prefix.Addr().Is4() {
		return raw, fmt.Errorf("client %s and service %s: %w: they are of two address families", client, virtual, lvs.ErrInvalid)
	}
	for _, side := range []struct {
		prefix        netip.Prefix
		address, mask *directorAddress
	}{
		{client.Prefix, (*directorAddress)(&raw.Caddr), (*directorAddress)(&raw.Cmask)},
		{virtual.Prefix, (*directorAddress)(&raw.Vaddr), (*directorAddress)(&raw.Vmask)},
	} {
		if !side.prefix.IsValid() {
			continue
		}
		*side.address, *side.mask = toAddress(side.prefix.Addr()), toMask(side.prefix)
		raw.Ethertype = toPort(ethertypeIPv6)
		if side.prefix.Addr().Is4() {
			raw.Ethertype = toPort(ethertypeIPv4)
		}
	}
	return raw, nil
}

// toMask is the mask of a prefix, over sixteen bytes.
func toMask(prefix netip.Prefix) directorAddress {
	ones := prefix.Bits() + 128 - prefix.Addr().BitLen()
	high := uint64(math.MaxUint64) << (64 - min(ones, 64))
	low := uint64(math.MaxUint64) << (128 - max(ones, 64))
	return directorAddress{High: bits.ReverseBytes64(high), Low: bits.ReverseBytes64(low)}
}
