package director

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/savefile"
)

// A file that is refused, by whichever part, changes nothing and is told where; one that is
// taken is what the director has then.
func FuzzApply(f *testing.F) {
	reference, err := os.ReadFile("../../examples/fairlead.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(reference))
	for _, text := range []string{
		"", "services: [{address: tcp:192.0.2.100:80, scheduler: wlc, servers: [192.0.2.11, {address: 192.0.2.12, weight: 7}]}]",
		"services: [{address: tcp:192.0.2.100:80, servers: [192.0.2.1]}]", "services: [{address: fwmark:7, checks: [tcp], servers: [192.0.2.1]}]",
		"services: [{address: udp:192.0.2.100:0, servers: [192.0.2.11]}]", "services: [{address: tcp:192.0.2.100:80, checks: [tcp], sorry-server: 192.0.2.11, servers: [192.0.2.11]}]",
		"services: [{address: \"tcp:[2001:db8::1]:80\", servers: [2001:db8::2, {address: 192.0.2.3, method: tunnel}]}]",
		"peers: [192.0.2.1]", "sysctls: {drop_packet: 5}", "marks: [{mark: 1, protocol: icmp}]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := newBench(t, newMemoryPlane())
		defer func() { b.must(t, b.closeChecks()) }()
		b.config.revision = revisions{dir: t.TempDir()}
		b.must(t, b.AddService(t.Context(), wlc(vip)), b.AddServer(t.Context(), vip, routed("192.0.2.11", 80)))
		before := mustState(t, b)
		// Without it being carried out: checks would be made of what the fuzzer thinks of.
		_, err := b.Apply(t.Context(), api.ApplyRequest{Name: "x.yaml", Text: []byte(text), Prune: true, DryRun: true})
		if diff := cmp.Diff(before, mustState(t, b), sameState); diff != "" {
			t.Fatalf("it has changed something (-before +after):\n%s", diff)
		}
		if err != nil {
			if !placed.MatchString(err.Error()) {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		if strings.Contains(text, "checks") {
			return
		}
		applied, err := b.Apply(t.Context(), api.ApplyRequest{Name: "x.yaml", Text: []byte(text), Prune: true})
		if err != nil || len(applied.Drift) > 0 {
			t.Fatalf("what a dry run has taken: %v, drift %v", err, applied.Drift)
		}
		again, err := b.Apply(t.Context(), api.ApplyRequest{Name: "x.yaml", Text: []byte(text), Prune: true, DryRun: true})
		if err != nil || len(again.Changes) > 0 {
			t.Fatalf("the same again: %v, %v", err, again.Changes)
		}
	})
}

// The same for what `fairlead restore` reads.
func FuzzRestore(f *testing.F) {
	for _, text := range []string{
		"fairlead-save 1\nsysctl drop_entry 1\nservice tcp:192.0.2.100:80 scheduler rr\nserver 192.0.2.12:80 method route weight 1\n",
		"fairlead-save 1\nservice fwmark:7 scheduler mh flags mh-port persistent 300\nserver 192.0.2.12:0 method masq weight 1\n",
		`{"version": 1, "services": [{"service": "tcp:192.0.2.100:80", "scheduler": "rr", "servers": [{"address": "192.0.2.1:80", "method": "route", "weight": 1}]}]}`,
		"fairlead-save 1\npeer 192.0.2.1\nmark 7 tcp from 192.0.2.0/24\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := savefile.Read(strings.NewReader(text))
		if err != nil {
			return // FuzzRead has that
		}
		b := newBench(t, newMemoryPlane())
		b.must(t, b.AddService(t.Context(), wlc(vip)), b.AddServer(t.Context(), vip, routed("192.0.2.11", 80)))
		before := mustState(t, b)
		if _, err := b.Restore(t.Context(), file.State, false); err != nil {
			if file.Where(err) == "" {
				t.Errorf("a refusal without a place: %v", err)
			}
			if diff := cmp.Diff(before, mustState(t, b), sameState); diff != "" {
				t.Errorf("it has changed something (-before +after):\n%s", diff)
			}
			return
		}
		if changes, err := b.Restore(t.Context(), file.State, true); err != nil || len(changes) > 0 {
			t.Errorf("the same again: %v, %v", err, changes)
		}
	})
}

var placed = regexp.MustCompile(`^x\.yaml:[1-9][0-9]*:[1-9][0-9]*: .`)

var sameState = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func mustState(t *testing.T, b bench) lvs.State {
	t.Helper()
	state, err := b.State(t.Context())
	b.must(t, err)
	return state
}
