package e2e

import (
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// The lab shows masquerading and FullNAT: what the director translates, both ways, and that
// it is the way of every reply.
func TestDemonstrationOfMasquerading(t *testing.T) {
	for _, test := range []struct{ method, topology, family, client, seen, vip, server string }{
		{"nat", "flat", "4", "192.0.2.1", "192.0.2.1", "192.0.2.100", "192.0.2.11"},
		{"nat", "flat", "6", "2001:db8::1", "2001:db8::1", "2001:db8::100", "2001:db8::11"},
		{"nat", "routed", "4", "198.51.100.1", "198.51.100.1", "192.0.2.100", "192.0.2.11"},
		{"nat", "routed", "6", "2001:db8:1::1", "2001:db8:1::1", "2001:db8::100", "2001:db8::11"},
		{"fullnat", "flat", "4", "192.0.2.1", "192.0.2.200", "192.0.2.100", "192.0.2.11"},
		{"fullnat", "routed", "6", "2001:db8:1::1", "2001:db8::200", "2001:db8::100", "2001:db8::11"},
	} {
		t.Run(test.method+" "+test.topology+" IPv"+test.family, func(t *testing.T) {
			r := mustReport(t, "--method", test.method, "--topology", test.topology, "--family", test.family, "--servers", "1", "--requests", "12")
			for _, check := range r.Checks {
				if !check.OK {
					t.Errorf("%s: %s", check.Name, check.Detail)
				}
			}
			if r.Requests.Answered != 12 {
				t.Errorf("requests: %+v", r.Requests)
			}
			// Each request takes a SYN+ACK, an acknowledgement, an answer and the end.
			if r.RepliesThroughDirector == nil || *r.RepliesThroughDirector < 4*12 {
				t.Errorf("replies through the director: %v", r.RepliesThroughDirector)
			}
			const director = "02:00:00:00:00:10"
			checkOrder(t, r.Journey, []step{
				{At: "client", Direction: "out", What: "SYN", SrcIP: test.client, DstIP: test.vip, DstPort: 80},
				{At: "director", Direction: "out", What: "SYN", SrcMAC: director, DstHost: "rs1", SrcIP: test.seen, DstIP: test.server, DstPort: 8088},
				{At: "rs1", Direction: "out", What: "SYN+ACK", DstMAC: director, SrcIP: test.server, SrcPort: 8088, DstIP: test.seen},
				{At: "director", Direction: "out", What: "SYN+ACK", SrcMAC: director, SrcIP: test.vip, SrcPort: 80, DstIP: test.client},
				{At: "client", Direction: "in", What: "SYN+ACK", SrcIP: test.vip, SrcPort: 80, DstIP: test.client},
			})
		})
	}
}

func TestDemonstrationOfMasqueradingAsText(t *testing.T) {
	out := mustRun(t, labDirectory(t), "lab", "--method", "nat", "--servers", "1", "--requests", "6")
	for _, want := range []string{
		"*192.0.2.11:8088", "*192.0.2.100:80", "-> 192.0.2.11:8088", "Masq", "and these IP addresses and ports", "ok    replies-through-director",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report has not %q:\n%s", want, out)
		}
	}
}

// Real clients and servers through a director that translates, over links that are too narrow
// for what both begin with: with masquerading it is the real servers' router, with FullNAT
// another one is.
func TestMasquerading(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	besideEachOther(t, testTranslated, lab.Masquerading, lab.FullNAT)
}

func testTranslated(t *testing.T, method lab.Method) {
	l := mustUpAs(t, lab.Config{Name: "nat", Directory: labDirectory(t), Servers: 2, Topology: lab.Routed, Method: method})
	narrow(t, l)
	failures := serveNoiseEverywhere(t, l)
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		mustServeNarrow(t, l, family)
		for _, name := range []string{"forward-icmp", "answer-too-big"} {
			if verdictOf(t, l, name) == 0 {
				t.Errorf("IPv%d: no packet left by %s: nothing was narrow", family, name)
			}
		}
	}
	wantNone(t, failures)
}
