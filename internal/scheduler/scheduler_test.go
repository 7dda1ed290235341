package scheduler

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestNewWRR(t *testing.T) {
	for _, test := range []struct {
		weights []uint32
		want    WRR
	}{
		{nil, WRR{1, 0}},
		{[]uint32{0}, WRR{1, 0}},
		{[]uint32{0, 0, 0}, WRR{1, 0}},
		{[]uint32{1}, WRR{1, 1}},
		{[]uint32{7}, WRR{7, 1}},
		{[]uint32{0, 7}, WRR{7, 1}},
		{[]uint32{4, 2}, WRR{2, 3}},
		{[]uint32{4, 2, 1}, WRR{1, 4}},
		{[]uint32{6, 10, 15}, WRR{1, 15}},
		{[]uint32{12, 0, 18}, WRR{6, 13}},
		{[]uint32{2147483647}, WRR{2147483647, 1}},
		{[]uint32{2147483647, 2147483646}, WRR{1, 2147483647}},
	} {
		if got := NewWRR(test.weights); got != test.want {
			t.Errorf("NewWRR(%v) = %+v, want %+v", test.weights, got, test.want)
		}
	}
}

func TestCarryOver(t *testing.T) {
	for _, test := range []struct {
		wrr           WRR
		current, want uint32
	}{
		{WRR{1, 4}, 0, 4},
		{WRR{1, 4}, 1, 1},
		{WRR{1, 4}, 4, 4},
		{WRR{1, 4}, 5, 4},
		{WRR{2, 3}, 1, 1},
		{WRR{2, 3}, 2, 3},
		{WRR{2, 3}, 3, 3},
		{WRR{2, 3}, 4, 3},
		{WRR{3, 7}, 5, 4},
		{WRR{1, 0}, 0, 0},
		{WRR{1, 0}, 9, 0},
	} {
		if got := test.wrr.CarryOver(test.current); got != test.want {
			t.Errorf("%+v.CarryOver(%d) = %d, want %d", test.wrr, test.current, got, test.want)
		}
	}
}

// A walk of the rounds serves each server as often as its weight says, whatever
// the weights are.
func TestRoundsServeByWeight(t *testing.T) {
	r := random(t)
	for range 2000 {
		weights := make([]uint32, 1+r.IntN(6))
		factor := uint32(1 + r.IntN(5))
		for i := range weights {
			weights[i] = factor * uint32(r.IntN(8))
		}
		wrr := NewWRR(weights)
		served := make([]uint32, len(weights))
		for current := wrr.Top; current > 0; {
			for i, w := range weights {
				if w >= current {
					served[i] += wrr.Step
				}
			}
			if current <= wrr.Step {
				break
			}
			current -= wrr.Step
		}
		if !slices.Equal(served, weights) {
			t.Fatalf("weights %v were served %v by %+v", weights, served, wrr)
		}
	}
}

// A position follows the server that it stands behind through any changes.
func TestPositionFollowsTheLastChoice(t *testing.T) {
	r := random(t)
	next := 0
	var servers []string
	var position Position
	last := "" // "" is the head of the list
	for step := range 20_000 {
		what := "choose"
		switch n := r.IntN(3); {
		case n == 0 && len(servers) < 12:
			what = "add"
			servers = slices.Insert(servers, 0, fmt.Sprint(next))
			next++
			position = position.AfterAdd()
		case n == 1 && len(servers) > 0:
			at := r.IntN(len(servers))
			what = fmt.Sprintf("remove %d", at)
			if servers[at] == last {
				last = ""
				if at > 0 {
					last = servers[at-1]
				}
			}
			servers = slices.Delete(servers, at, at+1)
			position = position.AfterRemove(at)
		case len(servers) > 0:
			at := r.IntN(len(servers))
			last, position = servers[at], Position(at+1)
		}
		got := ""
		if position > 0 {
			got = servers[position-1]
		}
		if got != last {
			t.Fatalf("step %d, %s: position %d of %v is behind %q, want %q", step, what, position, servers, got, last)
		}
	}
}

// random returns a source of numbers whose seed is printed; the environment's
// FAIRLEAD_SEED repeats a run.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FAIRLEAD_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("FAIRLEAD_SEED: %v", err)
		}
	}
	t.Logf("repeat with FAIRLEAD_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
