package doctor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// How often a SYN is sent, and how long its answer may take each time.
const (
	synTries  = 3
	synWithin = 500 * time.Millisecond
)

// examineServers takes each real server of the VIP's services by itself.
func (e *examination) examineServers(ctx context.Context, p patient) error {
	told := map[netip.Addr]bool{} // of which more services would say nothing new
	asked := map[netip.Addr]bool{}
	for _, service := range p.services {
		for _, r := range service.Servers {
			if r.Method != lvs.DirectRouting || r.NextHop.Local || told[r.Address] {
				continue
			}
			s, _ := e.server(r.Address)
			sound, err := e.examineNextHop(ctx, service, r, s)
			if err != nil {
				return fmt.Errorf("real server %s: %w", r.RealServerKey, err)
			}
			if !sound {
				told[r.Address] = true
				continue
			}
			if service.Protocol != lvs.TCP || s.gateway {
				continue
			}
			accepts, err := e.examinePath(ctx, service, r, s)
			if err != nil {
				return fmt.Errorf("real server %s: %w", r.RealServerKey, err)
			}
			if !accepts {
				told[r.Address] = true
				continue
			}
			if asked[r.Address] || !p.vip.Is4() {
				continue
			}
			asked[r.Address] = true
			if err := e.examineAnnouncement(ctx, service, r, s); err != nil {
				return fmt.Errorf("real server %s: %w", r.RealServerKey, err)
			}
		}
	}
	return nil
}

// examineNextHop looks whether the MAC address that the director sends to is the
// real server's. It returns whether there is a way to it.
func (e *examination) examineNextHop(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	host := Host{Role: RealServer, Address: r.Address}
	if s.segment == nil || !r.NextHop.Usable() {
		problem := r.NextHop.Problem
		if problem == "" {
			problem = fmt.Sprintf("the way to %s is not known yet", r.Address)
		}
		e.found(Finding{
			Check: NoNextHop, Level: Error, Service: service.ServiceKey.String(), Host: host,
			What: problem,
			Why:  "the director has no MAC address to send this real server's packets to, and drops them",
			Mend: []Remedy{{host, "ip link show up; ip address show to " + r.Address.String()}},
		})
		return false, nil
	}
	source := s.segment.own(r.Address, e.vips)
	if s.gateway || !source.IsValid() {
		return true, nil
	}
	macs, err := s.segment.answers(ctx, source, r.Address)
	if err != nil {
		return false, err
	}
	director := e.director(s.segment, r.Address)
	device := s.segment.device.Name
	switch {
	case len(macs) > 1:
		e.found(Finding{
			Check: SameAddress, Level: Error, Service: service.ServiceKey.String(), Host: host,
			What: fmt.Sprintf("%v and %v both answer for %s on %s", macs[0], macs[1], r.Address, device),
			Why:  "two hosts have this real server's address: packets go to the one that answered last",
			Mend: []Remedy{{host, "ip address show to " + r.Address.String()}},
		})
		return false, nil
	case len(macs) == 1 && !slices.Contains(macs, r.NextHop.Destination):
		e.found(Finding{
			Check: WrongMAC, Level: Error, Service: service.ServiceKey.String(), Host: director,
			What: fmt.Sprintf("the director sends the packets of real server %s to %s, and the real server says it is at %s",
				r.Address, r.NextHop.Destination, macs[0]),
			Why:  "the packets reach nobody, or another host: an entry of the director's neighbour table is wrong",
			Mend: []Remedy{{director, fmt.Sprintf("ip neighbour del %s dev %s", r.Address, device)}},
		})
		return false, nil
	}
	return true, nil
}

// begin returns a connection to the service through the real server, from a port
// that a person's client seldom has.
func (e *examination) begin(service lvs.ServiceStatus, r lvs.RealServerStatus, s server, client netip.Addr) connection {
	const firstPort, ports = 61000, 4000
	return connection{
		from: s.segment.mac, to: r.NextHop.Destination,
		client:   netip.AddrPortFrom(client, uint16(firstPort+rand.IntN(ports))),
		server:   netip.AddrPortFrom(service.Address, service.Port),
		sequence: rand.Uint32(),
	}
}

// isOf reports whether the packet is the other side's.
func (c connection) isOf(p journey.Packet) bool {
	return p.Kind == journey.TCP && p.Source == c.server.Addr() && p.SourcePort == c.server.Port() &&
		p.Destination == c.client.Addr() && p.DestinationPort == c.client.Port()
}

// examinePath sends the real server what the director forwards to it: a packet
// for the VIP. It returns whether the real server accepts it.
func (e *examination) examinePath(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	source := s.segment.own(r.Address, e.vips)
	if !source.IsValid() {
		return true, nil
	}
	c := e.begin(service, r, s, source)
	syn, err := c.syn()
	if err != nil {
		return false, err
	}
	if err := s.segment.forget(ctx); err != nil {
		return false, err
	}
	var answer journey.Packet
	answered, err := s.segment.ask(ctx, syn, synTries, synWithin, func(frame []byte) bool {
		answer = journey.Decode(frame)
		return c.isOf(answer)
	})
	if err != nil {
		return false, err
	}
	if answered && answer.Flags&journey.RST == 0 {
		return true, e.end(ctx, c, s)
	}
	host := Host{Role: RealServer, Address: r.Address, MAC: r.NextHop.Destination.String()}
	f := Finding{Level: Error, Service: service.ServiceKey.String(), Host: host}
	if answered {
		f.Check = Refused
		f.What = fmt.Sprintf("%s accepts packets for the VIP, and refuses connections to port %d of it", host, service.Port)
		f.Why = "no program listens there on the VIP: one that listens on the real server's own address only does not serve clients"
		f.Mend = []Remedy{{host, fmt.Sprintf("ss -ltn sport = :%d", service.Port)}}
	} else {
		f.Check = NoVIP
		f.What = fmt.Sprintf("%s answers no packet for %s", host, service.Address)
		f.Why = "direct routing leaves the VIP as the destination address: a host that has it on no interface throws the packets away"
		f.Mend = []Remedy{{host, setUp(service.Address)}}
		// The first may have been on its way still.
		if err := e.end(ctx, c, s); err != nil {
			return false, err
		}
	}
	e.found(f)
	return false, nil
}

// end leaves no half-open connection behind.
func (e *examination) end(ctx context.Context, c connection, s server) error {
	rst, err := c.rst()
	if err != nil {
		return err
	}
	return s.segment.send(ctx, rst)
}
