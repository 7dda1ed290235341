package dataplane

import (
	"errors"
	"slices"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestOrderServers(t *testing.T) {
	p := newTestPlane(t)
	svc := tcpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, svc)
	var order []lvs.RealServerKey
	for _, address := range []string{"192.0.2.11:80", "192.0.2.12:80", "192.0.2.13:80"} {
		order = append(order, mustAddServer(t, p, svc, address, 1).RealServerKey)
	}
	mustRun(t, p, tcpFrame(clientOf(1), vip4, "S"))
	before := tell(t, p).Services[0]
	order[0], order[1] = order[1], order[0] // 12, 11, 13; it was 13, 12, 11
	if err := p.OrderServers(svc.ServiceKey, order); err != nil {
		t.Fatal(err)
	}
	after := tell(t, p).Services[0]
	var got []lvs.RealServerKey
	for _, rs := range after.Servers {
		got = append(got, rs.RealServerKey)
		at := slices.IndexFunc(before.Servers, func(s lvs.RealServerStatus) bool { return s.RealServerKey == rs.RealServerKey })
		if was := before.Servers[at]; was != rs {
			t.Errorf("%+v was %+v", rs, was)
		}
	}
	if !slices.Equal(got, order) || after.Counters != before.Counters {
		t.Errorf("order %v, want %v; counters %v, were %v", got, order, after.Counters, before.Counters)
	}
	for i, want := range order {
		client := clientOf(10 + i)
		mustRun(t, p, tcpFrame(client, vip4, "S"))
		for c := range p.Connections() {
			if c.Client.String() == client && c.Server.String() != want.String() {
				t.Errorf("connection %d went to %s, want %s", i, c.Server, want)
			}
		}
	}
	for _, test := range []struct {
		order  []lvs.RealServerKey
		reason error
	}{
		{order[:2], lvs.ErrInvalid},
		{[]lvs.RealServerKey{order[0], order[1], order[1]}, lvs.ErrInvalid},
		{[]lvs.RealServerKey{order[0], order[1], {Address: order[0].Address, Port: 81}}, lvs.ErrNoServer},
	} {
		if err := p.OrderServers(svc.ServiceKey, test.order); !errors.Is(err, test.reason) {
			t.Errorf("%v: %v, want %v", test.order, err, test.reason)
		}
	}
	if err := p.OrderServers(tcpService(vip6, lvs.RoundRobin).ServiceKey, nil); !errors.Is(err, lvs.ErrNoService) {
		t.Errorf("no service: %v", err)
	}
}
