package dataplane

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

func TestTraceEnds(t *testing.T) {
	p := newTestPlane(t)
	frame := tcpFrame("203.0.113.5:1024", "192.0.2.10:80", "S")
	ended := func(tr *testTrace) {
		t.Helper()
		if err := <-tr.ended; err != nil {
			t.Error(err)
		}
		if lost := <-tr.lost; lost != 0 {
			t.Errorf("%d packets lost", lost)
		}
		if p.tracer != nil {
			t.Error("the tracing program is still there")
		}
	}
	tr := mustTrace(t, p, lvs.TraceFilter{Count: 2})
	tr.run(frame)
	tr.run(frame)
	ended(tr)
	ended(mustTrace(t, p, lvs.TraceFilter{For: time.Millisecond}))

	tr = mustTrace(t, p, lvs.TraceFilter{})
	mustClose(t, p)
	if err := <-tr.ended; !errors.Is(err, errClosed) {
		t.Errorf("of a plane that is closed: %v", err)
	}
	if err := p.Trace(t.Context(), lvs.TraceFilter{}, func(lvs.TraceReport) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("of a plane that was closed: %v", err)
	}
}

// Packets that come too fast go their way without being told, and are counted.
func TestTraceLosesItsWordsNotPackets(t *testing.T) {
	p := newTestPlane(t)
	mustAddService(t, p, tcpService("192.0.2.10:80", lvs.RoundRobin))
	frame := segment{client: "203.0.113.5:1024", vip: "192.0.2.10:80", flags: "A", payload: make([]byte, 1400)}.frame(t)
	const packets = 4000
	send := func(tr *testTrace) {
		t.Helper()
		counted := verdictDelta(t, p, func() {
			for range packets {
				tr.send(frame)
			}
		})
		if counted["pass-no-connection"] != packets {
			t.Errorf("counted %v, want %d packets", counted, packets)
		}
	}
	check := func(tr *testTrace) uint64 {
		t.Helper()
		deadline := time.After(20 * time.Second)
		told, lost := uint64(0), uint64(0)
		for told+lost < packets {
			select {
			case <-tr.packets:
				told++
			case lost = <-tr.lost:
			case <-deadline:
				t.Fatalf("%d packets told, %d lost, of %d", told, lost, packets)
			}
		}
		if told+lost != packets || told == 0 {
			t.Errorf("%d packets told, %d lost, of %d", told, lost, packets)
		}
		tr.stop()
		return lost
	}

	tr := mustTrace(t, p, lvs.TraceFilter{})
	p.tracer.limit(time.Hour/1000, 10)
	send(tr)
	if lost := check(tr); lost < packets/2 {
		t.Errorf("the limit held back %d packets of %d", lost, packets)
	}

	tr = mustTrace(t, p, lvs.TraceFilter{})
	tracer := p.tracer
	tracer.mu.Lock() // nobody reads
	send(tr)
	tracer.mu.Unlock()
	if lost := check(tr); lost == 0 {
		t.Error("the ring buffer took everything")
	}
}

// The tracing program of a director that was killed picks nothing any more.
func TestTraceLease(t *testing.T) {
	p := newTestPlane(t)
	tr := mustTrace(t, p, lvs.TraceFilter{})
	frame := tcpFrame("203.0.113.5:1024", "192.0.2.10:80", "S")
	tr.run(frame)
	reading, _, err := p.readClock()
	if err != nil {
		t.Fatal(err)
	}
	p.tracer.mu.Lock() // or the lease would be renewed
	p.tracer.filters.elements[0].Filters[0].Until = reading.Jiffies
	for range 3 {
		tr.send(frame)
	}
	if left := p.tracer.reader.AvailableBytes(); left != 0 {
		t.Errorf("%d bytes were told after the lease", left)
	}
	p.tracer.mu.Unlock()
	tr.stop()
}

// While somebody traces, another program is on the interfaces; then the plain one
// again.
func TestTraceReplacesTheProgram(t *testing.T) {
	dir := testhost.MountBPF(t)
	enterNamespace(t)
	p := openMode(t, dir, ModeNative)
	mustAttach(t, p, "a0")
	plain, _ := attachedTo(t, "a0")
	first, second := mustTrace(t, p, lvs.TraceFilter{}), mustTrace(t, p, lvs.TraceFilter{})
	tracing, _ := attachedTo(t, "a0")
	if tracing == plain || tracing == 0 {
		t.Errorf("program %d is attached while a trace goes on, %d before", tracing, plain)
	}
	mustAttach(t, p, "a0", "b0")
	for _, name := range []string{"a0", "b0"} {
		if now, _ := attachedTo(t, name); now != tracing {
			t.Errorf("program %d is on %s, want the tracing one, %d", now, name, tracing)
		}
	}
	first.stop()
	if now, _ := attachedTo(t, "a0"); now != tracing {
		t.Errorf("program %d is attached while a trace goes on, want %d", now, tracing)
	}
	second.stop()
	for _, name := range []string{"a0", "b0"} {
		if now, _ := attachedTo(t, name); now != plain {
			t.Errorf("program %d is on %s after the traces, want the plain one, %d", now, name, plain)
		}
	}

	// One who takes over from a director that was killed puts its plain one there.
	last := mustTrace(t, p, lvs.TraceFilter{})
	left, _ := attachedTo(t, "a0")
	heir := openMode(t, dir, ModeNative)
	mustAttach(t, heir, "a0", "b0")
	for _, name := range []string{"a0", "b0"} {
		now, _ := attachedTo(t, name)
		if id := programID(t, heir.progs.Director); now != id || now == left {
			t.Errorf("program %d is on %s, want the plain one, %d", now, name, id)
		}
	}
	last.stop()
}

func programID(t *testing.T, program *ebpf.Program) uint32 {
	t.Helper()
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, ok := info.ID()
	if !ok {
		t.Fatal("the kernel does not tell a program's number")
	}
	return uint32(id)
}
