package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// How often a datagram is sent that a closed port refuses, and how long that may
// take each time.
const (
	refusalTries  = 2
	refusalWithin = 150 * time.Millisecond
)

// examineSilentPath examines what a handshake would tell: whether the real server
// accepts packets for the VIP, and whether somebody listens. An answer to an echo
// request for the VIP proves the VIP, and so does a refused datagram to a port
// where nobody listens; one to the service's port proves that nobody serves. A
// service that does not answer is not blamed. It returns whether the VIP is proved,
// and the service not refused.
func (e *examination) examineSilentPath(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	source := s.segment.own(r.Address, e.vips)
	if service.Protocol == lvs.UDP && service.Port != 0 {
		refused, err := e.isRefused(ctx, e.begin(service, r, s, source), s)
		if err != nil {
			return false, err
		}
		if refused {
			e.foundClosed(ctx, service, r, fmt.Sprintf("ss -lun sport = :%d", service.Port))
			return false, nil
		}
	}
	if has, err := s.segment.echo(ctx, r.NextHop.Destination, source, service.Address, 0); has || err != nil {
		return has, err
	}
	elsewhere := e.begin(service, r, s, source)
	elsewhere.server = netip.AddrPortFrom(service.Address, rarePort())
	if has, err := e.isRefused(ctx, elsewhere, s); has || err != nil {
		return has, err
	}
	// One that answers no echo request at all may have the VIP.
	answers, err := s.segment.echo(ctx, r.NextHop.Destination, source, r.Address, 0)
	if err != nil {
		return false, err
	}
	if answers {
		e.foundNoVIP(ctx, service, r)
	} else {
		e.foundSilence(ctx, service, r)
	}
	return false, nil
}

// isRefused reports whether an empty datagram is refused because nobody listens.
func (e *examination) isRefused(ctx context.Context, c connection, s server) (bool, error) {
	frame, err := c.datagram()
	if err != nil {
		return false, err
	}
	if err := s.segment.forget(ctx); err != nil {
		return false, err
	}
	refused := false
	_, err = s.segment.ask(ctx, frame, refusalTries, refusalWithin, func(frame []byte) bool {
		m, isICMP := readMessage(frame)
		refused = isICMP && m.answer == portUnreachable && m.source == c.server.Addr() && c.isAbout(m)
		return refused || c.isOf(journey.Decode(frame))
	})
	return refused, err
}

// foundSilence is no more than a note: nothing is known to be wrong.
func (e *examination) foundSilence(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus) {
	host := e.realServer(ctx, r)
	e.found(Finding{
		Check: Unproved, Level: Healthy, Service: service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("%s answers no echo request, and a service of %s proves nothing by its silence: whether it accepts packets for %s is not known",
			host, service.Protocol, service.Address),
		Why:  "direct routing leaves the VIP as the destination address: a host that has it on no interface throws the packets away",
		Mend: []Remedy{{host, "fairlead realserver check --vip " + service.Address.String()}},
	})
}
