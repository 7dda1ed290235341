package dataplane

import (
	"errors"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The allocator against a naive one: a slice that says of each slot whether it
// is in use.
func TestSlotAllocator(t *testing.T) {
	r := random(t)
	const slots = 200
	a := newSlotAllocator(slots)
	var used [slots]bool
	runs := map[uint32]uint32{}
	firstFit := func(n uint32) (uint32, bool) {
		for start := uint32(0); start+n <= slots; start++ {
			free := true
			for i := start; i < start+n; i++ {
				free = free && !used[i]
			}
			if free {
				return start, true
			}
		}
		return 0, false
	}
	mark := func(start, n uint32, as bool) {
		for i := start; i < start+n; i++ {
			used[i] = as
		}
	}
	for step := range 20_000 {
		switch r.IntN(5) {
		case 0, 1: // allocate
			n := uint32(r.IntN(40))
			got, err := a.allocate(n)
			want, fits := firstFit(n)
			if n == 0 {
				want, fits = 0, true
			}
			if fits && (err != nil || got != want) {
				t.Fatalf("step %d: allocate %d: %d, %v, want %d", step, n, got, err, want)
			}
			if !fits && !errors.Is(err, lvs.ErrTableFull) {
				t.Fatalf("step %d: allocate %d: %d, %v, want ErrTableFull", step, n, got, err)
			}
			if fits && n > 0 {
				mark(got, n, true)
				runs[got] = n
			}
		case 2, 3: // release
			for start, n := range runs {
				a.release(start, n)
				mark(start, n, false)
				delete(runs, start)
				break
			}
			a.release(uint32(r.IntN(slots)), 0)
		case 4: // reserve
			start := uint32(r.IntN(slots))
			n := uint32(r.IntN(int(min(20, slots-start)) + 1))
			fits := true
			for i := start; i < start+n; i++ {
				fits = fits && !used[i]
			}
			if err := a.reserve(start, n); (err == nil) != fits {
				t.Fatalf("step %d: reserve %d from %d: %v, free %v", step, n, start, err, fits)
			}
			if fits && n > 0 {
				mark(start, n, true)
				runs[start] = n
			}
		}
		checkSpans(t, a, used[:])
	}
	for start, n := range runs {
		a.release(start, n)
	}
	if len(a.free) != 1 || a.free[0] != (span{0, slots}) {
		t.Errorf("all is free, but in spans %v", a.free)
	}
}

// checkSpans compares the free spans with the slots in use. They are sorted, and
// never touch.
func checkSpans(t *testing.T, a *slotAllocator, used []bool) {
	t.Helper()
	free := make([]bool, len(used))
	last := -1
	for _, s := range a.free {
		if int(s.start) <= last || s.start >= s.end {
			t.Fatalf("free spans %v", a.free)
		}
		last = int(s.end)
		for i := s.start; i < s.end; i++ {
			free[i] = true
		}
	}
	for i := range used {
		if used[i] == free[i] {
			t.Fatalf("slot %d: in use %v, free %v", i, used[i], free[i])
		}
	}
}

func TestReserveOutOfRange(t *testing.T) {
	a := newSlotAllocator(10)
	for _, s := range []span{{8, 3}, {10, 1}, {0, 11}, {^uint32(0), 2}, {5, ^uint32(0)}} {
		if err := a.reserve(s.start, s.end); err == nil {
			t.Errorf("reserved %d slots from %d of 10", s.end, s.start)
		}
	}
}
