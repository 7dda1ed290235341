package dataplane

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// traceLease is how long the tracing program goes on without its director.
	traceLease = 10 * time.Second
	// traceRenewal is how often the director says that it is there.
	traceRenewal = time.Second
)

// A tracer holds the tracing program and hands out what it tells. It lives while
// somebody traces.
type tracer struct {
	objects struct {
		Program  *ebpf.Program `ebpf:"trace_director"`
		Accounts *ebpf.Map     `ebpf:"trace_accounts"`
		Events   *ebpf.Map     `ebpf:"trace_events"`
		Filters  *ebpf.Map     `ebpf:"trace_filters"`
	}
	filters array[traceTraceFilterTable]
	reader  *ringbuf.Reader
	// done is closed when nothing more will be told.
	done    chan struct{}
	stop    chan struct{}
	workers sync.WaitGroup

	mu      sync.Mutex
	streams [MaxTraces]*traceStream
	err     error // why done is closed
}

// newTracer loads the program with the plane's own maps. It runs nowhere yet.
func newTracer(p *Plane) (*tracer, error) {
	t := &tracer{done: make(chan struct{}), stop: make(chan struct{})}
	err := t.load(p)
	if err == nil {
		t.filters, err = mapArray[traceTraceFilterTable](t.objects.Filters)
	}
	if err == nil {
		t.reader, err = ringbuf.NewReader(t.objects.Events)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load the tracing program: %w", err), t.free())
	}
	t.limit(time.Second/traceRate, traceBurst)
	t.workers.Go(t.read)
	t.workers.Go(func() { t.renew(p.traceUntil) })
	return t, nil
}

func (t *tracer) load(p *Plane) error {
	spec, err := withVariables(loadTrace())
	if err != nil {
		return err
	}
	shared := p.sharedMaps()
	for _, name := range []string{directorMapBonds, directorMapConnections} {
		spec.Maps[name].MaxEntries = shared[name].MaxEntries()
	}
	return spec.LoadAndAssign(&t.objects, &ebpf.CollectionOptions{MapReplacements: shared})
}

// limit bounds what a CPU tells of one trace: a packet an interval in the long
// run, burst at once. An interval of 0 lifts it.
func (t *tracer) limit(interval time.Duration, burst uint32) {
	table := &t.filters.elements[0]
	atomic.StoreUint32(&table.Burst, burst)
	atomic.StoreUint32(&table.Interval, uint32(interval))
}

// add begins to pick packets by a filter. It wraps lvs.ErrTableFull.
func (t *tracer) add(filter traceTraceFilter, until func() (uint64, error)) (*traceStream, error) {
	lease, err := until()
	if err != nil {
		return nil, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot := range t.streams {
		if t.streams[slot] != nil {
			continue
		}
		if err := t.objects.Accounts.Put(uint32(slot), make([]traceTraceAccount, ebpf.MustPossibleCPU())); err != nil {
			return nil, fmt.Errorf("begin to count lost packets: %w", err)
		}
		s := &traceStream{tracer: t, slot: slot, since: uint64(now.Nano()), records: make(chan []byte, traceBacklog)}
		t.streams[slot] = s
		table := &t.filters.elements[0]
		filter.Until = 0
		table.Filters[slot] = filter
		atomic.StoreUint64(&table.Filters[slot].Until, lease)
		t.countSlots()
		return s, nil
	}
	return nil, fmt.Errorf("%d traces go on already, as many as can: %w", MaxTraces, lvs.ErrTableFull)
}

// remove ends the picking for a stream. No packet looks at its filter afterwards.
func (t *tracer) remove(s *traceStream) error {
	atomic.StoreUint64(&t.filters.elements[0].Filters[s.slot].Until, 0)
	err := gracePeriod()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams[s.slot] = nil
	t.countSlots()
	return err
}

// countSlots tells the program how far filters reach.
func (t *tracer) countSlots() {
	slots := 0
	for slot, s := range t.streams {
		if s != nil {
			slots = slot + 1
		}
	}
	atomic.StoreUint32(&t.filters.elements[0].Slots, uint32(slots))
}

func (t *tracer) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.streams {
		if s != nil {
			return true
		}
	}
	return false
}

// read hands records out until the ring buffer is closed. It waits for nobody.
func (t *tracer) read() {
	defer close(t.done)
	for {
		record, err := t.reader.Read()
		if err != nil {
			t.fail(err)
			return
		}
		var head traceTraceEvent
		if _, ok := copyHead(&head, record.RawSample); ok {
			t.handOut(&head, record.RawSample)
		}
	}
}

func (t *tracer) handOut(head *traceTraceEvent, record []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot, s := range t.streams {
		if s == nil || head.Picked>>slot&1 == 0 || head.Time < s.since {
			continue
		}
		select {
		case s.records <- record:
		default:
			s.dropped.Add(1)
		}
	}
}

// fail notes why no more is told.
func (t *tracer) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, os.ErrClosed) {
		err = errClosed
	}
	t.err = fmt.Errorf("read what the tracing program tells: %w", err)
}

func (t *tracer) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// renew keeps the filters in force until the tracer is closed.
func (t *tracer) renew(until func() (uint64, error)) {
	ticker := time.NewTicker(traceRenewal)
	defer ticker.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-ticker.C:
		}
		if lease, err := until(); err == nil {
			t.prolong(lease)
		}
	}
}

func (t *tracer) prolong(lease uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slot, s := range t.streams {
		if s != nil {
			atomic.StoreUint64(&t.filters.elements[0].Filters[slot].Until, lease)
		}
	}
}

// close ends all streams and lets go of everything.
func (t *tracer) close() error {
	close(t.stop)
	err := t.reader.Close()
	t.workers.Wait()
	return errors.Join(err, t.free())
}

func (t *tracer) free() error {
	o := &t.objects
	return errors.Join(t.filters.unmap(), o.Program.Close(), o.Accounts.Close(), o.Events.Close(), o.Filters.Close())
}
