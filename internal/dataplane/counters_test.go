package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Counters that are read all at once are those that are read one by one.
func TestManyCountersAreRead(t *testing.T) {
	p := newTestPlane(t)
	svc := tcpService("192.0.2.10:80", lvs.RoundRobin)
	mustAddService(t, p, svc)
	for i := range manyServers + 1 {
		mustAddServer(t, p, svc, fmt.Sprintf("198.51.100.%d:80", i+1), 1)
	}
	for i := range manyServers {
		wantVerdict(t, p, tcpFrame(fmt.Sprintf("203.0.113.5:%d", 1024+i), "192.0.2.10:80", "S"), "forward", xdpTX)
	}
	if err := p.Zero(svc.ServiceKey); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * manyServers {
		wantVerdict(t, p, tcpFrame(fmt.Sprintf("203.0.113.6:%d", 1024+i), "192.0.2.10:80", "S"), "forward", xdpTX)
	}
	services := mustServices(t, p)
	if got := services[0].Counters.Connections; got != 3*manyServers {
		t.Errorf("%d connections, want %d", got, 3*manyServers)
	}
	one, err := p.serviceStatus(p.services[svc.ServiceKey], p.readOne)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one, services[0], cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-one by one +all at once:\n%s", diff)
	}
}
