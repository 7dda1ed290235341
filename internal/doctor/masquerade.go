package doctor

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A masqueraded real server gets packets for its own address, and answers through the
// director, which alone can make its answers those of the VIP. So its way to clients has to
// be the director. A SYN of the director's own shows whether it serves; one in the name of a
// client that waits for an answer, as the director forwards it, shows the way back: its
// answer passes the director, or it does not.

// isExamined reports whether the doctor knows what the real server's method needs.
func isExamined(r lvs.RealServerStatus) bool {
	return !r.NextHop.Local && (r.Method == lvs.DirectRouting || r.Method.Translates())
}

// at returns where a real server serves whose packets are translated.
func at(r lvs.RealServerStatus) netip.AddrPort { return netip.AddrPortFrom(r.Address, r.Port) }

// examineTranslated returns whether the real server is not known to serve nobody.
func (e *examination) examineTranslated(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	source := s.segment.own(r.Address, e.vips)
	if !shakesHands(service) || r.Port == 0 || !source.IsValid() {
		return true, nil
	}
	answer, answered, err := e.greet(ctx, r, s, source)
	switch {
	case err != nil:
		return false, err
	case answered && answer.Flags&journey.RST != 0:
		host := e.realServer(ctx, r)
		e.found(Finding{
			Check: Refused, Level: Error, Service: service.ServiceKey.String(), Host: host,
			What: fmt.Sprintf("%s refuses connections to %s", host, at(r)),
			Why:  "the director sends the service's packets to the real server's own address and port, and no program listens there",
			Mend: []Remedy{{host, fmt.Sprintf("ss -ltn sport = :%d", r.Port)}},
		})
		return false, nil
	case answered:
		e.accepting[service.ServiceKey] = append(e.accepting[service.ServiceKey], r)
	}
	// One that answers nobody is what health checks are for.
	return true, nil
}

// greet sends such a real server a SYN from an address, as the director would
// forward it, and returns the answer that passes the director.
func (e *examination) greet(ctx context.Context, r lvs.RealServerStatus, s server, from netip.Addr) (journey.Packet, bool, error) {
	c := e.begin(lvs.ServiceStatus{}, r, s, from)
	c.server = at(r)
	syn, err := c.syn()
	if err != nil {
		return journey.Packet{}, false, err
	}
	if err := s.segment.forget(ctx); err != nil {
		return journey.Packet{}, false, err
	}
	var answer journey.Packet
	answered, err := s.segment.ask(ctx, syn, synTries, synWithin, func(frame []byte) bool {
		answer = journey.Decode(frame)
		return c.isOf(answer) && answer.DestinationMAC == s.segment.mac
	})
	if err != nil || answered && answer.Flags&journey.RST != 0 {
		return answer, answered, err
	}
	return answer, answered, e.end(ctx, c, s)
}

// examineReturn follows a complaint about a masqueraded real server. It returns whether it
// is justified.
func (e *examination) examineReturn(ctx context.Context, c complaint) (bool, error) {
	s, _ := e.server(c.server.Address)
	if _, answered, err := e.greet(ctx, c.server, s, c.client); answered || err != nil {
		return false, err
	}
	host := e.realServer(ctx, c.server)
	director := s.segment.own(c.server.Address, e.vips)
	// Whoever is on the real server's segment is reached without any router.
	to := "default"
	if _, isNear := s.segment.onLink(c.client); isNear {
		to = c.client.String()
	}
	command := fmt.Sprintf("ip -%d route replace %s via %s", version(c.client), to, director)
	if s.gateway {
		command = fmt.Sprintf("ip route get %s", c.client)
	}
	e.found(Finding{
		Check: NoRouteBack, Level: Error, Service: c.service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("%s answers the director, and its answers to client %s do not come through the director", host, c.client),
		Why: "with masquerading the director turns the real server's address back into the VIP: a client that is answered past it gets packets " +
			"from an address that it has not asked, and refuses them. The real server's route to clients has to be the director",
		Mend: []Remedy{{host, command}},
	})
	return true, nil
}

func version(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}
