package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	echoTries  = 2
	echoWithin = 400 * time.Millisecond
	// mostAsked bounds how many neighbours of a segment are asked: on a segment of
	// thousands, the first by address.
	mostAsked = 64
)

// findDeceived looks for neighbours that send what is for the VIP elsewhere. One
// that answers an echo request from the director's own address and not one from
// the VIP has learnt another MAC address for the VIP: its answer went there.
func (e *examination) findDeceived(ctx context.Context, p patient) error {
	for _, s := range e.ordered() {
		source := s.own(p.vip, e.vips)
		if !source.IsValid() || !slices.ContainsFunc(s.prefixes, func(prefix netip.Prefix) bool { return prefix.Addr() == p.vip }) {
			continue
		}
		asked := map[lvs.MAC]bool{}
		for _, n := range s.neighbours() {
			// To a real server the VIP is its own address: it takes no packet from it.
			if e.isServer(s, n) || n.address.Is4() != p.vip.Is4() || slices.Contains(e.vips, n.address) || asked[n.mac] {
				continue
			}
			if asked[n.mac] = true; len(asked) > mostAsked {
				break
			}
			deceived, err := s.deceived(ctx, source, p.vip, n)
			if err == nil && deceived {
				deceived, err = s.isDeceit(ctx, source, p.vip, n)
			}
			if err != nil {
				return err
			}
			if deceived {
				e.foundDeceived(ctx, s, p.vip, n)
			}
		}
	}
	return nil
}

// isServer reports whether the neighbour is a real server, by any of its addresses.
func (e *examination) isServer(s *segment, n neighbour) bool {
	return slices.ContainsFunc(e.servers, func(r server) bool {
		return r.address == n.address || r.segment == s && (r.mac == n.mac || slices.Contains(s.roll[r.address], n.mac))
	})
}

// deceived asks from the director's own address once more at the end, so that a
// neighbour that went away meanwhile is not blamed.
func (s *segment) deceived(ctx context.Context, source, vip netip.Addr, n neighbour) (bool, error) {
	if answered, err := s.echo(ctx, n.mac, source, n.address, 0); !answered || err != nil {
		return false, err
	}
	if answered, err := s.echo(ctx, n.mac, vip, n.address, 0); answered || err != nil {
		return false, err
	}
	return s.echo(ctx, n.mac, source, n.address, 0)
}

// isDeceit reports whether a wrong MAC address is why the neighbour sends what is for
// the VIP elsewhere. A router may have its own routes, and harms only those whose
// way it is: it is to be one that the director uses too, or what is sent through it
// must reach another host that has the VIP.
func (s *segment) isDeceit(ctx context.Context, source, vip netip.Addr, n neighbour) (bool, error) {
	last := newEcho(s, n.mac, source, vip)
	last.hops = fewHops
	m, answered, err := s.exchange(ctx, last)
	if isRouter := answered && m.answer == hopsExceeded; !isRouter || err != nil || s.isGateway(n.mac) {
		return true, err
	}
	return s.echo(ctx, n.mac, source, vip, 0)
}

// isGateway reports whether the director has a route by the host.
func (s *segment) isGateway(mac lvs.MAC) bool {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: s.device.Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return false
	}
	known := s.neighbours()
	return slices.ContainsFunc(routes, func(route netlink.Route) bool {
		gateway, _ := netip.AddrFromSlice(route.Gw)
		return slices.Contains(known, neighbour{gateway.Unmap(), mac})
	})
}

// echo reports whether the host answers an echo request of that size, 0 for the
// smallest, with an answer of the same.
func (s *segment) echo(ctx context.Context, to lvs.MAC, source, destination netip.Addr, size int) (bool, error) {
	request := newEcho(s, to, source, destination)
	request.size = size
	m, answered, err := s.exchange(ctx, request)
	return answered && m.answer == echoReply, err
}

// exchange sends an echo request, and returns its reply or the error about it.
func (s *segment) exchange(ctx context.Context, request echo) (message, bool, error) {
	frame, err := request.frame()
	if err != nil {
		return message{}, false, err
	}
	if err := s.forget(ctx); err != nil {
		return message{}, false, err
	}
	var m message
	answered, err := s.ask(ctx, frame, echoTries, echoWithin, func(frame []byte) bool {
		var isICMP bool
		m, isICMP = readMessage(frame)
		return isICMP && (request.isAnsweredBy(m) || request.isAbout(m))
	})
	return m, answered, err
}

func (e *examination) foundDeceived(ctx context.Context, s *segment, vip netip.Addr, n neighbour) {
	host := e.host(ctx, Host{Role: Neighbour, Address: n.address, MAC: n.mac.String()})
	e.found(Finding{
		Check: StaleARP, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("%s sends what is for %s to another host than the director", host, vip),
		Why: "it has learnt the VIP's MAC address from a host that answered for the VIP once, as a real server does that got the VIP " +
			"before its ARP settings; it keeps it as long as its connections go on",
		Mend: []Remedy{e.announcement(s, vip)},
	})
}
