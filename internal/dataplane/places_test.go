package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Services come and go in any order, with places as crowded as they get: the data
// plane finds those that are there, and no other; and once all are gone, no search
// is longer than on the first day.
func TestServicePlaces(t *testing.T) {
	const steps, crowd = 6_000, 3_500
	p, rng := newTestPlane(t), random(t)
	p.settings().IcmpInterval = 0
	added := map[int]bool{}
	var order []int
	check := func(i int) {
		vip := netip.AddrPortFrom(numbered(i), 80).String()
		verdict, action := "pass-no-service", uint32(xdpPass)
		switch {
		case added[i]:
			verdict, action = "answer-no-server", xdpTX
		case len(order) == 0:
			verdict = "pass-no-services"
		}
		wantVerdict(t, p, tcpFrame(client4, vip, "S"), verdict, action)
	}
	for step := range steps {
		switch {
		case len(order) < crowd && step < crowd || len(order) < int(directorLimitMAX_SERVICES) && rng.IntN(2) == 0:
			i := rng.IntN(1 << 16)
			if added[i] {
				continue
			}
			mustAddService(t, p, numberedService(i))
			added[i] = true
			order = append(order, i)
		default:
			at := rng.IntN(len(order))
			i := order[at]
			if err := p.DeleteService(numberedService(i).ServiceKey); err != nil {
				t.Fatal(err)
			}
			delete(added, i)
			order[at] = order[len(order)-1]
			order = order[:len(order)-1]
			check(i)
		}
		if step%8 == 0 && len(order) > 0 {
			check(order[rng.IntN(len(order))])
		}
	}
	for _, i := range order {
		check(i)
	}
	for _, i := range order {
		if err := p.DeleteService(numberedService(i).ServiceKey); err != nil {
			t.Fatal(err)
		}
	}
	for at, place := range p.view.places.elements {
		if place.Service != 0 {
			t.Fatalf("no service is left, but place %d holds %#x", at, place.Service)
		}
	}
}

// More services than there is room for on one way: the one too many is refused.
func TestServiceWithoutPlace(t *testing.T) {
	p := newTestPlane(t)
	svc := numberedService(1)
	home := p.homeOf(toServiceKey(svc.ServiceKey))
	for i := range serviceProbes {
		p.view.places.elements[(home+i)%servicePlaces].Service = uint32(directorLimitMAX_SERVICES)
	}
	free := len(p.free.services)
	if err := p.AddService(svc); !errors.Is(err, lvs.ErrTableFull) {
		t.Errorf("add a service: %v, want ErrTableFull", err)
	}
	if len(p.free.services) != free {
		t.Errorf("%d free slots after a refusal, %d before", len(p.free.services), free)
	}
}
