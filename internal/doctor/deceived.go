package doctor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
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
	if !p.vip.Is4() {
		return nil
	}
	for _, s := range e.ordered() {
		source := s.own(p.vip, e.vips)
		if !source.IsValid() || !slices.ContainsFunc(s.prefixes, func(prefix netip.Prefix) bool { return prefix.Addr() == p.vip }) {
			continue
		}
		asked := 0
		for _, n := range s.neighbours() {
			// To a real server the VIP is its own address: it takes no packet from it.
			if _, isServer := e.server(n.address); isServer || !n.address.Is4() || slices.Contains(e.vips, n.address) {
				continue
			}
			if asked++; asked > mostAsked {
				break
			}
			deceived, err := s.deceived(ctx, source, p.vip, n)
			if err != nil {
				return err
			}
			if deceived {
				e.foundDeceived(s, p.vip, n)
			}
		}
	}
	return nil
}

// deceived asks from the director's own address once more at the end, so that a
// neighbour that went away meanwhile is not blamed.
func (s *segment) deceived(ctx context.Context, source, vip netip.Addr, n neighbour) (bool, error) {
	if answered, err := s.echo(ctx, source, n); !answered || err != nil {
		return false, err
	}
	if answered, err := s.echo(ctx, vip, n); answered || err != nil {
		return false, err
	}
	return s.echo(ctx, source, n)
}

func (s *segment) echo(ctx context.Context, source netip.Addr, n neighbour) (bool, error) {
	id, sequence := uint16(rand.Uint32()), uint16(rand.Uint32())
	frame, err := echoRequest(s.mac, n.mac, source, n.address, id, sequence)
	if err != nil {
		return false, err
	}
	if err := s.forget(ctx); err != nil {
		return false, err
	}
	return s.ask(ctx, frame, echoTries, echoWithin, func(frame []byte) bool {
		return isEchoReply(frame, n.address, source, id, sequence)
	})
}

func (e *examination) foundDeceived(s *segment, vip netip.Addr, n neighbour) {
	host := Host{Role: Neighbour, Address: n.address, MAC: n.mac.String()}
	e.found(Finding{
		Check: StaleARP, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("%s sends what is for %s to another host than the director", host, vip),
		Why: "it has learnt the VIP's MAC address from a host that answered for the VIP once, as a real server does that got the VIP " +
			"before its ARP settings; it keeps it as long as its connections go on",
		Mend: []Remedy{e.announcement(s, vip)},
	})
}
