package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// How often an address is asked for, and how long each time: all who answer are
// to be heard.
const (
	askTries  = 2
	askWithin = 150 * time.Millisecond
)

// answers asks the segment who has the address, and returns the MAC addresses of
// all who say so. The director's own kernel is not among them: it does not hear
// the question.
func (s *segment) answers(ctx context.Context, source, address netip.Addr) ([]lvs.MAC, error) {
	frame, err := question(s.mac, source, address)
	if err != nil {
		return nil, err
	}
	if err := s.forget(ctx); err != nil {
		return nil, err
	}
	var macs []lvs.MAC
	_, err = s.ask(ctx, frame, askTries, askWithin, func(frame []byte) bool {
		p := journey.Decode(frame)
		answer := p.Kind == journey.ARPReply || p.Kind == journey.NeighborAdvertisement
		if answer && p.Claims(address) && p.SourceMAC != s.mac && !slices.Contains(macs, p.SourceMAC) {
			macs = append(macs, p.SourceMAC)
		}
		return false
	})
	return macs, err
}

// findImpostors looks for hosts that say they have the VIP.
func (e *examination) findImpostors(ctx context.Context, p patient) error {
	for _, s := range e.ordered() {
		source := s.own(p.vip, e.vips)
		if !source.IsValid() {
			continue // nobody to answer to
		}
		macs, err := s.answers(ctx, source, p.vip)
		if err != nil {
			return err
		}
		for _, mac := range macs {
			if !e.standsBy(s, p.vip, mac) {
				e.foundImpostor(s, p.vip, e.identify(s, p.vip, mac))
			}
		}
	}
	return nil
}

func (e *examination) foundImpostor(s *segment, vip netip.Addr, host Host) {
	kind := "ARP"
	if vip.Is6() {
		kind = "neighbour discovery"
	}
	f := Finding{
		Check: ForeignVIP, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("%s answers %s for %s on %s", host, kind, vip, s.device.Name),
		Why: "whom it answers, a client or the router, sends the VIP's packets to it and no longer to the director: " +
			"the two answer by turns, and connections break or bypass the director",
	}
	switch {
	case host.Role == RealServer && vip.Is4():
		f.Check = ARPIgnore
		f.Mend = append(f.Mend, Remedy{host, setUp(vip)})
	case host.Role == RealServer:
		// Linux answers only for addresses of the interface that was asked.
		f.Check = VIPExposed
		f.Mend = append(f.Mend, Remedy{host, fmt.Sprintf("ip -o address show to %s | while read -r _ dev _ address _; do "+
			"[ $dev = lo ] || ip address del $address dev $dev; done; %s", vip, setUp(vip))})
	default:
		f.Mend = append(f.Mend, Remedy{host, fmt.Sprintf("ip address show to %s; ip neighbour show proxy; sysctl net.ipv4.conf.all.proxy_arp", vip)})
	}
	f.Mend = append(f.Mend, e.announcement(s, vip))
	e.found(f)
}

// setUp is what makes a host a real server of the VIP.
func setUp(vip netip.Addr) string { return "fairlead realserver up --vip " + vip.String() }

// announcement is what makes neighbours learn the director's MAC address again.
func (e *examination) announcement(s *segment, vip netip.Addr) Remedy {
	return Remedy{e.director(s, vip), "fairlead doctor announce " + vip.String()}
}

// identify returns whose MAC address it is: by the next hops of the VIP's family
// first, then by the kernel's neighbour table.
func (e *examination) identify(s *segment, vip netip.Addr, mac lvs.MAC) Host {
	host := Host{Role: Neighbour, MAC: mac.String()}
	for _, r := range e.servers {
		if r.segment != s || r.mac != mac {
			continue
		}
		host.Address = r.address
		if r.address.Is4() == vip.Is4() {
			host.Role = RealServer
			return host
		}
	}
	for _, n := range s.neighbours() {
		if n.mac == mac && n.address.Is4() == vip.Is4() && !slices.Contains(e.vips, n.address) {
			host.Address = n.address
			break
		}
	}
	return host
}

// A neighbour is one that the director's kernel knows.
type neighbour struct {
	address netip.Addr
	mac     lvs.MAC
}

// neighbours returns whom the kernel knows on the segment, by address; nobody if it
// does not tell.
func (s *segment) neighbours() []neighbour {
	var known []neighbour
	entries, err := netlink.NeighList(s.device.Index, netlink.FAMILY_ALL)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		address, ok := netip.AddrFromSlice(entry.IP)
		address = address.Unmap()
		const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
		n := neighbour{address: address}
		if !ok || entry.State&usable == 0 || copy(n.mac[:], entry.HardwareAddr) != len(n.mac) || address.IsMulticast() {
			continue
		}
		known = append(known, n)
	}
	slices.SortFunc(known, func(a, b neighbour) int { return a.address.Compare(b.address) })
	return known
}
