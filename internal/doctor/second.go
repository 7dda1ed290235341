package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// A second director that serves too sends only some connections on: it has a
	// chance for each of so many.
	secondTries = 3
	// Nothing is proved by an answer that does not come.
	secondWithin = 50 * time.Millisecond
)

// examineSecond looks whether the real server sends the service's packets on to
// another one: a packet with no hops left then is refused. It returns whether the
// real server keeps them.
func (e *examination) examineSecond(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	if service.Protocol != lvs.TCP && service.Protocol != lvs.UDP {
		return true, nil
	}
	for range secondTries {
		c := e.begin(service, r, s, s.segment.own(r.Address, e.vips))
		c.hops = fewHops
		sentOn, err := e.isSentOn(ctx, c, service.Protocol, s)
		if err != nil {
			return false, err
		}
		if sentOn {
			e.foundSecond(ctx, service, r, s, fmt.Sprintf("%s sends packets for %s on to another host", e.realServer(ctx, r), service.Address))
			return false, nil
		}
	}
	return true, nil
}

// isSentOn reports whether what begins the connection would be sent on.
func (e *examination) isSentOn(ctx context.Context, c connection, protocol lvs.Protocol, s server) (bool, error) {
	build := c.datagram
	if protocol == lvs.TCP {
		build = c.syn
	}
	frame, err := build()
	if err != nil {
		return false, err
	}
	if err := s.segment.forget(ctx); err != nil {
		return false, err
	}
	sentOn := false
	_, err = s.segment.ask(ctx, frame, 1, secondWithin, func(frame []byte) bool {
		m, isICMP := readMessage(frame)
		about := isICMP && c.isAbout(m)
		sentOn = about && m.answer == hopsExceeded
		return about || c.isOf(journey.Decode(frame))
	})
	if err != nil || sentOn || protocol != lvs.TCP {
		return sentOn, err
	}
	return false, e.end(ctx, c, s)
}

// serverOf returns the other real server that has the MAC address.
func (e *examination) serverOf(s *segment, not lvs.RealServerStatus, mac lvs.MAC) (server, bool) {
	if mac == not.NextHop.Destination {
		return server{}, false
	}
	for _, r := range e.servers {
		if r.segment == s && r.mac == mac && r.address.Is4() == not.Address.Is4() {
			return r, true
		}
	}
	return server{}, false
}

func (e *examination) foundSecond(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server, what string) {
	host := e.realServer(ctx, r)
	director := e.director(s.segment, r.Address)
	e.found(Finding{
		Check: SecondDirector, Level: Error, Service: service.ServiceKey.String(), Host: host,
		What: what,
		Why: "a director runs there with the same virtual service, and schedules again what this one has forwarded to it: " +
			"weights and counts are wrong, and two directors may send a packet to and fro",
		Mend: []Remedy{{host, "fairlead peer add " + director.Address.String()}},
	})
}
