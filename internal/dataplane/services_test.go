package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// numbered is the i-th service or real server of a test that has thousands.
func numbered(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }

func numberedServer(i int) lvs.RealServer {
	return lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: numbered(i), Port: 80},
		Method:        lvs.DirectRouting, Weight: 1 + uint32(i%7),
	}
}

func numberedService(i int) lvs.Service {
	return tcpService(netip.AddrPortFrom(numbered(i), 80).String(), lvs.RoundRobin)
}

// A service takes 4096 real servers, refuses one more without a trace, and its
// walk meets every one.
func TestMostServersOfAService(t *testing.T) {
	p := newTestPlane(t)
	svc := tcpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, svc)
	most := int(directorLimitMAX_LIST)
	for i := range most {
		if err := p.AddServer(svc.ServiceKey, numberedServer(i)); err != nil {
			t.Fatal(err)
		}
	}
	before := tell(t, p)
	if err := p.AddServer(svc.ServiceKey, numberedServer(most)); !errors.Is(err, lvs.ErrTableFull) {
		t.Errorf("one more: %v, want ErrTableFull", err)
	}
	if diff := diffPlanes(before, tell(t, p)); diff != "" {
		t.Errorf("after a refusal (-want +got):\n%s", diff)
	}
	for _, scheduler := range implementedSchedulers() {
		svc.Scheduler = scheduler
		if err := p.EditService(svc); err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, p, tcpFrame(clientOf(int(schedulers[scheduler])), vip4, "S"), "drop-no-next-hop", xdpDrop)
	}
	svc.Scheduler = lvs.LeastConnection
	if err := p.EditService(svc); err != nil {
		t.Fatal(err)
	}
	for i := range most {
		mustRun(t, p, tcpFrame(clientOf(100+i), vip4, "S"))
	}
	for _, rs := range tell(t, p).Services[0].Servers {
		if rs.Active+rs.Inactive == 0 {
			t.Errorf("%s got no connection", rs.RealServerKey)
		}
	}
	reset(t, p)
	wantAllFree(t, p)
}

// The services' table is full at 4096; what is refused leaves nothing behind, and
// room comes back.
func TestMostServices(t *testing.T) {
	p := newTestPlane(t)
	most := int(directorLimitMAX_SERVICES)
	for i := range most {
		mustAddService(t, p, numberedService(i))
	}
	for range 3 {
		if err := p.AddService(numberedService(most)); !errors.Is(err, lvs.ErrTableFull) {
			t.Errorf("one more: %v, want ErrTableFull", err)
		}
	}
	if err := p.EditService(numberedService(most)); !errors.Is(err, lvs.ErrNoService) {
		t.Errorf("edit the refused one: %v, want ErrNoService", err)
	}
	if got := p.settings().Services; got != uint32(most) {
		t.Errorf("the data plane knows of %d services, want %d", got, most)
	}
	if err := p.DeleteService(numberedService(7).ServiceKey); err != nil {
		t.Fatal(err)
	}
	mustAddService(t, p, numberedService(most))
	wantVerdict(t, p, tcpFrame(client4, netip.AddrPortFrom(numbered(7), 80).String(), "S"), "pass-no-service", xdpPass)
	wantVerdict(t, p, tcpFrame(client4, netip.AddrPortFrom(numbered(most), 80).String(), "S"), "answer-no-server", xdpTX)
	reset(t, p)
	wantAllFree(t, p)
}

// All slots of real servers in use: one more is refused, its service is as before,
// and removed servers without connections give way.
func TestMostRealServers(t *testing.T) {
	p := newTestPlane(t)
	most, services := int(directorLimitMAX_SERVERS), 8
	for i := range services {
		mustAddService(t, p, numberedService(i))
	}
	for i := range most {
		if err := p.AddServer(numberedService(i%services).ServiceKey, numberedServer(i)); err != nil {
			t.Fatal(err)
		}
	}
	key := numberedService(0).ServiceKey
	before := tell(t, p)
	if err := p.AddServer(key, numberedServer(most)); !errors.Is(err, lvs.ErrTableFull) {
		t.Errorf("one more: %v, want ErrTableFull", err)
	}
	if diff := diffPlanes(before, tell(t, p)); diff != "" {
		t.Errorf("after a refusal (-want +got):\n%s", diff)
	}
	if err := p.DeleteServer(key, numberedServer(0).RealServerKey); err != nil {
		t.Fatal(err)
	}
	if err := p.AddServer(key, numberedServer(most)); err != nil {
		t.Errorf("in place of a removed one: %v", err)
	}
}

// Thousands of changes of one service use up neither editions nor list slots, and
// each holds at once.
func TestManyChanges(t *testing.T) {
	p := newTestPlane(t)
	svc := servedBy(t, p, lvs.WeightedRoundRobin, 3)
	weights := []uint32{1, 2, 5}
	rs := tell(t, p).Services[0].Servers[0].RealServer
	for i := range 3 * int(directorLimitMAX_EDITIONS) {
		rs.Weight = weights[i%len(weights)]
		mustEditServer(t, p, svc, rs)
	}
	if got := tell(t, p).Services[0].Servers[0].Weight; got != rs.Weight {
		t.Errorf("weight %d, want %d", got, rs.Weight)
	}
	wantVerdict(t, p, tcpFrame(client4, vip4, "S"), "forward", xdpTX)
	reset(t, p)
	wantAllFree(t, p)
}

// Without room for one more list, every change is refused as a whole.
func TestRefusedChangesChangeNothing(t *testing.T) {
	p := newTestPlane(t)
	svc := servedBy(t, p, lvs.WeightedRoundRobin, 2)
	if err := p.settle(); err != nil {
		t.Fatal(err)
	}
	for len(p.free.lists.free) > 0 {
		s := p.free.lists.free[0]
		if _, err := p.free.lists.allocate(s.end - s.start); err != nil {
			t.Fatal(err)
		}
	}
	send(t, p, 0, "S", "forward")
	before := tell(t, p)
	free := len(p.free.editions)
	edited, server := svc, before.Services[0].Servers[0].RealServer
	edited.Scheduler = lvs.LeastConnection
	server.Weight = 9
	for name, err := range map[string]error{
		"add a server":     p.AddServer(svc.ServiceKey, numberedServer(1)),
		"delete a server":  p.DeleteServer(svc.ServiceKey, server.RealServerKey),
		"edit a server":    p.EditServer(svc.ServiceKey, server),
		"edit the service": p.EditService(edited),
	} {
		if !errors.Is(err, lvs.ErrTableFull) {
			t.Errorf("%s: %v, want ErrTableFull", name, err)
		}
	}
	if diff := diffPlanes(before, tell(t, p)); diff != "" {
		t.Errorf("after refusals (-want +got):\n%s", diff)
	}
	if len(p.free.editions) != free {
		t.Errorf("%d editions are free, want %d", len(p.free.editions), free)
	}
	send(t, p, 1, "S", "forward")
}

// The order of services is that in which they were added.
func TestServicesAreInOrder(t *testing.T) {
	p := newTestPlane(t)
	for _, i := range []int{5, 1, 9, 3} {
		mustAddService(t, p, numberedService(i))
	}
	if err := p.DeleteService(numberedService(1).ServiceKey); err != nil {
		t.Fatal(err)
	}
	mustAddService(t, p, numberedService(1))
	got := ""
	for _, s := range tell(t, p).Services {
		got += fmt.Sprint(s.Address.As4()[3], " ")
	}
	if want := "5 9 3 1 "; got != want {
		t.Errorf("services in the order %s, want %s", got, want)
	}
}
