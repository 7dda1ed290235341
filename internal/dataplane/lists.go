package dataplane

import (
	"fmt"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A span is a run of slots, from start up to end.
type span struct{ start, end uint32 }

// A slotAllocator hands out runs of slots of a flat map; first fit. Its free
// spans are sorted and never touch one another.
type slotAllocator struct{ free []span }

func newSlotAllocator(slots uint32) *slotAllocator {
	return &slotAllocator{free: []span{{0, slots}}}
}

// allocate returns the start of a run of n slots. For n = 0 that is 0, and there
// is nothing to free.
func (a *slotAllocator) allocate(n uint32) (uint32, error) {
	if n == 0 {
		return 0, nil
	}
	for i, s := range a.free {
		if s.end-s.start < n {
			continue
		}
		if s.end-s.start == n {
			a.free = slices.Delete(a.free, i, i+1)
		} else {
			a.free[i].start += n
		}
		return s.start, nil
	}
	return 0, fmt.Errorf("find %d list slots in a row: %w", n, lvs.ErrTableFull)
}

// reserve takes a run that is known to be in use out of the free ones.
func (a *slotAllocator) reserve(start, n uint32) error {
	if n == 0 {
		return nil
	}
	for i, s := range a.free {
		if start < s.start || start >= s.end || n > s.end-start {
			continue
		}
		rest := []span{{s.start, start}, {start + n, s.end}}
		rest = slices.DeleteFunc(rest, func(s span) bool { return s.start == s.end })
		a.free = slices.Replace(a.free, i, i+1, rest...)
		return nil
	}
	return fmt.Errorf("list slots %d to %d are in use twice", start, start+n-1)
}

// release gives a run back.
func (a *slotAllocator) release(start, n uint32) {
	if n == 0 {
		return
	}
	i, _ := slices.BinarySearchFunc(a.free, start, func(s span, start uint32) int {
		return int(int64(s.start) - int64(start))
	})
	a.free = slices.Insert(a.free, i, span{start, start + n})
	if i+1 < len(a.free) && a.free[i].end == a.free[i+1].start {
		a.free[i].end = a.free[i+1].end
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].end == a.free[i].start {
		a.free[i-1].end = a.free[i].end
		a.free = slices.Delete(a.free, i, i+1)
	}
}
