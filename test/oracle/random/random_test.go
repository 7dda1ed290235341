package random

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

var everything = Probe(func(...string) bool { return true }, func(string) bool { return true })

func TestASeedAlwaysMakesTheSameScenario(t *testing.T) {
	for seed := range uint64(50) {
		if diff := cmp.Diff(New(seed, everything).String(), New(seed, everything).String()); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func TestScenariosAreCertainAndCanBeRead(t *testing.T) {
	for seed := range uint64(200) {
		s := New(seed, everything)
		if !isCertain(s) {
			t.Errorf("seed %d: a step's answer is not certain", seed)
		}
		file, err := scenario.Parse(s.String(), nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff := cmp.Diff(s.String(), file.Scenarios[0].String()); diff != "" {
			t.Errorf("seed %d: %s", seed, diff)
		}
	}
}

// TestScenariosHaveEverything fails if the generator forgets something that there
// is to try.
func TestScenariosHaveEverything(t *testing.T) {
	var all strings.Builder
	for seed := range uint64(300) {
		all.WriteString(New(seed, everything).String())
	}
	text := all.String()
	wanted := []string{
		"-A -t", "-A -u", "-A --sctp-service", "-A -f", " -6 ", "ipvsadm -E", "ipvsadm -D", "ipvsadm -d", "ipvsadm -e", "ipvsadm -a",
		"ipvsadm -Z", "ipvsadm --set", " -p ", " -M 255", " -M 64", " -o", "-w 0", " -x ", " -y ", ":0 ", "mark 7", "-b sh-fallback,sh-port",
		"-b mh-port", "--stats", "--thresholds", "--persistent-conn", "-Lnc", "-Lnc --persistent-conn", " --pe sip", "/sip=one@example.com", "/text=", "-Sn", "--timeout", "/COOKIE_ECHO", "/SFA", " -m ", ":9080 -m", " <198", " <[2001", ">203", "/icmp-too-big", "--tun-remcsum", "sysctl secure_tcp=3",
	}
	for _, s := range lvs.Schedulers() {
		if !slices.Contains(notInKernel, s) {
			wanted = append(wanted, "-s "+string(s))
		}
	}
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("no scenario of 300 has %q", want)
		}
	}
}

func TestShrink(t *testing.T) {
	s := New(7, everything)
	target := s.Steps[slices.IndexFunc(s.Steps, func(step scenario.Step) bool {
		return step.Verb == scenario.Send && len(step.Words) > 2
	})].Words[1]
	asked := 0
	shortest, err := Shrink(s, func(candidates []*scenario.Scenario) ([]bool, error) {
		asked++
		var differs []bool
		for _, c := range candidates {
			if !isCertain(c) {
				t.Errorf("asked about a scenario with an answer that is not certain:\n%s", c)
			}
			differs = append(differs, slices.ContainsFunc(c.Steps, func(step scenario.Step) bool {
				return step.Verb == scenario.Send && slices.Contains(step.Words, target)
			}))
		}
		return differs, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	shortest = Tidy(shortest)
	var verbs []scenario.Verb
	for _, step := range shortest.Steps {
		if step.Verb != scenario.Sleep {
			verbs = append(verbs, step.Verb)
		}
	}
	if want := []scenario.Verb{scenario.To, scenario.Send}; !slices.Equal(verbs, want) {
		t.Errorf("shortest of %d steps is\n%s", len(s.Steps), shortest)
	}
	if asked > 30 {
		t.Errorf("asked %d times", asked)
	}
}

func TestTimersThatMayOrMayNotHaveRunOut(t *testing.T) {
	sent := scenario.New(scenario.Send, "203.0.113.1:1024")
	for _, test := range []struct {
		after   time.Duration
		certain bool
	}{
		{50500 * time.Millisecond, true},
		{59500 * time.Millisecond, false}, // 60 s, less a margin
		{62500 * time.Millisecond, false}, // up to 5.12 s late
		{66500 * time.Millisecond, false}, // 61 s
		{67500 * time.Millisecond, true},
	} {
		s := &scenario.Scenario{Steps: []scenario.Step{
			scenario.New(scenario.To, "tcp", "192.0.2.10:80"), sent, scenario.Wait(test.after), scenario.New(scenario.Connections),
		}}
		if isCertain(s) != test.certain {
			t.Errorf("%s after a packet: certain %v", test.after, !test.certain)
		}
	}
}

func TestTidy(t *testing.T) {
	s := &scenario.Scenario{Steps: []scenario.Step{
		scenario.Wait(time.Second), scenario.New(scenario.To, "tcp", "192.0.2.10:80"), scenario.Wait(time.Second),
		scenario.New(scenario.To, "udp", "192.0.2.10:53"), scenario.New(scenario.Send, "203.0.113.1:1024"),
	}}
	want := []scenario.Step{
		scenario.Wait(2 * time.Second), scenario.New(scenario.To, "udp", "192.0.2.10:53"), scenario.New(scenario.Send, "203.0.113.1:1024"),
	}
	if diff := cmp.Diff(want, Tidy(s).Steps); diff != "" {
		t.Error(diff)
	}
}
