package ipvsadm

import (
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// FullNAT is not in IPVS: its options say themselves what they are of, it is listed by its name,
// and what is saved restores it.
func TestFullNAT(t *testing.T) {
	d := newFakeDirector()
	mustRun(t, d, "-A", "-t", "192.0.2.10:80", "-s", "rr")
	mustRun(t, d, "-a", "-t", "192.0.2.10:80", "-r", "198.51.100.11:8080", "--fullnat", "--toa")
	mustRun(t, d, "-a", "-t", "192.0.2.10:80", "-r", "198.51.100.12", "--fullnat", "-w", "3")
	servers := d.services[0].Servers // the last one added first
	if len(servers) != 2 || servers[1].Method != lvs.FullNAT || !servers[1].TOA || servers[1].Port != 8080 ||
		servers[0].Method != lvs.FullNAT || servers[0].TOA || servers[0].Port != 80 || servers[0].Weight != 3 {
		t.Errorf("servers %+v", servers)
	}
	for _, want := range []string{"198.51.100.11:8080           FullNat 1 ", "198.51.100.12:80             FullNat 3 "} {
		if out := mustRun(t, d, "-L", "-n"); !strings.Contains(out.Stdout, want) {
			t.Errorf("-L -n has not %q:\n%s", want, out.Stdout)
		}
	}
	saved := mustRun(t, d, "-S", "-n")
	for _, want := range []string{"-r 198.51.100.11:8080 --fullnat -w 1 --toa\n", "-r 198.51.100.12:80 --fullnat -w 3\n"} {
		if !strings.Contains(saved.Stdout, want) {
			t.Errorf("-S -n has not %q:\n%s", want, saved.Stdout)
		}
	}
	other := newFakeDirector()
	if out := play(t.Context(), other, testNames{}, []string{"-R"}, saved.Stdout); out.Status != statusOK {
		t.Errorf("-R: %+v", out)
	}
	if again := mustRun(t, other, "-S", "-n"); again.Stdout != saved.Stdout {
		t.Errorf("saved\n%s, and restored\n%s", saved.Stdout, again.Stdout)
	}
	mustRun(t, d, "-e", "-t", "192.0.2.10:80", "-r", "198.51.100.11:8080", "-m")
	if s := d.services[0].Servers[1]; s.Method != lvs.Masquerading || s.TOA {
		t.Errorf("edited to %+v", s)
	}
	for _, args := range []string{"-m --toa", "--toa", "--fullnat -m", "--fullnat -g"} {
		line := append([]string{"-a", "-t", "192.0.2.10:80", "-r", "198.51.100.13:80"}, strings.Fields(args)...)
		if out := play(t.Context(), d, testNames{}, line, ""); out.Status == statusOK {
			t.Errorf("%s is not refused: %+v", args, out)
		}
	}
}
