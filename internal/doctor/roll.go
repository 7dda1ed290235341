package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// An address is asked for so often, so that all who answer are heard.
	askTries = 2
	// Who has an address answers at once.
	askWithin = 150 * time.Millisecond
	// Who answers in the name of another waits a random time before: up to 0.8 s
	// with Linux (proxy_delay), which is the time of RFC 4861, 7.2.8 too.
	proxyWithin = 900 * time.Millisecond
)

// An inquiry asks for the MAC address of the target. Without a valid source it is a
// probe that tells nobody anything (RFC 5227; RFC 4861, 7.2.2).
type inquiry struct{ source, target netip.Addr }

// call asks for all targets at once, and returns the MAC addresses of all who
// answer, by target. It waits for the last of them for so long. The director's own
// kernel is not among them: it does not hear the questions.
func (s *segment) call(ctx context.Context, inquiries []inquiry, patience time.Duration) (map[netip.Addr][]lvs.MAC, error) {
	answers := map[netip.Addr][]lvs.MAC{}
	for _, i := range inquiries {
		answers[i.target] = nil
	}
	hear := func(frame []byte) bool {
		p := journey.Decode(frame)
		if p.Kind != journey.ARPReply && p.Kind != journey.NeighborAdvertisement {
			return false
		}
		macs, asked := answers[p.Target]
		if asked && p.SourceMAC != s.mac && !slices.Contains(macs, p.SourceMAC) {
			answers[p.Target] = append(macs, p.SourceMAC)
		}
		return false
	}
	if err := s.forget(ctx); err != nil {
		return nil, err
	}
	for try := range askTries {
		for _, i := range inquiries {
			frame, err := question(s.mac, i.source, i.target)
			if err != nil {
				return nil, err
			}
			if err := s.send(ctx, frame); err != nil {
				return nil, err
			}
			if _, err := s.listen(ctx, sendGap, hear); err != nil {
				return nil, err
			}
		}
		within := askWithin
		if try == askTries-1 {
			within = patience
		}
		if _, err := s.listen(ctx, within, hear); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// answers asks for one address, and returns who says that he has it.
func (s *segment) answers(ctx context.Context, source, target netip.Addr) ([]lvs.MAC, error) {
	all, err := s.call(ctx, []inquiry{{source, target}}, askWithin)
	return all[target], err
}

// callRoll asks every segment for the VIPs, for the real servers, and for the
// director's own addresses.
func (e *examination) callRoll(ctx context.Context) error {
	for _, s := range e.ordered() {
		var inquiries []inquiry
		for _, vip := range e.vips {
			if source := s.own(vip, e.vips); source.IsValid() { // else nobody to answer to
				inquiries = append(inquiries, inquiry{source, vip})
			}
			// The director's other interfaces answer no question of its own address.
			if len(e.own) > len(e.attached) {
				inquiries = append(inquiries, inquiry{target: vip})
			}
		}
		for _, r := range e.servers {
			if source := s.own(r.address, e.vips); r.segment == s && !r.gateway && source.IsValid() {
				inquiries = append(inquiries, inquiry{source, r.address})
			}
		}
		for _, address := range e.ownAddresses(s) {
			inquiries = append(inquiries, inquiry{target: address})
		}
		if len(inquiries) == 0 {
			continue
		}
		answers, err := s.call(ctx, inquiries, proxyWithin)
		if err != nil {
			return fmt.Errorf("call the roll: %w", err)
		}
		s.roll = answers
		for _, address := range e.ownAddresses(s) {
			e.foundTwins(ctx, s, address, answers[address])
		}
	}
	return nil
}

// ownAddresses returns the director's addresses there that are nobody else's.
func (e *examination) ownAddresses(s *segment) []netip.Addr {
	var all []netip.Addr
	for _, prefix := range s.prefixes {
		if address := prefix.Addr(); !slices.Contains(e.vips, address) && !address.IsLinkLocalUnicast() {
			all = append(all, address)
		}
	}
	return all
}

// foundTwins tells of other hosts that have an address of the director.
func (e *examination) foundTwins(ctx context.Context, s *segment, address netip.Addr, macs []lvs.MAC) {
	for _, mac := range macs {
		if _, own := e.own[mac]; own {
			continue // by another interface on the same segment
		}
		host := e.host(ctx, Host{Role: Neighbour, MAC: mac.String()})
		e.found(Finding{
			Check: SameAddress, Level: Error, Host: host,
			What: fmt.Sprintf("%s answers for %s on %s, which is an address of the director", host, address, s.device.Name),
			Why:  "two hosts have the director's address: what real servers and neighbours say to the director may reach the other one",
			Mend: []Remedy{{host, "ip address show to " + address.String()}},
		})
	}
}
