package oracle

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/testhost"
	"github.com/fairlead-lb/fairlead/test/oracle/kernel"
	"github.com/fairlead-lb/fairlead/test/oracle/random"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

var (
	seeds    = flag.Int("seeds", 5, "how many random scenarios to play on the kernel and on fairlead")
	seed     = flag.Uint64("seed", 0, "play the random scenario of this seed alone; 0: see -seeds")
	first    = flag.Uint64("first", 0, "the first of -seeds; 0: one that nobody has seen with -any-seeds, else 1")
	anySeeds = flag.Bool("any-seeds", false, "take seeds that nobody has seen, not the first ones")
	recorded = flag.Bool("recorded", false, "play the recorded scenarios on the kernel too")
	record   = flag.Bool("record", false, "write the kernel's answers to the recorded scenarios to their files")
)

// bootKernel builds what a kernel needs, or skips without the packages; in CI that
// is a failure.
func bootKernel(t *testing.T) *kernel.Kernel {
	t.Helper()
	folder, err := os.MkdirTemp("", "oracle-")
	mustDo(t, "make a folder", err)
	t.Cleanup(func() { mustDo(t, "remove the folder", os.RemoveAll(folder)) })
	k, err := kernel.New(t.Context(), folder)
	if errors.Is(err, kernel.ErrMissing) && os.Getenv("CI") == "" {
		t.Skipf("needs a kernel to play on: %v; scripts/test-deps installs it", err)
	}
	mustDo(t, "prepare a kernel", err)
	return k
}

// TestKernelAnswersAsRecorded holds the recorded answers against the kernel.
func TestKernelAnswersAsRecorded(t *testing.T) {
	if !*recorded && !*record {
		t.Skip("takes minutes: make oracle")
	}
	k := bootKernel(t)
	files, err := filepath.Glob("testdata/*/*.scenario")
	mustDo(t, "find scenarios", err)
	for _, name := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "testdata/"), ".scenario"), func(t *testing.T) {
			file, err := scenario.ReadFile(os.DirFS("."), name)
			mustDo(t, "read scenarios", err)
			played, err := k.Play(t.Context(), file.Scenarios)
			mustDo(t, "play scenarios", err)
			for i, s := range played {
				if err := scenario.Differ(s, file.Scenarios[i], "kernel", "recorded"); err != nil && !*record {
					t.Error(err)
				}
			}
			if *record {
				file.Scenarios = played
				mustDo(t, "write scenarios", os.WriteFile(name, []byte(file.String()), 0o644))
			}
		})
	}
}

// TestRandom plays random scenarios on the kernel and on fairlead.
func TestRandom(t *testing.T) {
	testhost.NeedRoot(t)
	k := bootKernel(t)
	d := newDirector(t)
	features := d.features(t)
	t.Logf("features: %+v", features)
	var scenarios []*scenario.Scenario
	for _, seed := range chosenSeeds() {
		scenarios = append(scenarios, random.New(seed, features))
	}
	both := pair{kernel: k, director: d}
	differences, err := both.play(t.Context(), scenarios)
	mustDo(t, "play", err)
	failed := 0
	for i, difference := range differences {
		if difference == nil {
			continue
		}
		if failed++; failed > mostShrunk {
			t.Errorf("%v\nrepeat it with: make oracle SEED=%s", difference, strings.TrimPrefix(scenarios[i].Name, "seed "))
			continue
		}
		t.Error(both.report(t.Context(), upTo(scenarios[i], difference)))
	}
	t.Logf("%d of %d random scenarios agree, %s", len(scenarios)-failed, len(scenarios), tally(scenarios))
}

// mostShrunk is how many scenarios are made short: one takes some boots.
const mostShrunk = 1

func chosenSeeds() (all []uint64) {
	if *seed != 0 {
		return []uint64{*seed}
	}
	from := max(*first, 1)
	if *anySeeds && *first == 0 {
		from = rand.Uint64N(1e9)
	}
	for i := range *seeds {
		all = append(all, from+uint64(i))
	}
	return all
}

// tally says what was played.
func tally(scenarios []*scenario.Scenario) string {
	packets, readOuts := 0, 0
	for _, s := range scenarios {
		for _, step := range s.Steps {
			if step.Verb == scenario.Send {
				packets += len(step.Words)
			}
			if step.Reads() {
				readOuts++
			}
		}
	}
	return fmt.Sprintf("%s to %s: %d packets, %d answers", scenarios[0].Name, scenarios[len(scenarios)-1].Name, packets, readOuts)
}

// features finds out what the director can do.
func (d *director) features(t *testing.T) random.Features {
	m := machine{d}
	accepts := func(commands ...string) bool {
		mustDo(t, "reset", d.reset())
		for _, command := range commands {
			result, err := m.Ipvsadm(strings.Fields(command), "")
			mustDo(t, "try ipvsadm", err)
			if result.Status != 0 || result.Stderr != "" {
				return false
			}
		}
		return true
	}
	return random.Probe(accepts, func(setting string) bool {
		name, value, _ := strings.Cut(setting, "=")
		err := m.Sysctl(name, value)
		mustDo(t, "reset", d.reset())
		return err == nil
	})
}

// A pair is the two that are compared.
type pair struct {
	kernel   *kernel.Kernel
	director *director
}

// play returns for each scenario how the two differ, or nil.
func (p pair) play(ctx context.Context, scenarios []*scenario.Scenario) ([]error, error) {
	want, err := p.kernel.Play(ctx, scenarios)
	if err != nil {
		return nil, err
	}
	var differences []error
	for i, s := range scenarios {
		got, err := p.director.play(s)
		if err == nil {
			scenario.ForgetOwnAnswers(want[i], got)
			err = scenario.Differ(want[i], got, "kernel", "fairlead")
		}
		differences = append(differences, err)
	}
	return differences, nil
}

// upTo returns a scenario up to the step in which there is a difference.
func upTo(s *scenario.Scenario, difference error) *scenario.Scenario {
	short := s.Clone()
	if d := (*scenario.Difference)(nil); errors.As(difference, &d) {
		short.Steps = short.Steps[:d.Index+1]
	}
	return short
}

// report makes a scenario short and tells it, and how the two differ on it.
func (p pair) report(ctx context.Context, s *scenario.Scenario) string {
	shortest, err := random.Shrink(s, func(candidates []*scenario.Scenario) ([]bool, error) {
		differences, err := p.play(ctx, candidates)
		differs := make([]bool, len(differences))
		for i, difference := range differences {
			differs[i] = difference != nil
		}
		return differs, err
	})
	if err != nil {
		return fmt.Sprintf("make %s short: %v", s.Name, err)
	}
	shortest = random.Tidy(shortest)
	differences, err := p.play(ctx, []*scenario.Scenario{shortest})
	if err != nil {
		return fmt.Sprintf("play %s once more: %v", s.Name, err)
	}
	return fmt.Sprintf("%v\nrepeat it with: make oracle SEED=%s; the shortest that differs:\n%s",
		differences[0], strings.TrimPrefix(s.Name, "seed "), shortest)
}
