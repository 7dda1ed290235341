package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A real server that answers the director may still not answer clients. It drops
// what comes in by another interface than the one that leads back (rp_filter), or
// has no way back. Its answers don't pass the director, but what a client makes of
// them does: a client that gets an answer to a SYN that it has not sent says so with
// a RST, to the VIP. So the director's table tells which clients wait for an
// answer; a SYN in the name of such a client, as the director would forward it,
// shows whether the real server answers; and an answer from the director itself
// shows, before and after, whether the client would say so.

// A complaint is that of a client whose SYNs are not answered.
type complaint struct {
	client  netip.Addr
	service lvs.ServiceStatus
	server  lvs.RealServerStatus
	packets uint32
}

const (
	// A SYN that came again was not answered.
	unansweredPackets = 2
	// mostHeard bounds the clients of a real server that are heard.
	mostHeard = 3
)

// examineClients follows the complaints of clients about real servers that accept
// what the director sends them itself.
func (e *examination) examineClients(ctx context.Context, subject Subject) error {
	complaints, err := e.complaints(ctx, subject)
	if err != nil {
		return err
	}
	blamed := map[netip.Addr]bool{}
	heard := map[netip.Addr]int{}
	for _, c := range complaints {
		if blamed[c.server.Address] || heard[c.server.Address] == mostHeard {
			continue
		}
		heard[c.server.Address]++
		justified, err := e.follow(ctx, c)
		if err != nil {
			return fmt.Errorf("examine the way of %s: %w", c.client, err)
		}
		blamed[c.server.Address] = justified
	}
	return nil
}

// follow returns whether a complaint is justified, and has told why if it is.
func (e *examination) follow(ctx context.Context, c complaint) (bool, error) {
	switch c.server.Method {
	case lvs.Masquerading:
		return e.examineReturn(ctx, c)
	case lvs.FullNAT: // it knows no clients: see examineLocals
		return false, nil
	}
	justified, err := e.isJustified(ctx, c)
	if !justified || err != nil {
		return false, err
	}
	return true, e.examineWayBack(ctx, c)
}

