package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// sendsOn reports whether a host that answers for the VIP has it not, and would send
// the VIP's packets on: an echo request for the VIP with no hops left is answered
// by whoever has the VIP, and refused by whoever has not. One who does neither, and
// answers for addresses that nobody has, is taken for one who sends on.
func (e *examination) sendsOn(ctx context.Context, s *segment, vip netip.Addr, mac lvs.MAC) (bool, error) {
	source := s.own(vip, e.vips)
	last := newEcho(s, mac, source, vip)
	last.hops = fewHops
	m, answered, err := s.exchange(ctx, last)
	if answered || err != nil {
		return m.answer == hopsExceeded, err
	}
	return e.answersForAll(ctx, s, source, mac)
}

// answersForAll reports whether the host answers for addresses that nobody is known
// to have.
func (e *examination) answersForAll(ctx context.Context, s *segment, source netip.Addr, mac lvs.MAC) (bool, error) {
	prefix, ok := s.onLink(source)
	if !ok || !hasRoom(prefix) {
		return false, nil
	}
	const addresses = 2 // one might be the host's own
	var inquiries []inquiry
	for range freeTries {
		if candidate := randomHost(prefix); len(inquiries) < addresses && !e.isKnown(s, candidate) {
			inquiries = append(inquiries, inquiry{source, candidate})
		}
	}
	answers, err := s.call(ctx, inquiries, proxyWithin)
	for _, macs := range answers {
		if !slices.Contains(macs, mac) {
			return false, err
		}
	}
	return len(answers) == addresses, err
}

func (e *examination) foundProxy(s *segment, vip netip.Addr, host Host) {
	f := Finding{
		Check: ProxyARP, Level: Error, Service: vip.String(), Host: host,
		What: fmt.Sprintf("%s answers %s for %s on %s, and has not that address: it answers for others (proxy ARP)", host, resolution(vip), vip, s.device.Name),
		Why:  twoAnswer,
	}
	stop := fmt.Sprintf("ip neighbour del proxy %s dev $dev 2>/dev/null; "+
		"sysctl -qw net/ipv4/conf/all/proxy_arp=0 net/ipv4/conf/$dev/proxy_arp=0 net/ipv4/conf/$dev/proxy_arp_pvlan=0", vip)
	if vip.Is6() {
		// Linux answers for addresses that it was told by name only.
		f.What = fmt.Sprintf("%s answers %s for %s on %s, and has not that address: it answers for others (NDP proxy)", host, resolution(vip), vip, s.device.Name)
		stop = fmt.Sprintf("ip neighbour del proxy %s dev $dev", vip)
	}
	f.Mend = []Remedy{{host, onDevicesOf(host.MAC, stop)}, e.announcement(s, vip)}
	e.found(f)
}

// onDevicesOf returns what runs the command for each interface of that MAC address,
// in the variable dev.
func onDevicesOf(mac, command string) string {
	return fmt.Sprintf("ip -o link | grep -i %s | while IFS=': @' read -r _ dev _; do %s; done", mac, command)
}

// onDevicesWith does for the interfaces that have the address.
func onDevicesWith(address netip.Addr, command string) string {
	return fmt.Sprintf("ip -o address show to %s | while read -r _ dev _; do %s; done", address, command)
}
