package doctor

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// examineMTU looks whether the largest packets that the director forwards reach the
// real server whole, and are answered whole: with echo requests, to the VIP or else
// to the real server's own address. One that answers none tells nothing.
func (e *examination) examineMTU(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) error {
	full := r.NextHop.MTU
	if full == 0 || e.measured[r.Address] {
		return nil
	}
	source := s.segment.own(r.Address, e.vips)
	for _, target := range []netip.Addr{service.Address, r.Address} {
		fits := func(size int) (bool, error) { return s.segment.echo(ctx, r.NextHop.Destination, source, target, size) }
		answers, err := fits(smallestMTU(r.Address))
		if err != nil {
			return err
		}
		if !answers {
			continue
		}
		e.measured[r.Address] = true
		if whole, err := fits(full); whole || err != nil {
			return err
		}
		largest, err := bisect(smallestMTU(r.Address), full, fits)
		if err != nil {
			return err
		}
		// What worked in the beginning works still: it was the size.
		if answers, err = fits(largest); err == nil && answers {
			e.foundMTU(ctx, service, r, largest)
		}
		return err
	}
	return nil
}

// smallestMTU is what every path carries (RFC 1122, 3.3.3; RFC 8200, 5).
func smallestMTU(address netip.Addr) int {
	if address.Is6() {
		return 1280
	}
	return 576
}

// bisect returns the largest size that fits, when fitting does and broken does not.
func bisect(fitting, broken int, fits func(int) (bool, error)) (int, error) {
	for broken-fitting > 1 {
		middle := fitting + (broken-fitting)/2
		ok, err := fits(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			fitting = middle
		} else {
			broken = middle
		}
	}
	return fitting, nil
}

// foundMTU tells a narrow host from a narrow way to it by the segment size that the
// host asks for, which follows its own MTU.
func (e *examination) foundMTU(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, largest int) {
	host := e.realServer(ctx, r)
	full := r.NextHop.MTU
	headers := 40 // IPv4 and TCP
	if r.Address.Is6() {
		headers = 60
	}
	f := Finding{
		Check: MTU, Level: Error, Service: service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("%s takes and gives packets of %d bytes and no larger ones; the director forwards up to %d (the MTU of %s)",
			host, largest, full, r.NextHop.InterfaceName),
		Why: "small requests are answered, and large ones hang: direct routing tells a client nothing of the real server's MTU",
	}
	mtu := full
	if asked := e.segmentSizes[r.Address]; asked+headers > largest && asked != 0 {
		f.What += "; its own MTU is larger, so that a port between them is narrow"
		mtu = largest
	}
	f.Mend = []Remedy{{host, onDevicesWith(r.Address, fmt.Sprintf("ip link set dev $dev mtu %d", mtu))}}
	e.found(f)
}
