package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// findImpostors looks for hosts that say they have the VIP.
func (e *examination) findImpostors(ctx context.Context, p patient) error {
	for _, s := range e.ordered() {
		for _, mac := range s.roll[p.vip] {
			if device, own := e.own[mac]; own {
				e.foundOwnImpostor(s, p.vip, mac, device)
				continue
			}
			e.blamed[claim{mac, p.vip}] = true
			if e.standsBy(ctx, s, p.vip, mac) {
				continue
			}
			sendsOn, err := e.sendsOn(ctx, s, p.vip, mac)
			if err != nil {
				return err
			}
			host := e.identify(ctx, s, p.vip, mac)
			if sendsOn {
				e.foundProxy(s, p.vip, host)
			} else {
				e.foundImpostor(s, p.vip, host)
			}
		}
	}
	return nil
}

func resolution(address netip.Addr) string {
	if address.Is6() {
		return "neighbour discovery"
	}
	return "ARP"
}

const twoAnswer = "whom it answers, a client or the router, sends the VIP's packets to it and no longer to the director: " +
	"the two answer by turns, and connections break or bypass the director"

func (e *examination) foundImpostor(s *segment, vip netip.Addr, host Host) {
	f := Finding{
		Check: ForeignVIP, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("%s answers %s for %s on %s", host, resolution(vip), vip, s.device.Name),
		Why:  twoAnswer,
	}
	switch {
	case host.Role == RealServer && vip.Is4():
		f.Check = ARPIgnore
		f.Mend = append(f.Mend, Remedy{host, setUp(vip)})
	case host.Role == RealServer:
		// Linux answers only for addresses of the interface that was asked.
		f.Check = VIPExposed
		f.Mend = append(f.Mend, Remedy{host, hideVIP(vip)})
	default:
		f.Mend = append(f.Mend, Remedy{host, fmt.Sprintf("ip address show to %s; ip neighbour show proxy; sysctl net.ipv4.conf.all.proxy_arp", vip)})
	}
	f.Mend = append(f.Mend, e.announcement(s, vip))
	e.found(f)
}

// foundOwnImpostor tells of an interface of the director that the data plane is not
// attached to. One that it is attached to may answer as well.
func (e *examination) foundOwnImpostor(s *segment, vip netip.Addr, mac lvs.MAC, device string) {
	if slices.Contains(e.attached, device) {
		return
	}
	host := e.director(s, vip)
	host.MAC = mac.String()
	command := fmt.Sprintf("sysctl -w net/ipv4/conf/%s/arp_ignore=1", device)
	if vip.Is6() {
		command = fmt.Sprintf("ip address del %s/%d dev %s", vip, vip.BitLen(), device)
	}
	e.found(Finding{
		Check: ForeignVIP, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("the director answers %s for %s with its interface %s too, where the data plane is not attached", resolution(vip), vip, device),
		Why:  "packets for the VIP that come in there reach the director's own programs, and no real server",
		Mend: []Remedy{{host, command}, e.announcement(s, vip)},
	})
}

// setUp is what makes a host a real server of the VIP.
func setUp(vip netip.Addr) string { return "fairlead realserver up --vip " + vip.String() }

// hideVIP takes the VIP from where neighbours see it, and sets the host up.
func hideVIP(vip netip.Addr) string {
	return fmt.Sprintf("ip -o address show to %s | while read -r _ dev _ address _; do "+
		"[ $dev = lo ] || ip address del $address dev $dev; done; %s", vip, setUp(vip))
}

// announcement is what makes neighbours learn the director's MAC address again.
func (e *examination) announcement(s *segment, vip netip.Addr) Remedy {
	return Remedy{e.director(s, vip), "fairlead doctor announce " + vip.String()}
}

// identify returns whose MAC address it is: by the next hops of the VIP's family
// first, then by the kernel's neighbour table.
func (e *examination) identify(ctx context.Context, s *segment, vip netip.Addr, mac lvs.MAC) Host {
	host := Host{Role: Neighbour, MAC: mac.String()}
	for _, r := range e.servers {
		if r.segment != s || r.mac != mac {
			continue
		}
		host.Address = r.address
		if r.address.Is4() == vip.Is4() {
			host.Role = RealServer
			return e.host(ctx, host)
		}
	}
	for _, n := range s.neighbours() {
		if n.mac == mac && n.address.Is4() == vip.Is4() && !slices.Contains(e.vips, n.address) {
			host.Address = n.address
			break
		}
	}
	return e.host(ctx, host)
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
