package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A wire is a cable of the director's, seen from its far end: nothing answers
// there; whole frames are written and read.
type wire struct {
	on     string // the director's end: cl or rs
	peer   string // the far end
	socket int
}

// sysctls are those of a director that has no filters, limits and habits of its
// own.
var sysctls = map[string]string{
	"net/ipv4/ip_forward":                        "1",
	"net/ipv6/conf/all/forwarding":               "1",
	"net/ipv4/conf/all/rp_filter":                "0",
	"net/ipv4/conf/default/rp_filter":            "0",
	"net/ipv4/conf/all/send_redirects":           "0",
	"net/ipv4/conf/default/send_redirects":       "0",
	"net/ipv6/conf/all/accept_dad":               "0",
	"net/ipv6/conf/default/accept_dad":           "0",
	"net/ipv6/conf/default/addr_gen_mode":        "1",
	"net/ipv6/conf/default/router_solicitations": "0",
	"net/ipv4/icmp_ratelimit":                    "0",
	"net/ipv4/icmp_msgs_per_sec":                 "1000000",
	"net/ipv4/icmp_msgs_burst":                   "1000000",
	"net/ipv6/icmp/ratelimit":                    "0",
	"net/ipv6/auto_flowlabels":                   "0",
}

func setSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
}

// lay builds the director's network in the namespace that the thread is in, the
// far ends of its cables in the world's.
func (m *machine) lay() error {
	for name, value := range sysctls {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, on := range []string{"cl", "rs"} {
		w, err := m.layWire(on)
		if err != nil {
			return fmt.Errorf("lay the cable of %s: %w", on, err)
		}
		m.wires = append(m.wires, w)
	}
	return m.address(lo)
}

func (m *machine) layWire(on string) (*wire, error) {
	w := &wire{on: on, peer: fmt.Sprintf("%s-peer%d", on, m.number)}
	near, far := scenario.NearMAC(on), scenario.FarMAC(on)
	cable := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: on + "0", HardwareAddr: near[:]},
		PeerName:         w.peer,
		PeerHardwareAddr: far[:],
		PeerNamespace:    netlink.NsFd(m.world.namespace),
	}
	if err := netlink.LinkAdd(cable); err != nil {
		return nil, err
	}
	if err := offloadNothing(on + "0"); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return nil, err
	}
	return w, m.inWorld(w.open)
}

// open opens a packet socket on the far end.
func (w *wire) open() error {
	peer, err := netlink.LinkByName(w.peer)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(peer); err != nil {
		return err
	}
	const everything = uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(everything))
	if err != nil {
		return err
	}
	const room = 8 << 20
	if err := unix.SetsockoptInt(w.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room); err != nil {
		return err
	}
	return unix.Bind(w.socket, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: peer.Attrs().Index})
}

// address gives the director its addresses, routes and neighbours.
func (m *machine) address(lo netlink.Link) error {
	cl0, err := netlink.LinkByName("cl0")
	if err != nil {
		return err
	}
	rs0, err := netlink.LinkByName("rs0")
	if err != nil {
		return err
	}
	gateway4, gateway6 := netip.MustParseAddr("203.0.113.253"), netip.MustParseAddr("2001:db8:3::fd")
	for _, a := range []struct {
		link    netlink.Link
		address string
	}{{cl0, "203.0.113.254/32"}, {cl0, "2001:db8:3::fe/128"}, {rs0, "198.51.100.1/24"}, {rs0, "2001:db8:1::1/64"}} {
		parsed, err := netlink.ParseAddr(a.address)
		if err != nil {
			return err
		}
		parsed.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(a.link, parsed); err != nil {
			return fmt.Errorf("add address %s: %w", a.address, err)
		}
	}
	if err := addNeighbour(cl0, gateway4, scenario.ClientMAC); err != nil {
		return err
	}
	if err := addNeighbour(cl0, gateway6, scenario.ClientMAC); err != nil {
		return err
	}
	for n := scenario.FirstServer; n < scenario.FirstServer+scenario.ServerCount; n++ {
		for _, format := range []string{"198.51.100.%d", "2001:db8:1::%d"} {
			if err := addNeighbour(rs0, netip.MustParseAddr(fmt.Sprintf(format, n)), scenario.ServerMAC(n)); err != nil {
				return err
			}
		}
	}
	for _, r := range []struct {
		prefix  string
		link    netlink.Link
		gateway netip.Addr
	}{
		{"192.0.2.0/24", lo, netip.Addr{}}, {"2001:db8:2::/64", lo, netip.Addr{}},
		{"203.0.113.0/24", cl0, gateway4}, {"2001:db8:3::/48", cl0, gateway6},
	} {
		if err := addRoute(r.prefix, r.link, r.gateway); err != nil {
			return fmt.Errorf("add route %s: %w", r.prefix, err)
		}
	}
	return nil
}

