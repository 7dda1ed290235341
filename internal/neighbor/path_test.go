package neighbor

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const ready = unix.IFF_UP | unix.IFF_LOWER_UP

// ethernet is a link in working order; its number is its index and its MAC.
func ethernet(index int, name string) link {
	return link{index: index, name: name, mac: lvs.MAC{5: byte(index)}, ethernet: true, flags: ready, mtu: 1500}
}

func (l link) with(change func(*link)) link {
	change(&l)
	return l
}

func vlanOn(index int, name string, parent int, id uint16) link {
	return ethernet(index, name).with(func(l *link) {
		l.vlan = vlan{id: id, protocol: uint16(netlink.VLAN_PROTOCOL_8021Q), parent: parent}
	})
}

func makeLinks(all ...link) links {
	found := make(links)
	for _, l := range all {
		found[l.index] = l
	}
	return found
}

func TestSender(t *testing.T) {
	eth0 := ethernet(2, "eth0")
	plain := lvs.NextHop{InterfaceIndex: 2, InterfaceName: "eth0", Source: lvs.MAC{5: 2}, MTU: 1500}
	tagged := lvs.NextHop{InterfaceIndex: 2, InterfaceName: "eth0", Source: lvs.MAC{5: 3}, VLAN: 100, MTU: 1500}
	because := func(next lvs.NextHop, problem string) lvs.NextHop {
		next.Problem = problem
		return next
	}
	vlanItself := lvs.NextHop{InterfaceIndex: 3, InterfaceName: "eth0.100", Source: lvs.MAC{5: 3}, MTU: 1500}
	eth0100 := vlanOn(3, "eth0.100", 2, 100)
	tests := []struct {
		name  string
		out   link
		links links
		want  lvs.NextHop
	}{
		{"untagged", eth0, makeLinks(eth0), plain},
		{"VLAN: its parent sends, with the VLAN's own MAC", eth0100, makeLinks(eth0, eth0100), tagged},
		{"VLAN with an MTU of its own", eth0100.with(func(l *link) { l.mtu = 1496 }), makeLinks(eth0),
			lvs.NextHop{InterfaceIndex: 2, InterfaceName: "eth0", Source: lvs.MAC{5: 3}, VLAN: 100, MTU: 1496}},
		{"down", eth0.with(func(l *link) { l.flags = 0 }), makeLinks(eth0), because(plain, "eth0 is down")},
		{"no carrier", eth0.with(func(l *link) { l.flags = unix.IFF_UP }), makeLinks(eth0), because(plain, "eth0 has no carrier")},
		{"not Ethernet", eth0.with(func(l *link) { l.ethernet = false }), makeLinks(eth0),
			because(plain, "eth0 is not an Ethernet interface")},
		{"VLAN down", eth0100.with(func(l *link) { l.flags = 0 }), makeLinks(eth0), because(tagged, "eth0.100 is down")},
		{"parent without carrier", eth0100, makeLinks(eth0.with(func(l *link) { l.flags = unix.IFF_UP })),
			because(tagged, "eth0 has no carrier")},
		{"VLAN with its parent elsewhere", eth0100.with(func(l *link) { l.vlan.parent = 0 }), makeLinks(eth0),
			because(vlanItself, "eth0.100 is a VLAN of an interface in another network namespace")},
		{"802.1ad", eth0100.with(func(l *link) { l.vlan.protocol = uint16(netlink.VLAN_PROTOCOL_8021AD) }), makeLinks(eth0),
			because(vlanItself, "eth0.100 is not an 802.1Q VLAN")},
		{"VLAN inside a VLAN", vlanOn(4, "eth0.100.7", 3, 7), makeLinks(eth0, eth0100),
			lvs.NextHop{InterfaceIndex: 4, InterfaceName: "eth0.100.7", Source: lvs.MAC{5: 4}, MTU: 1500,
				Problem: "eth0.100.7 is a VLAN inside the VLAN eth0.100: only one tag can be set"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := sender(test.out, test.links); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestFindPath(t *testing.T) {
	addr := netip.MustParseAddr("198.51.100.11")
	gateway := netip.MustParseAddr("192.0.2.254")
	all := makeLinks(ethernet(2, "eth0"), vlanOn(3, "eth0.100", 2, 100),
		ethernet(4, "eth2").with(func(l *link) { l.flags = 0 }),
		ethernet(5, "eth3").with(func(l *link) { l.flags |= unix.IFF_NOARP }))
	unicast := func(change func(*route)) route {
		r := route{kind: unix.RTN_UNICAST, link: 2}
		change(&r)
		return r
	}
	tests := []struct {
		name    string
		route   route
		err     error
		last    int
		via     neighbourKey
		static  bool
		mtu     int
		gateway netip.Addr
		local   bool
		problem string
	}{
		{name: "on link", route: unicast(func(*route) {}), via: neighbourKey{2, addr}, mtu: 1500},
		{name: "gateway", route: unicast(func(r *route) { r.gateway = gateway }), via: neighbourKey{2, gateway}, gateway: gateway, mtu: 1500},
		{name: "no gateway in zeros", route: unicast(func(r *route) { r.gateway = netip.IPv4Unspecified() }), via: neighbourKey{2, addr}, mtu: 1500},
		{name: "MTU of the route", route: unicast(func(r *route) { r.mtu = 1400 }), via: neighbourKey{2, addr}, mtu: 1400},
		{name: "MTU of the route above the link's", route: unicast(func(r *route) { r.mtu = 9000 }), via: neighbourKey{2, addr}, mtu: 1500},
		{name: "the neighbour of a VLAN is on the VLAN device", route: unicast(func(r *route) { r.link = 3 }), via: neighbourKey{3, addr}, mtu: 1500},
		{name: "interface without ARP", route: unicast(func(r *route) { r.link = 5 }), via: neighbourKey{5, addr}, static: true, mtu: 1500},
		{name: "interface down", route: unicast(func(r *route) { r.link = 4 }), via: neighbourKey{4, addr}, mtu: 1500, problem: "eth2 is down"},
		{name: "interface gone", route: unicast(func(r *route) { r.link = 9 }),
			problem: "the route to 198.51.100.11 leads over an interface that is gone"},
		{name: "encapsulated", route: unicast(func(r *route) { r.encapsulated = true }), problem: "the route to 198.51.100.11 encapsulates"},
		{name: "own", route: route{kind: unix.RTN_LOCAL, link: 1}, local: true},
		{name: "broadcast", route: route{kind: unix.RTN_BROADCAST, link: 2}, problem: "198.51.100.11 is a broadcast address"},
		{name: "anycast", route: route{kind: unix.RTN_ANYCAST, link: 2}, problem: "198.51.100.11 is an anycast address"},
		{name: "multicast", route: route{kind: unix.RTN_MULTICAST, link: 2}, problem: "198.51.100.11 is a multicast address"},
		{name: "other kinds", route: route{kind: unix.RTN_NAT}, problem: "the route to 198.51.100.11 is of type 10, which leads nowhere"},
		{name: "none", err: unix.ENETUNREACH, problem: "no route to 198.51.100.11"},
		{name: "none, over an interface that is up", err: unix.ENETUNREACH, last: 2, problem: "no route to 198.51.100.11"},
		{name: "none since the interface went down", err: unix.ENETUNREACH, last: 4, problem: "no route to 198.51.100.11: eth2 is down"},
		{name: "none since the interface went away", err: unix.ENETUNREACH, last: 9, problem: "no route to 198.51.100.11"},
		{name: "unreachable", err: unix.EHOSTUNREACH, problem: "the route to 198.51.100.11 is of type unreachable"},
		{name: "blackhole", err: unix.EINVAL, problem: "the route to 198.51.100.11 is of type blackhole"},
		{name: "prohibit", err: unix.EACCES, problem: "the route to 198.51.100.11 is of type prohibit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.err
			if err != nil {
				err = fmt.Errorf("get route: %w", err)
				if !noWay(err) {
					t.Errorf("%v is not taken as an answer", err)
				}
			}
			p := findPath(addr, test.route, err, all, test.last)
			if p.via != test.via || p.static != test.static || p.template.MTU != test.mtu || p.template.Problem != test.problem ||
				p.template.Gateway != test.gateway || p.template.Local != test.local {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestNoWayIsNotEveryError(t *testing.T) {
	for _, err := range []error{unix.ENOBUFS, unix.EPERM, unix.EBADF, unix.EAGAIN} {
		if noWay(err) {
			t.Errorf("%v is taken as an answer", err)
		}
	}
}

func TestNextHop(t *testing.T) {
	addr, gateway := netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("192.0.2.254")
	linkLocal := netip.MustParseAddr("fe80::11%eth0")
	mac := lvs.MAC{2, 0, 0, 0, 0, 9}
	on := func(addr, via netip.Addr) path {
		p := path{address: addr, via: neighbourKey{2, via}, over: "eth0", template: lvs.NextHop{InterfaceIndex: 2}}
		if via != addr.WithZone("") {
			p.template.Gateway = via
		}
		return p
	}
	static := on(addr, addr)
	static.static = true
	broken := on(addr, addr)
	broken.template.Problem = "eth0 is down"
	own := path{address: addr, template: lvs.NextHop{Local: true}}
	if next, decided := own.nextHop(nil); !decided || next != own.template || !next.Usable() {
		t.Errorf("own address: got %+v, %t", next, decided)
	}
	entry := func(state uint16, m lvs.MAC) *hop { return &hop{entry: neighbour{state: state, mac: m}} }
	tests := []struct {
		name    string
		path    path
		hop     *hop
		decided bool
		problem string
	}{
		{"reachable", on(addr, addr), entry(netlink.NUD_REACHABLE, mac), true, ""},
		{"stale is valid", on(addr, addr), entry(netlink.NUD_STALE, mac), true, ""},
		{"delay is valid", on(addr, addr), entry(netlink.NUD_DELAY, mac), true, ""},
		{"probe is valid", on(addr, addr), entry(netlink.NUD_PROBE, mac), true, ""},
		{"permanent", on(addr, addr), entry(netlink.NUD_PERMANENT, mac), true, ""},
		{"being asked", on(addr, addr), entry(netlink.NUD_INCOMPLETE, lvs.MAC{}), false, ""},
		{"a problem of the path needs no hop", broken, nil, true, "eth0 is down"},
		{"silent", on(addr, addr), &hop{silent: true}, true, "198.51.100.11 does not answer ARP on eth0"},
		{"silent gateway", on(addr, gateway), &hop{silent: true}, true,
			"gateway 192.0.2.254 of 198.51.100.11 does not answer ARP on eth0"},
		{"silent link-local", on(linkLocal, linkLocal.WithZone("")), &hop{silent: true}, true,
			"fe80::11 does not answer neighbour solicitation on eth0"},
		{"entry refused", on(addr, addr), &hop{err: unix.EPERM}, true,
			"neighbour entry of 198.51.100.11 on eth0: operation not permitted"},
		{"static", static, &hop{hopKey: hopKey{static: true}, entry: neighbour{state: netlink.NUD_PERMANENT, mac: mac}}, true, ""},
		{"static, only the kernel's filler", static,
			&hop{hopKey: hopKey{static: true}, entry: neighbour{state: netlink.NUD_NOARP, mac: mac}, silent: true}, true,
			"198.51.100.11 has no permanent neighbour entry on eth0, which does not resolve addresses"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			next, decided := test.path.nextHop(test.hop)
			if decided != test.decided || next.Problem != test.problem {
				t.Fatalf("got %+v, %t", next, decided)
			}
			if want := decided && test.problem == ""; want != (next.Destination == mac) || want != next.Usable() {
				t.Errorf("got %+v", next)
			}
		})
	}
}
