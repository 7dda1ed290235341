package dataplane

import (
	"fmt"
	"unsafe"
)

// A traced is one record of the tracing program, with the frames and candidates
// that follow it.
type traced struct {
	traceTraceEvent
	candidates []traceTraceCandidate
	in, out    []byte
}

// readTraced reads a record; it refers to none of its bytes afterwards.
func readTraced(record []byte) (traced, error) {
	var t traced
	rest, ok := copyHead(&t.traceTraceEvent, record)
	if ok {
		t.in, rest, ok = cutFrame(rest, t.InTold)
	}
	for range t.Candidates {
		var c traceTraceCandidate
		if ok {
			rest, ok = copyHead(&c, rest)
		}
		if !ok {
			break
		}
		t.candidates = append(t.candidates, c)
	}
	if ok {
		t.out, _, ok = cutFrame(rest, t.OutTold)
	}
	if !ok {
		return t, fmt.Errorf("read a traced packet: a record of %d bytes is cut short", len(record))
	}
	return t, nil
}

// copyHead copies the first bytes to a value without pointers, and returns the
// others.
func copyHead[T any](to *T, from []byte) (rest []byte, ok bool) {
	size := int(unsafe.Sizeof(*to))
	if len(from) < size {
		return nil, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(to)), size), from)
	return from[size:], true
}

// cutFrame copies that many bytes, which are filled up to a multiple of eight.
func cutFrame(from []byte, length uint32) (frame, rest []byte, ok bool) {
	whole := (uint64(length) + 7) &^ 7
	if uint64(len(from)) < whole {
		return nil, nil, false
	}
	return append([]byte(nil), from[:length]...), from[whole:], true
}

// sameLayout returns a value as another type that was generated of the same type
// in C (TestLayout).
func sameLayout[To, From any](from From) To {
	return *(*To)(unsafe.Pointer(&from))
}