// complaints returns one for each client, service and real server, the loudest
// first.
func (e *examination) complaints(ctx context.Context, subject Subject) ([]complaint, error) {
	type key struct {
		client netip.Addr
		server netip.AddrPort
	}
	found := map[key]complaint{}
	err := subject.Connections(ctx, func(c lvs.Connection) error {
		if c.Protocol != lvs.TCP || c.State != lvs.StateSynRecv || c.Packets < unansweredPackets {
			return nil
		}
		at := key{c.Client.Addr(), c.Server}
		if known, ok := found[at]; ok && known.packets >= c.Packets {
			return nil
		}
		if service, r, ok := e.accepted(c); ok {
			found[at] = complaint{c.Client.Addr(), service, r, c.Packets}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []complaint
	for _, c := range found {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b complaint) int {
		return cmp.Or(cmp.Compare(b.packets, a.packets), a.client.Compare(b.client), a.server.Address.Compare(b.server.Address))
	})
	return all, nil
}

// accepted returns the service and the real server of the connection, if that one
// was seen to accept a packet for the VIP, and nobody deceives the VIP's clients.
func (e *examination) accepted(c lvs.Connection) (lvs.ServiceStatus, lvs.RealServerStatus, bool) {
	for i, service := range e.services {
		if service.Protocol != c.Protocol || netip.AddrPortFrom(service.Address, service.Port) != c.Virtual || e.deceiving[service.Address] {
			continue
		}
		for _, r := range e.accepting[service.ServiceKey] {
			if r.Address == c.Server.Addr() {
				return e.services[i], r, true
			}
		}
	}
	return lvs.ServiceStatus{}, lvs.RealServerStatus{}, false
}

// isJustified reports whether the client answers the director, and is not answered
// by the real server.
func (e *examination) isJustified(ctx context.Context, c complaint) (bool, error) {
	there, mac, err := e.wayTo(ctx, c.client)
	if err != nil || there == nil {
		return false, err
	}
	if would, err := e.wouldComplain(ctx, c, there, mac); !would || err != nil {
		return false, err
	}
	s, _ := e.server(c.server.Address)
	if answered, err := e.isAnswered(ctx, c, s, there); answered || err != nil {
		return false, err
	}
	return e.wouldComplain(ctx, c, there, mac)
}

// wayTo returns the segment, and the MAC address there, by which the director
// reaches the client; nil if it does not know.
func (e *examination) wayTo(ctx context.Context, client netip.Addr) (*segment, lvs.MAC, error) {
	routes, err := netlink.RouteGet(client.AsSlice())
	if err != nil || len(routes) == 0 || e.segments[routes[0].LinkIndex] == nil {
		return nil, lvs.MAC{}, nil // no way is not the real server's fault
	}
	there := e.segments[routes[0].LinkIndex]
	hop := client
	if gateway, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		hop = gateway.Unmap()
	}
	for _, n := range there.neighbours() {
		if n.address == hop {
			return there, n.mac, nil
		}
	}
	source := there.own(hop, e.vips)
	if !source.IsValid() {
		return nil, lvs.MAC{}, nil
	}
	macs, err := there.answers(ctx, source, hop)
	if err != nil || len(macs) != 1 {
		return nil, lvs.MAC{}, err
	}
	return there, macs[0], nil
}

// wouldComplain reports whether the client answers what it has not asked for, and
// the answer reaches the director.
func (e *examination) wouldComplain(ctx context.Context, c complaint, there *segment, mac lvs.MAC) (bool, error) {
	stray := connection{
		from: there.mac, to: mac,
		client:   netip.AddrPortFrom(c.service.Address, c.service.Port),
		server:   netip.AddrPortFrom(c.client, rarePort()),
		sequence: rand.Uint32(), hops: manyHops,
	}
	asked := rand.Uint32()
	frame, err := stray.stray(asked)
	if err != nil {
		return false, err
	}
	if err := there.forget(ctx); err != nil {
		return false, err
	}
	return there.ask(ctx, frame, synTries, synWithin, func(frame []byte) bool {
		p := journey.Decode(frame)
		return stray.isOf(p) && p.Flags&journey.RST != 0 && p.Sequence == asked
	})
}

// isAnswered reports whether the real server answers a SYN of the client: whether
// the client refuses the answer.
func (e *examination) isAnswered(ctx context.Context, c complaint, s server, there *segment) (bool, error) {
	probe := e.begin(c.service, c.server, s, c.client)
	frame, err := probe.syn()
	if err != nil {
		return false, err
	}
	if err := there.forget(ctx); err != nil {
		return false, err
	}
	for range synTries {
		if err := s.segment.send(ctx, frame); err != nil {
			return false, err
		}
		refused, err := there.listen(ctx, synWithin, func(frame []byte) bool {
			p := journey.Decode(frame)
			return p.Kind == journey.TCP && p.Flags&journey.RST != 0 && p.Sequence == probe.sequence+1 &&
				netip.AddrPortFrom(p.Source, p.SourcePort) == probe.client && netip.AddrPortFrom(p.Destination, p.DestinationPort) == probe.server
		})
		if refused || err != nil {
			return refused, errors.Join(err, e.end(ctx, probe, s))
		}
	}
	return false, e.end(ctx, probe, s)
}

// examineWayBack tells what keeps the real server from answering the client.
func (e *examination) examineWayBack(ctx context.Context, c complaint) error {
	s, _ := e.server(c.server.Address)
	passes, err := e.passesFilter(ctx, c, s)
	if err != nil {
		return err
	}
	host := e.realServer(ctx, c.server)
	f := Finding{
		Check: RPFilter, Level: Error, Service: c.service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("%s answers the director, and does not answer client %s: its reverse path filter drops packets whose way back is another interface",
			host, c.client),
		Why: "the director sends clients' packets to one interface, and the real server's route to the client leaves by another, or there is none: " +
			"with rp_filter=1 the kernel takes that for a forged source",
		Mend: []Remedy{{host, onDevicesOf(host.MAC, "sysctl -qw net/ipv4/conf/$dev/rp_filter=2")}},
	}
	if passes {
		f.Check = NoWayBack
		f.What = fmt.Sprintf("%s answers the director, and its answers do not reach client %s", host, c.client)
		f.Why = "with direct routing the real server answers clients itself, not through the director: it needs a route to them, " +
			"by a router that takes packets from the VIP, and no packet filter in between"
		f.Mend = []Remedy{{host, fmt.Sprintf("ip route get %s from %s", c.client, c.service.Address)}}
	}
	e.found(f)
	return nil
}

// passesFilter reports whether the real server takes what comes from the client's
// address. The kernel filters ARP requests as it does packets: one in the client's
// name is answered, or not. What it teaches is of no use to anybody as long as the
// client is behind a router; a client on the segment is spared it: there is a way
// back to it, as there is one to the director. IPv6 has no such filter.
func (e *examination) passesFilter(ctx context.Context, c complaint, s server) (bool, error) {
	if c.client.Is6() {
		return true, nil
	}
	if _, isNear := s.segment.onLink(c.client); isNear {
		return false, nil
	}
	frame, err := arp(s.segment.mac, c.server.NextHop.Destination, c.client, lvs.MAC{}, c.server.Address)
	if err != nil {
		return false, err
	}
	return s.segment.ask(ctx, frame, synTries, askWithin, func(frame []byte) bool {
		p := journey.Decode(frame)
		return p.Kind == journey.ARPReply && p.Claims(c.server.Address) && p.SourceMAC == c.server.NextHop.Destination
	})
}
