package dataplane

import (
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// Of the new connections, a server that starts slowly gets at most the part of the
// window that has passed, by any scheduler; and in the end what is its.
func TestSlowStart(t *testing.T) {
	const old, fresh = "198.51.100.1:80", "198.51.100.2:80"
	const window = 100 * time.Second
	const connections = 2000
	p := newTestPlane(t)
	for _, scheduler := range implementedSchedulers() {
		t.Run(string(scheduler), func(t *testing.T) {
			defer reset(t, p)
			client := 0
			svc := tcpService(vip4, scheduler)
			// The share of the new server; those connections are over afterwards.
			share := func() float64 {
				t.Helper()
				before := serverConnections(t, p, fresh)
				for range connections {
					mustRun(t, p, tcpFrame(clientOf(client), vip4, "S"))
					mustRun(t, p, tcpFrame(clientOf(client), vip4, ""))
					client++
				}
				return float64(serverConnections(t, p, fresh)-before) / connections
			}
			mustAddService(t, p, svc)
			mustAddServer(t, p, svc, old, 1)
			mustSet(t, p, svc.ServiceKey, map[string]int32{"slow_start": int32(window / time.Second)})
			rs := mustAddServer(t, p, svc, fresh, 0)
			rs.Weight = 1
			mustEditServer(t, p, svc, rs)
			first := share()
			advance(p, window/2)
			middle := share()
			advance(p, window)
			if _, err := p.Sweep(); err != nil {
				t.Fatal(err)
			}
			last := share()
			slot := p.services[svc.ServiceKey].servers[0]
			if p.view.servers.elements[slot].SlowStartTicks != 0 {
				t.Error("the window is still open")
			}
			mustSet(t, p, svc.ServiceKey, map[string]int32{"slow_start": 0})
			t.Logf("share at once %.3f, in the middle %.3f, afterwards %.3f", first, middle, last)
			if first > 0.02 {
				t.Errorf("share at once: %.3f", first)
			}
			// At most half of all; rr and wrr come back to it sooner than its turn
			// would be, the others when it has least to do.
			if middle < 0.2 || middle > 0.56 {
				t.Errorf("share in the middle: %.3f", middle)
			}
			if last < 0.46 {
				t.Errorf("share afterwards: %.3f", last)
			}
		})
	}
}

// A server that is taken over in its slow start goes on with it.
func TestSlowStartIsTakenOver(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1)
	svc := tcpService(vip4, lvs.RoundRobin)
	mustSet(t, p, lvs.ServiceKey{}, map[string]int32{"slow_start": 100})
	mustAddService(t, p, svc)
	mustAddServer(t, p, svc, server4, 1)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = reopenPlane(t, dir)
	slot := p.services[svc.ServiceKey].servers[0]
	if rs := &p.view.servers.elements[slot]; rs.SlowStartTicks == 0 || !p.slowStarts[slot] {
		t.Errorf("slow start of %+v ended with the director", rs)
	}
	advance(p, 100*time.Second)
	if _, err := p.Sweep(); err != nil {
		t.Fatal(err)
	}
	if rs := &p.view.servers.elements[slot]; rs.SlowStartTicks != 0 || p.slowStarts[slot] {
		t.Errorf("slow start of %+v has no end", rs)
	}
}

// serverConnections returns how many connections a real server was chosen for.
func serverConnections(t *testing.T, p *Plane, server string) uint64 {
	t.Helper()
	for _, svc := range tell(t, p).Services {
		for _, rs := range svc.Servers {
			if rs.RealServerKey.String() == server {
				return rs.Counters.Connections
			}
		}
	}
	t.Fatalf("no real server %s", server)
	return 0
}
