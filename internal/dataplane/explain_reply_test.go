package dataplane

import (
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A reply of a masqueraded real server is explained as its connection's, and changes nothing.
func TestExplainReply(t *testing.T) {
	p := masqueradedPlane(t)
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			reply := fromServer(tcpFrame(m.server, m.client, "SA"), m.server)
			if e, err := p.Explain(reply, testIfindex); err != nil || e.Before != nil || e.Verdict != "pass-no-service" {
				t.Errorf("without a connection: %+v, %v", e, err)
			}
			wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX)
			before := shortWayCounts(t, p)
			e, err := p.Explain(reply, testIfindex)
			if err != nil {
				t.Fatal(err)
			}
			if e.Verdict != "forward-reply" || e.Choice.By != lvs.ChosenByConnection || e.Choice.Server.Address != addrOf(m.server) ||
				!strings.Contains(e.Choice.Why, m.vip) || !strings.Contains(e.Choice.Why, m.client) {
				t.Errorf("explanation %+v", e)
			}
			if e.Before == nil || e.Before.Virtual.String() != m.vip || e.After == nil || e.After.State != lvs.StateSynRecv {
				t.Errorf("connection before %+v, after %+v", e.Before, e.After)
			}
			if e.Out == nil || e.Out.SourceIP != addrOf(m.vip) || e.Out.DestinationIP != addrOf(m.client) || e.Out.Destination != clientMAC {
				t.Errorf("out: %+v", e.Out)
			}
			if e.Service == nil || e.Service.Address != addrOf(m.vip) {
				t.Errorf("service: %+v", e.Service)
			}
			if after := shortWayCounts(t, p); strings.Join(after, "\n") != strings.Join(before, "\n") {
				t.Errorf("counts changed from %v to %v", before, after)
			}
		})
	}
}
