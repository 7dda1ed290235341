package oracle

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// A reach is how much of a suite is compared. It only grows.
type reach struct {
	cases    int // at least in part
	readOuts int // outcomes of packets, real servers, connections, states, frames
	packets  int // those whose outcome is compared
}

func TestSchedulers(t *testing.T) {
	playSuite(t, "sched", reach{cases: 109, readOuts: 1113, packets: 23734})
}

func TestLoads(t *testing.T) {
	playSuite(t, "load", reach{cases: 49, readOuts: 667, packets: 32512})
}

func TestStates(t *testing.T) {
	playSuite(t, "state", reach{cases: 13, readOuts: 107, packets: 121})
}

func TestFrames(t *testing.T) {
	playSuite(t, "forward", reach{cases: 5, readOuts: 36})
}

// playSuite plays what can be played of a suite, and wants it to be least.
func playSuite(t *testing.T, name string, least reach) {
	s := readSuite(t, name)
	d := newDirector(t)
	var got reach
	waiting := map[string][]string{}
	for i := range s.Cases {
		p := newPlan(&s.Cases[i])
		for _, w := range p.waiting {
			waiting[w.why] = append(waiting[w.why], strings.Trim(p.Name+": "+w.what, ": "))
		}
		if p.steps == nil {
			continue
		}
		got.add(&p)
		t.Run(p.Name, func(t *testing.T) {
			d.enter(t)
			if err := d.play(&p); err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%s: compared %d of %d cases: %d read-outs, %d packets", name, got.cases, len(s.Cases), got.readOuts, got.packets)
	for _, why := range slices.Sorted(maps.Keys(waiting)) {
		t.Logf("waits for %s: %d:\n\t%s", why, len(waiting[why]), strings.Join(waiting[why], "\n\t"))
	}
	if got.cases < least.cases || got.readOuts < least.readOuts || got.packets < least.packets {
		t.Errorf("compared %+v; it was %+v already", got, least)
	}
}

func (r *reach) add(p *plan) {
	r.cases++
	r.readOuts += p.compared
	for _, st := range p.steps {
		r.packets += len(st.Got)
	}
}
