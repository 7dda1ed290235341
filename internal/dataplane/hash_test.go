package dataplane

import (
	"math"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// Flows of neighbouring addresses and ports must fill the groups of the table as
// chance would, whatever the keys: a group that gets more is one that overflows.
func TestHashSpreadsNeighbours(t *testing.T) {
	const flows = 1 << 18
	for range 3 {
		for _, family := range []struct {
			name string
			ipv6 bool
		}{{"ipv4", false}, {"ipv6", true}} {
			t.Run(family.name, func(t *testing.T) { wantSpread(t, BenchCase{Flows: flows, IPv6: family.ipv6}) })
		}
	}
}

// wantSpread establishes flows, and counts those in each group.
func wantSpread(t *testing.T, c BenchCase) {
	b, err := newBench(openPlane(t, testhost.MountBPF(t), c.Flows), c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := b.establish(); err != nil {
		t.Fatal(err)
	}
	groups := len(b.plane.view.connections.elements)
	for _, n := range []int{0, 1, 2, 4, 6} {
		got := float64(groupsWith(b.plane, n)) / float64(groups)
		want := poisson(float64(c.Flows)/float64(groups), n)
		// Six standard deviations.
		if tolerance := 6 * math.Sqrt(want/float64(groups)); math.Abs(got-want) > tolerance {
			t.Errorf("keys %x: %.4f of the groups hold %d entries, want %.4f ± %.4f", b.plane.settings().HashKeys, got, n, want, tolerance)
		}
	}
}

// groupsWith counts the groups with n live entries.
func groupsWith(p *Plane, n int) int {
	count := 0
	for g := range p.view.connections.elements {
		live := 0
		for s := range p.view.connections.elements[g].Slots {
			control := p.view.connections.elements[g].Slots[s].Control
			if control&directorControlCONTROL_STATUS == directorControlCONTROL_LIVE {
				live++
			}
		}
		if live == n {
			count++
		}
	}
	return count
}

// poisson is how likely n of something is that comes mean times on average.
func poisson(mean float64, n int) float64 {
	p := math.Exp(-mean)
	for i := range n {
		p *= mean / float64(i+1)
	}
	return p
}
