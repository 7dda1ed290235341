package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// What is explained of translated packets is what becomes of them: the first one of a
// connection, whose replies' entry lies elsewhere in the table, and the ones after it.
func TestExplainTranslated(t *testing.T) {
	for name, build := range map[string]func(t *testing.T) *Plane{
		"masquerading": func(t *testing.T) *Plane { return masqueradedPlane(t) },
		"fullnat":      func(t *testing.T) *Plane { return fullNATPlane(t, false) },
		"toa":          func(t *testing.T) *Plane { return fullNATPlane(t, true) },
		"persistent":   persistentFullNATPlane,
	} {
		t.Run(name, func(t *testing.T) {
			p := build(t)
			for _, m := range masqueradings {
				for _, flags := range []string{"S", "A"} {
					for port := range 6 {
						wantExplained(t, p, tcpFrame(fmt.Sprintf("%s:%d", host(m.client), 1024+port), m.vip, flags))
					}
				}
			}
		})
	}
}

func host(end string) string { return end[:len(end)-len(":1024")] }

func persistentFullNATPlane(t *testing.T) *Plane {
	p := fullNATPlane(t, false)
	for _, m := range masqueradings {
		svc := tcpService(m.vip, lvs.RoundRobin)
		svc.PersistenceTimeout, svc.PersistenceMask = 5*time.Minute, lvs.FullPersistenceMask(svc.Address)
		if err := p.EditService(svc); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// wantExplained explains a frame, and compares that with what becomes of it.
func wantExplained(t *testing.T, p *Plane, frame []byte) {
	t.Helper()
	e, err := p.Explain(frame, testIfindex)
	if err != nil {
		t.Fatal(err)
	}
	out := wantVerdict(t, p, frame, e.Verdict, xdpTX)
	if e.Verdict != "forward" {
		return
	}
	got := readFrame(out)
	got.InterfaceIndex = testIfindex
	if e.Out == nil || *e.Out != got {
		t.Errorf("explained %+v, sent %+v", e.Out, got)
	}
	from, to := ends(out)
	if e.After == nil || e.After.Server.String() != to || (e.After.Local.IsValid() && e.After.Local.String() != from) {
		t.Errorf("explained %+v, sent from %s to %s", e.After, from, to)
	}
	if e.After != nil && e.After.Local.IsValid() == (from == e.After.Client.String()) {
		t.Errorf("explained from %s, sent from %s", e.After.Local, from)
	}
}

// A trace tells a FullNAT client's local address as it went by.
func TestTraceFullNAT(t *testing.T) {
	p := fullNATPlane(t, true)
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			tr := mustTrace(t, p, lvs.TraceFilter{})
			defer tr.stop()
			local := ""
			for _, flags := range []string{"S", "A", "A"} {
				_, out, told := tr.run(tcpFrame(m.client, m.vip, flags))
				if local, _ = ends(out); told == nil || told.After == nil || told.After.Local.String() != local {
					t.Errorf("told %+v of a packet from %s", told, local)
				}
			}
			reply := fromServer(tcpFrame(m.server, local, "A"), m.server)
			if _, _, told := tr.run(reply); told == nil || told.Before == nil || told.Before.Local.String() != local || told.Before.Client.String() != m.client {
				t.Errorf("told %+v of a reply to %s", told, local)
			}
		})
	}
}

// That the pool has no port left is explained, too, and that one comes back.
func TestExplainWithoutLocalPort(t *testing.T) {
	p := newTestPlane(t)
	m := masqueradings["ipv4"]
	mustTranslate(t, p, tcpService(m.vip, lvs.RoundRobin), m.server, lvs.FullNAT, false)
	setLocals(t, p, localAddress("198.51.100.160/32", 3))
	for port, want := range []string{"forward", "forward", "forward", "answer-no-local-port"} {
		frame := tcpFrame(fmt.Sprintf("203.0.113.5:%d", 1024+port), m.vip, "S")
		e, err := p.Explain(frame, testIfindex)
		if err != nil || e.Verdict != want || e.Choice.By != lvs.ChosenByScheduler {
			t.Errorf("connection %d: %s, %v, %v, want %s", port, e.Verdict, e.Choice, err, want)
		}
		wantExplained(t, p, frame)
	}
}