func addNeighbour(link netlink.Link, addr netip.Addr, mac lvs.MAC) error {
	err := netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IP(addr.AsSlice()), HardwareAddr: mac[:],
	})
	if err != nil {
		return fmt.Errorf("add neighbour %s: %w", addr, err)
	}
	return nil
}

// addRoute adds a route through a gateway, or a local one if there is none.
func addRoute(prefix string, link netlink.Link, gateway netip.Addr) error {
	_, destination, err := net.ParseCIDR(prefix)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: destination}
	if gateway.IsValid() {
		route.Gw, route.Flags = net.IP(gateway.AsSlice()), int(netlink.FLAG_ONLINK)
	} else {
		route.Table, route.Type, route.Scope = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, netlink.SCOPE_HOST
	}
	return netlink.RouteAdd(route)
}

// SetMark has everything that comes in on cl0 marked.
func (m *machine) SetMark(mark uint32) error {
	cl0, err := netlink.LinkByName("cl0")
	if err != nil {
		return err
	}
	index := cl0.Attrs().Index
	if !m.marked {
		err := netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}})
		if err != nil {
			return fmt.Errorf("add clsact: %w", err)
		}
	}
	filter := &netlink.MatchAll{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
	}}
	if m.marked {
		if err := netlink.FilterDel(filter); err != nil {
			return fmt.Errorf("delete filter: %w", err)
		}
	}
	m.marked = true
	action := netlink.NewSkbEditAction()
	action.Mark = &mark
	filter.Actions = []netlink.Action{action}
	return netlink.FilterAdd(filter)
}

// SetMTU changes the MTU of both ends of a cable.
func (m *machine) SetMTU(on string, mtu int) error {
	set := func(name string) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, mtu)
	}
	for _, w := range m.wires {
		if w.on != on {
			continue
		}
		if err := set(on + "0"); err != nil {
			return err
		}
		return m.inWorld(func() error { return set(w.peer) })
	}
	return fmt.Errorf("set MTU of %q: no such interface", on)
}

// inWorld runs f in the namespace of the far ends.
func (m *machine) inWorld(f func() error) error {
	if err := netns.Set(m.world.namespace); err != nil {
		return err
	}
	err := f()
	if back := netns.Set(m.namespace); err == nil {
		err = back
	}
	return err
}

// isNoise reports whether a frame is one in which the director speaks of itself:
// ARP, IGMP, MLD, neighbour and router discovery.
func isNoise(frame []byte) bool {
	const header = 14
	kind := int(frame[12])<<8 | int(frame[13])
	ip := frame[header:]
	switch {
	case kind == unix.ETH_P_ARP:
		return true
	case kind == unix.ETH_P_IP:
		return ip[9] == unix.IPPROTO_IGMP
	case kind == unix.ETH_P_IPV6:
		next, rest := ip[6], ip[40:]
		if next == unix.IPPROTO_HOPOPTS {
			next, rest = rest[0], rest[8:]
		}
		const mldQuery, redirect, mld2Report = 130, 137, 143
		return next == unix.IPPROTO_ICMPV6 && (rest[0] >= mldQuery && rest[0] < redirect || rest[0] == mld2Report)
	}
	return false
}
