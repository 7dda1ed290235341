package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// Each fault is a failure of real traffic; the doctor names it, its host and
// nothing else; and its commands mend it: over both families, and with the client
// on the segment as well as behind a router.
func TestFaultsAreShownFoundMended(t *testing.T) {
	t.Parallel()
	for _, fault := range lab.Faults() {
		for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
			if _, err := fault.With(lab.Config{Servers: 2, Method: fault.Method}, family); err != nil {
				continue // TestBreakRefuses has the reason
			}
			for _, topology := range []lab.Topology{lab.Flat, lab.Routed} {
				t.Run(fmt.Sprintf("%s/IPv%d/%s", fault.Name, family, topology), func(t *testing.T) {
					t.Parallel() // most of it is waiting for what does not come
					checkFault(t, fault, family, topology)
				})
			}
		}
	}
}

func checkFault(t *testing.T, fault lab.Fault, family lab.Family, topology lab.Topology) {
	t.Helper()
	args := []string{"lab", "--break", fault.Name, "--family", fmt.Sprint(int(family)), "--topology", string(topology), "-o", "json"}
	if fault.Method != "" {
		args = append(args, "--method", string(fault.Method))
	}
	c := newCommand(t, labDirectory(t), args...)
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
	checkHarm(t, fault, got.Broken)
	// A SYN that came before the director's next hop is sent again.
	after := got.After
	if after.Sent == 0 || after.Answered != after.Sent || after.Uploaded != after.Uploads || len(after.ByServer) != 2 || after.Rescheduled != 0 || len(after.SentTo) != 1 || after.SentTo[lab.Director] < after.Sent {
		t.Errorf("after mending: %s", after)
	}
	edge := lab.Client
	if topology == lab.Routed {
		edge = lab.Router
	}
	if after.LearntBy != edge || after.Learnt != lab.Director || after.Switch[lab.Director] != lab.Director || after.Switch[edge] != edge {
		t.Errorf("what was learnt after mending: %s", after)
	}
}

// checkHarm wants those faults that harm only some of the traffic to harm no other.
func checkHarm(t *testing.T, fault lab.Fault, broken lab.Observation) {
	t.Helper()
	switch fault.Name {
	case "mtu":
		if broken.Answered != broken.Sent || broken.Uploaded == broken.Uploads {
			t.Errorf("want small requests answered, and large ones not: %s", broken)
		}
	case "rp-filter", "no-vip", "wrong-mac":
		if broken.ByServer["rs1"] > 0 || broken.ByServer["rs2"] == 0 || broken.SentTo[lab.Director] < broken.Sent {
			t.Errorf("want answers of rs2 alone: %s", broken)
		}
	case "proxy-arp":
		if broken.SentTo[lab.Bystander] == 0 || broken.Claimed[lab.Bystander] == 0 {
			t.Errorf("want requests to go to the bystander: %s", broken)
		}
	case "director-as-real-server":
		if broken.Rescheduled == 0 || broken.Answered != broken.Sent || broken.ByServer["rs1"] > 0 {
			t.Errorf("want all answered by rs2, after two directors: %s", broken)
		}
	}
}

// What can't be, or can't be shown, is refused with the reason, in one line.
func TestBreakRefuses(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--break no-such-fault", "there are arp-ignore, "},
		{"--break arp-ignore --family 6", "neighbour solicitations only for addresses of the interface"},
		{"--break arp-announce --family 6", "source of a neighbour solicitation"},
		{"--break vip-before-sysctl --family 6", "no settings"},
		{"--break rp-filter --family 6", "no rp_filter"},
		{"--break director-as-real-server --servers 1", "takes 2 real servers"},
		{"--break no-vip --pcap lab.pcapng", "--pcap"},
		{"--break no-vip --topology ring", "flat or routed"},
		{"--break no-route-back", "one of --method nat"},
		{"--break no-vip --method nat", "one of --method dr"},
	} {
		c := newCommand(t, t.TempDir(), append([]string{"lab"}, strings.Fields(test.args)...)...)
		status := exitStatus(t, c.Run())
		if said := c.stderr.String(); status != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, test.want) {
			t.Errorf("%s: status %d, want 1 and one line with %q: %s", test.args, status, test.want, said)
		}
	}
}
