package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// Each fault is a failure of real traffic; the doctor names it, its host and
// nothing else; and its commands mend it.
func TestFaultsAreShownFoundMended(t *testing.T) {
	for _, fault := range lab.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			c := newCommand(t, labDirectory(t), "lab", "--break", fault.Name, "-o", "json")
			if status := exitStatus(t, c.Run()); status != 0 {
				t.Errorf("status %d\n%s", status, &c.stderr)
			}
			var report struct {
				Fault lab.FaultReport `json:"fault"`
				OK    bool            `json:"ok"`
			}
			if err := json.Unmarshal(c.stdout.Bytes(), &report); err != nil {
				t.Fatalf("%v\n%s", err, &c.stdout)
			}
			got := report.Fault
			if got.Name != fault.Name || !got.Shown || len(got.Found) != 1 || got.FalseFindings != 0 || !got.Mended || !report.OK {
				t.Errorf("%s", &c.stdout)
			}
			// A SYN that came before the director's next hop is sent again.
			after := got.After
			if after.Sent == 0 || after.Answered != after.Sent || len(after.SentTo) != 1 || after.SentTo[lab.Director] < after.Sent {
				t.Errorf("after mending: %s", after)
			}
		})
	}
}

func TestBreakRefuses(t *testing.T) {
	for _, args := range []string{
		"lab --break no-such-fault",
		"lab --break no-vip --family 6",
		"lab --break no-vip --pcap lab.pcapng",
	} {
		c := newCommand(t, t.TempDir(), strings.Fields(args)...)
		if status := exitStatus(t, c.Run()); status != 1 || strings.Count(c.stderr.String(), "\n") != 1 {
			t.Errorf("%s: status %d, want 1 and one line: %s", args, status, &c.stderr)
		}
	}
}
