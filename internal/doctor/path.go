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
			if !isExamined(r) || told[r.Address] {
				continue
			}
			s, _ := e.server(r.Address)
			sound, err := e.examineServer(ctx, service, r, s, !asked[r.Address])
			if err != nil {
				return fmt.Errorf("real server %s: %w", r.RealServerKey, err)
			}
			told[r.Address], asked[r.Address] = !sound, true
		}
	}
	return nil
}

// examineServer returns whether all is well with the real server so far. The first
// service of a VIP and real server is examined more closely.
func (e *examination) examineServer(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server, first bool) (bool, error) {
	if !e.examineNextHop(ctx, service, r, s) {
		return false, nil
	}
	if r.Method.Translates() {
		sound, err := e.examineTranslated(ctx, service, r, s)
		if !sound || err != nil || r.Method != lvs.FullNAT {
			return sound, err
		}
		return e.examineLocals(ctx, service, r, s)
	}
	if s.gateway || !s.segment.own(r.Address, e.vips).IsValid() {
		return true, nil
	}
	examine := e.examineSilentPath
	if shakesHands(service) {
		examine = e.examinePath
	}
	if sound, err := examine(ctx, service, r, s); !sound || err != nil {
		return sound, err
	}
	if sound, err := e.examineSecond(ctx, service, r, s); !sound || err != nil {
		return sound, err
	}
	e.accepting[service.ServiceKey] = append(e.accepting[service.ServiceKey], r)
	if !first {
		return true, nil
	}
	if err := e.examineMTU(ctx, service, r, s); err != nil {
		return false, err
	}
	if shakesHands(service) {
		return true, e.examineAnnouncement(ctx, service, r, s)
	}
	return true, nil
}

// shakesHands reports whether the service answers a SYN: one of any port may have
// none that is open.
func shakesHands(service lvs.ServiceStatus) bool {
	return service.Protocol == lvs.TCP && service.Port != 0
}

// examineNextHop looks whether the MAC address that the director sends to is the
// real server's. It returns whether there is a way to it.
func (e *examination) examineNextHop(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) bool {
	if s.segment == nil || !r.NextHop.Usable() {
		e.foundNoNextHop(ctx, service, r)
		return false
	}
	device := s.segment.device.Name
	macs := s.segment.roll[r.Address]
	switch {
	case len(macs) > 1:
		host := e.host(ctx, Host{Role: RealServer, Address: r.Address})
		e.found(Finding{
			Check: SameAddress, Level: Error, Service: service.ServiceKey.String(), Host: host,
			What: fmt.Sprintf("%v and %v both answer for %s on %s", macs[0], macs[1], r.Address, device),
			Why:  "two hosts have this real server's address: packets go to the one that answered last",
			Mend: []Remedy{{host, "ip address show to " + r.Address.String()}},
		})
		return false
	case len(macs) == 1 && !slices.Contains(macs, r.NextHop.Destination):
		director := e.director(s.segment, r.Address)
		e.found(Finding{
			Check: WrongMAC, Level: Error, Service: service.ServiceKey.String(), Host: director,
			What: fmt.Sprintf("the director sends the packets of real server %s to %s, and the real server says it is at %s",
				r.Address, r.NextHop.Destination, macs[0]),
			Why:  "the packets reach nobody, or another host: an entry of the director's neighbour table is wrong",
			Mend: []Remedy{{director, fmt.Sprintf("ip neighbour del %s dev %s", r.Address, device)}},
		})
		return false
	}
	return true
}

func (e *examination) foundNoNextHop(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus) {
	host := e.host(ctx, Host{Role: RealServer, Address: r.Address})
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
}

// begin returns a connection to the service through the real server, from a port
// that a person's client seldom has; to such a port of a service of any port.
func (e *examination) begin(service lvs.ServiceStatus, r lvs.RealServerStatus, s server, client netip.Addr) connection {
	port := service.Port
	if port == 0 {
		port = rarePort()
	}
	return connection{
		from: s.segment.mac, to: r.NextHop.Destination,
		client:   netip.AddrPortFrom(client, rarePort()),
		server:   netip.AddrPortFrom(service.Address, port),
		sequence: rand.Uint32(),
		hops:     manyHops,
	}
}

func rarePort() uint16 {
	const first, count = 61000, 4000
	return uint16(first + rand.IntN(count))
}

// isOf reports whether the packet is the other side's.
func (c connection) isOf(p journey.Packet) bool {
	return (p.Kind == journey.TCP || p.Kind == journey.UDP) && p.Source == c.server.Addr() && p.SourcePort == c.server.Port() &&
		p.Destination == c.client.Addr() && p.DestinationPort == c.client.Port()
}

// examinePath sends the real server what the director forwards to it: a packet
// for the VIP. It returns whether the real server accepts it.
func (e *examination) examinePath(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	c := e.begin(service, r, s, s.segment.own(r.Address, e.vips))
	syn, err := c.syn()
	if err != nil {
		return false, err
	}
	if err := s.segment.forget(ctx); err != nil {
		return false, err
	}
	var answer journey.Packet
	answered, err := s.segment.ask(ctx, syn, synTries, synWithin, func(frame []byte) bool {
		if answer = journey.Decode(frame); !c.isOf(answer) {
			return false
		}
		e.segmentSizes[r.Address] = segmentSize(frame)
		return true
	})
	switch {
	case err != nil:
		return false, err
	case !answered:
		e.foundNoVIP(ctx, service, r)
		// The first may have been on its way still.
		return false, e.end(ctx, c, s)
	case answer.Flags&journey.RST != 0:
		e.foundClosed(ctx, service, r, fmt.Sprintf("ss -ltn sport = :%d", service.Port))
		return false, nil
	}
	if err := e.end(ctx, c, s); err != nil {
		return false, err
	}
	if other, is := e.serverOf(s.segment, r, answer.SourceMAC); is {
		e.foundSecond(ctx, service, r, s, fmt.Sprintf("%s sends packets for %s on to real server %s", e.realServer(ctx, r), service.Address, other.address))
		return false, nil
	}
	return true, nil
}

// realServer returns the real server as a host.
func (e *examination) realServer(ctx context.Context, r lvs.RealServerStatus) Host {
	return e.host(ctx, Host{Role: RealServer, Address: r.Address, MAC: r.NextHop.Destination.String()})
}

func (e *examination) foundNoVIP(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus) {
	host := e.realServer(ctx, r)
	e.found(Finding{
		Check: NoVIP, Level: Error, Service: service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("%s answers no packet for %s", host, service.Address),
		Why:  "direct routing leaves the VIP as the destination address: a host that has it on no interface throws the packets away",
		Mend: []Remedy{{host, setUp(service.Address)}},
	})
}

// foundClosed has a command that shows who listens.
func (e *examination) foundClosed(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, command string) {
	host := e.realServer(ctx, r)
	e.found(Finding{
		Check: Refused, Level: Error, Service: service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("%s accepts packets for the VIP, and refuses those for port %d of it", host, service.Port),
		Why:  "no program listens there on the VIP: one that listens on the real server's own address only does not serve clients",
		Mend: []Remedy{{host, command}},
	})
}

// end leaves no half-open connection behind.
func (e *examination) end(ctx context.Context, c connection, s server) error {
	rst, err := c.rst()
	if err != nil {
		return err
	}
	return s.segment.send(ctx, rst)
}
