package doctor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// freeTries is how many addresses are tried to find a free one.
	freeTries = 8
	// Announcements are repeated: some hosts take no second change of an entry
	// within a second of the first.
	announcements   = 3
	announcementGap = 1100 * time.Millisecond
)

// examineAnnouncement makes the real server ask for a MAC address, and looks whom
// it says is asking. Only a client that it does not know makes it ask.
func (e *examination) examineAnnouncement(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) error {
	wrong := claim{r.NextHop.Destination, service.Address}
	if e.blamed[wrong] {
		return nil
	}
	if !s.segment.asking[wrong] {
		if err := e.makeAsk(ctx, service, r, s); err != nil {
			return err
		}
	}
	if !s.segment.asking[wrong] {
		return nil
	}
	e.foundAnnouncement(s.segment, service.Address, e.host(ctx, Host{Role: RealServer, Address: r.Address, MAC: r.NextHop.Destination.String()}))
	e.blamed[wrong] = true
	// The question was for the doctor's sake: what it has taught is put right.
	return s.segment.announce(ctx, service.Address)
}

func (e *examination) foundAnnouncement(s *segment, vip netip.Addr, host Host) {
	command := setUp(vip)
	if vip.Is6() {
		// Linux names only addresses of the interface that asks.
		command = hideVIP(vip)
	}
	e.found(Finding{
		Check: ARPAnnounce, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("%s asks for MAC addresses in the name of %s", host, vip),
		Why: "whoever hears the question, a client, the router or the switch, learns that the VIP is at this host, " +
			"and sends the VIP's packets to it and no longer to the director",
		Mend: []Remedy{{host, command}, e.announcement(s, vip)},
	})
}

// examineOverheard tells of hosts that said, while the doctor listened, that the VIP
// is at them, and of which nothing was found otherwise.
func (e *examination) examineOverheard(ctx context.Context, p patient) {
	for _, s := range e.ordered() {
		for _, told := range []struct {
			claims map[claim]bool
			asked  bool
		}{{s.asking, true}, {s.telling, false}} {
			for wrong := range told.claims {
				if _, own := e.own[wrong.mac]; own || wrong.address != p.vip || e.blamed[wrong] {
					continue
				}
				e.blamed[wrong] = true
				host := e.identify(ctx, s, p.vip, wrong.mac)
				if told.asked && host.Role == RealServer {
					e.foundAnnouncement(s, p.vip, host)
					continue
				}
				e.found(Finding{
					Check: ForeignVIP, Level: Error, Service: p.vip.String(), Host: host,
					What: fmt.Sprintf("%s told the segment that %s is at it", host, p.vip),
					Why:  "whoever heard it, a client, the router or the switch, sends the VIP's packets to it and no longer to the director",
					Mend: []Remedy{{host, "ip address show to " + p.vip.String()}, e.announcement(s, p.vip)},
				})
			}
		}
	}
}

// makeAsk begins a connection from an address that nobody has, which makes the real
// server ask for its MAC address. It returns when that was heard, or not in time.
func (e *examination) makeAsk(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) error {
	client, err := e.freeAddress(ctx, s.segment, r.Address)
	if err != nil || !client.IsValid() {
		return err
	}
	c := e.begin(service, r, s, client)
	syn, err := c.syn()
	if err != nil {
		return err
	}
	_, err = s.segment.ask(ctx, syn, 1, synWithin, func(frame []byte) bool {
		p := journey.Decode(frame)
		asks := p.Kind == journey.ARPRequest || p.Kind == journey.NeighborSolicitation
		return asks && p.Target == client && p.SourceMAC == r.NextHop.Destination
	})
	return errors.Join(err, e.end(ctx, c, s))
}

// freeAddress returns an address of the real server's prefix that nobody answers
// for, the zero Addr if it finds none. Nobody learns of the search (RFC 5227).
func (e *examination) freeAddress(ctx context.Context, s *segment, near netip.Addr) (netip.Addr, error) {
	prefix, ok := s.onLink(near)
	if !ok || !hasRoom(prefix) {
		return netip.Addr{}, nil
	}
	for range freeTries {
		candidate := randomHost(prefix)
		if e.isKnown(s, candidate) {
			continue
		}
		macs, err := s.answers(ctx, netip.Addr{}, candidate)
		if err != nil || len(macs) == 0 {
			return candidate, err
		}
	}
	return netip.Addr{}, nil
}

// isKnown reports whether somebody is known to have the address.
func (e *examination) isKnown(s *segment, address netip.Addr) bool {
	_, isServer := e.server(address)
	return isServer || slices.Contains(e.vips, address) ||
		slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Addr() == address }) ||
		slices.ContainsFunc(s.neighbours(), func(n neighbour) bool { return n.address == address })
}

// hasRoom reports whether the prefix has addresses enough for one to be free.
func hasRoom(prefix netip.Prefix) bool {
	const smallest = 4 // bits for hosts
	return prefix.Addr().BitLen()-prefix.Bits() >= smallest
}

// randomHost returns an address of the prefix that is neither its first nor its
// last.
func randomHost(prefix netip.Prefix) netip.Addr {
	address := prefix.Masked().Addr().AsSlice()
	for {
		candidate := slices.Clone(address)
		bits := len(address)*8 - prefix.Bits()
		for i := len(candidate) - 1; bits > 0; i, bits = i-1, bits-8 {
			candidate[i] |= byte(rand.Uint32()) & byte(1<<min(bits, 8)-1)
		}
		host, _ := netip.AddrFromSlice(candidate)
		if host != prefix.Masked().Addr() && prefix.Contains(host.Next()) {
			return host
		}
	}
}

// announce tells the segment once that the VIP is at the director.
func (s *segment) announce(ctx context.Context, vip netip.Addr) error {
	frame, err := unsolicited(s.mac, vip)
	if err != nil {
		return err
	}
	return s.send(ctx, frame)
}

// Announce tells the neighbours, on every segment where this host has the VIP,
// that it is at this host: gratuitous ARP, or unsolicited neighbour
// advertisements, several within some seconds. It refuses an address that the
// host has not. It works in the network namespace of the calling process.
func Announce(ctx context.Context, vip netip.Addr) (err error) {
	devices, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var segments []*segment
	defer func() {
		for _, s := range segments {
			err = errors.Join(err, s.close())
		}
	}()
	for i := range devices {
		if len(devices[i].HardwareAddr) != len(lvs.MAC{}) || devices[i].Flags&net.FlagUp == 0 {
			continue
		}
		s, err := openSegment(&devices[i])
		if err != nil {
			return err
		}
		segments = append(segments, s)
	}
	having := slices.DeleteFunc(slices.Clone(segments), func(s *segment) bool {
		return !slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Addr() == vip })
	})
	if len(having) == 0 {
		return fmt.Errorf("announce %s: no Ethernet interface of this host has this address: run this on the director", vip)
	}
	for i := range announcements {
		if i > 0 {
			timer := time.NewTimer(announcementGap)
			select {
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			case <-timer.C:
			}
		}
		for _, s := range having {
			if err := s.announce(ctx, vip); err != nil {
				return err
			}
		}
	}
	return nil
}
