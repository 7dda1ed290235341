package oracle

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A reach is how much of a suite is compared. It only grows.
type reach struct {
	cases    int // at least in part
	readOuts int // outcomes of packets, real servers, connections, states, frames, output of ipvsadm
	packets  int // those whose outcome is compared
}

func TestSchedulers(t *testing.T) {
	playSuite(t, "sched", reach{cases: 378, readOuts: 5861, packets: 81071})
}

func TestLoads(t *testing.T) {
	playSuite(t, "load", reach{cases: 49, readOuts: 821, packets: 32512})
}

func TestStates(t *testing.T) {
	playSuite(t, "state", reach{cases: 40, readOuts: 514, packets: 440})
}

func TestPersistence(t *testing.T) {
	playSuite(t, "persist", reach{cases: 25, readOuts: 265, packets: 351})
}

func TestFrames(t *testing.T) {
	playSuite(t, "forward", reach{cases: 45, readOuts: 599})
}

func TestICMP(t *testing.T) {
	playSuite(t, "icmp", reach{cases: 22, readOuts: 730})
}

func TestLists(t *testing.T) {
	playSuite(t, "list", reach{cases: 7, readOuts: 402, packets: 367})
}

// TestFound plays what random scenarios found.
func TestFound(t *testing.T) {
	playSuite(t, "found", reach{cases: 8, readOuts: 79, packets: 473})
}

func readSuite(t *testing.T, name string) []*scenario.Scenario {
	t.Helper()
	all, err := scenario.ReadFolder(os.DirFS("testdata"), name)
	mustDo(t, "read suite", err)
	return all
}

// playSuite plays what can be played of a suite, and wants it to be least.
func playSuite(t *testing.T, name string, least reach) {
	all := readSuite(t, name)
	d := newDirector(t)
	var got reach
	waiting := map[string][]string{}
	for _, s := range all {
		p := newPlan(s)
		for _, w := range p.waiting {
			waiting[w.why] = append(waiting[w.why], strings.Trim(p.Name+": "+w.what, ": "))
		}
		if p.played == nil {
			continue
		}
		got.add(&p)
		t.Run(p.Name, func(t *testing.T) {
			d.enter(t)
			if err := d.compare(&p); err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%s: compared %d of %d cases: %d read-outs, %d packets", name, got.cases, len(all), got.readOuts, got.packets)
	for _, why := range slices.Sorted(maps.Keys(waiting)) {
		t.Logf("waits for %s: %d:\n\t%s", why, len(waiting[why]), strings.Join(waiting[why], "\n\t"))
	}
	if got.cases < least.cases || got.readOuts < least.readOuts || got.packets < least.packets {
		t.Errorf("compared %+v; it was %+v already", got, least)
	}
}

func (r *reach) add(p *plan) {
	r.cases++
	for i := range p.played.Steps {
		step := &p.played.Steps[i]
		if step.Reads() && p.frameWaits(step) == "" {
			r.readOuts++
		}
		r.packets += step.Packets()
	}
}

// compare plays a plan and tells the first answer that is not the recorded one,
// or a frame that waits and need not any more.
func (d *director) compare(p *plan) error {
	got, err := d.play(p.played)
	if err != nil {
		return err
	}
	scenario.JoinFragments(p.played, got)
	for i := range got.Steps {
		difference := scenario.DifferAt(p.played, got, i, "recorded", "fairlead")
		waits := p.frameWaits(&got.Steps[i]) != ""
		switch {
		case waits && difference == nil:
			return fmt.Errorf("frame %s: the same as recorded; strike it off waitingFrames", frameName(&got.Steps[i]))
		case difference != nil && !waits:
			return difference
		}
	}
	return nil
}
