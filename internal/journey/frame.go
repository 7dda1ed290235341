package journey

import (
	"fmt"
	"slices"
	"time"
)

// A Direction is which way a frame went, as the host at the wire's end sees it.
type Direction uint8

// The directions.
const (
	In Direction = iota
	Out
)

// String returns "in" or "out".
func (d Direction) String() string {
	if d == Out {
		return "out"
	}
	return "in"
}

// MarshalText returns what String does.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText takes "in" and "out".
func (d *Direction) UnmarshalText(text []byte) error {
	switch string(text) {
	case "in":
		*d = In
	case "out":
		*d = Out
	default:
		return fmt.Errorf("direction %q: neither in nor out", text)
	}
	return nil
}

// A Frame is one Ethernet frame as it passed on the wire of one host. A frame
// that crosses a switch is one Frame for each wire that it passes.
type Frame struct {
	Host      string
	Direction Direction
	Time      time.Time
	Data      []byte
	Length    int // on the wire; Data may be the first part of it
}

// inOrder returns the frames by time; frames of one instant keep their order.
func inOrder(frames []Frame) []Frame {
	sorted := slices.Clone(frames)
	slices.SortStableFunc(sorted, func(a, b Frame) int { return a.Time.Compare(b.Time) })
	return sorted
}
