package dataplane

import (
	"errors"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// While a server is drained its templates send it no connections; those that it has
// go on until they are to be ended, and then nothing is left of them.
func TestDrain(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1000)
	svc := tcpService(vip4, lvs.RoundRobin)
	svc.PersistenceTimeout, svc.PersistenceMask = 10*time.Minute, lvs.FullPersistenceMask(svc.Address)
	mustAddService(t, p, svc)
	drained := mustAddServer(t, p, svc, "198.51.100.1:80", 1)
	wantVerdict(t, p, tcpFrame("203.0.113.1:1000", vip4, "S"), "forward", xdpTX)
	wantVerdict(t, p, tcpFrame("203.0.113.1:1000", vip4, ""), "forward", xdpTX)
	mustAddServer(t, p, svc, "198.51.100.2:80", 1)
	drained.Weight = 0
	mustEditServer(t, p, svc, drained)

	// Quiesced, it still gets the client's next connection.
	wantVerdict(t, p, tcpFrame("203.0.113.1:1001", vip4, "S"), "forward", xdpTX)
	if got := serverConnections(t, p, "198.51.100.1:80"); got != 2 {
		t.Errorf("quiesced: %d connections", got)
	}
	if err := p.SetDrain(svc.ServiceKey, drained.RealServerKey, DrainTemplates); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p, tcpFrame("203.0.113.1:1002", vip4, "S"), "forward", xdpTX)
	wantVerdict(t, p, tcpFrame("203.0.113.1:1000", vip4, ""), "forward", xdpTX)
	if got := serverConnections(t, p, "198.51.100.1:80"); got != 2 {
		t.Errorf("drained: %d connections", got)
	}
	mustSweep(t, p)
	if active, inactive := countsOf(p, svc, 1); active != 1 || inactive != 1 {
		t.Errorf("drained: %d active, %d inactive", active, inactive)
	}

	if err := p.SetDrain(svc.ServiceKey, drained.RealServerKey, DrainExpire); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = reopenPlane(t, dir) // the next director ends them, too
	for range 2 {           // templates end after what they control
		mustSweep(t, p)
	}
	if active, inactive := countsOf(p, svc, 1); active+inactive != 0 {
		t.Errorf("expired: %d active, %d inactive", active, inactive)
	}
	if active, inactive := countsOf(p, svc, 0); active+inactive != 1 {
		t.Errorf("the other server: %d active, %d inactive", active, inactive)
	}
	wantVerdict(t, p, tcpFrame("203.0.113.1:1000", vip4, ""), "pass-no-connection", xdpPass)
	if err := p.SetDrain(svc.ServiceKey, drained.RealServerKey, NotDrained); err != nil || p.expiring != 0 {
		t.Errorf("%v, %d servers expire", err, p.expiring)
	}
	drained.Port++
	if err := p.SetDrain(svc.ServiceKey, drained.RealServerKey, DrainExpire); !errors.Is(err, lvs.ErrNoServer) {
		t.Errorf("no such server: %v", err)
	}
}

func countsOf(p *Plane, svc lvs.Service, position int) (active, inactive uint32) {
	rs := &p.view.servers.elements[p.services[svc.ServiceKey].servers[position]]
	return rs.Active, rs.Inactive
}

func TestStartSlowly(t *testing.T) {
	p := newTestPlane(t)
	svc := tcpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, svc)
	rs := mustAddServer(t, p, svc, "198.51.100.1:80", 1)
	ticks := func() uint32 { return p.view.servers.elements[p.services[svc.ServiceKey].servers[0]].SlowStartTicks }
	if err := p.StartSlowly(svc.ServiceKey, rs.RealServerKey, 30*time.Second); err != nil || ticks() != p.toTicks(30*time.Second) {
		t.Errorf("%v, %d ticks", err, ticks())
	}
	// What the service says comes first.
	mustSet(t, p, svc.ServiceKey, map[string]int32{"slow_start": 5})
	rs.Weight = 0
	mustEditServer(t, p, svc, rs)
	rs.Weight = 1
	mustEditServer(t, p, svc, rs)
	if err := p.StartSlowly(svc.ServiceKey, rs.RealServerKey, 30*time.Second); err != nil || ticks() != p.toTicks(5*time.Second) {
		t.Errorf("%v, %d ticks", err, ticks())
	}
}
