package dataplane

import (
	"fmt"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Neither a quiesced nor a full server is usable; a packet of a connection that
// is there needs no usable one.
func TestUnusableServers(t *testing.T) {
	p := newTestPlane(t)
	for _, change := range []struct {
		name string
		make func(rs *lvs.RealServer)
	}{
		{"weight 0", func(rs *lvs.RealServer) { rs.Weight = 0 }},
		{"upper threshold", func(rs *lvs.RealServer) { rs.UpperThreshold = 1 }},
	} {
		for _, scheduler := range implementedSchedulers() {
			if hasCache(scheduler) && change.name != "weight 0" {
				continue // they don't ask a remembered server how full it is (ip_vs_lblc.c)
			}
			t.Run(fmt.Sprintf("%s/%s", change.name, scheduler), func(t *testing.T) {
				defer reset(t, p)
				svc := tcpService(vip4, scheduler)
				mustAddService(t, p, svc)
				rs := mustAddServer(t, p, svc, server4, 1)
				if rs.UpperThreshold = 0; change.name != "weight 0" {
					change.make(&rs)
					mustEditServer(t, p, svc, rs)
				}
				wantVerdict(t, p, tcpFrame(client4, vip4, "S"), "forward", xdpTX)
				change.make(&rs)
				mustEditServer(t, p, svc, rs)
				other := "203.0.113.6:40000"
				wantVerdict(t, p, tcpFrame(other, vip4, "S"), "answer-no-server", xdpTX)
				wantVerdict(t, p, tcpFrame(client4, vip4, "A"), "forward", xdpTX)
			})
		}
	}
}

func implementedSchedulers() []lvs.Scheduler {
	var names []lvs.Scheduler
	for _, name := range lvs.Schedulers() {
		if HasScheduler(name) {
			names = append(names, name)
		}
	}
	return names
}

func mustEditServer(t testing.TB, p *Plane, svc lvs.Service, rs lvs.RealServer) {
	t.Helper()
	if err := p.EditServer(svc.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
}
