package dataplane

import (
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// The benchmark runs, and tells something that can be: its figures are not
// checked, the machine may be busy. Cases that differ from those that are run
// only in size or scheduler are left to "make bench".
func TestBenchCases(t *testing.T) {
	testhost.NeedRoot(t)
	seen := map[string]bool{}
	for _, c := range BenchCases() {
		if seen[c.Name] {
			t.Errorf("case %s is there twice", c.Name)
		}
		seen[c.Name] = true
		if c.Flows > 1 && c.Scheduler != lvs.RoundRobin {
			continue
		}
		r := mustBench(t, c)
		t.Logf("%-28s %7.1f %7.1f %7.1f", r.Case, r.NS, r.Bare, r.Above)
		const tooMuch = 1e6 // of any machine: no turn was measured
		if r.Case != c.Name || r.NS <= 0 || r.Bare <= 0 || r.NS > tooMuch || r.Bare > tooMuch {
			t.Errorf("case %s: %+v", c.Name, r)
		}
	}
	for _, scheduler := range implementedSchedulers() {
		if name := "new/ipv4/" + string(scheduler); !seen[name] {
			t.Errorf("case %s is missing", name)
		}
	}
}

// mustBench measures a case; all but the first on a plane that was loaded before.
func mustBench(t *testing.T, c BenchCase) (r BenchResult) {
	t.Helper()
	var err error
	if c.Name == BenchCases()[0].Name {
		r, err = Bench(t.Context(), c, 1)
	} else {
		t.Run(c.Name, func(t *testing.T) {
			var costs benchCosts
			if err = costs.addPlane(t.Context(), openPlane(t, testhost.MountBPF(t), c.tableSize()), c, 1); err == nil {
				r = costs.of(c)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}
