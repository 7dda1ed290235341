package neighbor

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// message is a netlink header and its attributes as they come from the kernel.
func message(header []byte, attributes ...*nl.RtAttr) []byte {
	m := append([]byte(nil), header...)
	for _, a := range attributes {
		m = append(m, a.Serialize()...)
	}
	return m
}

func routeMessage(header unix.RtMsg, attributes ...*nl.RtAttr) []byte {
	return message((&nl.RtMsg{RtMsg: header}).Serialize(), attributes...)
}

func TestDecodeRoute(t *testing.T) {
	metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
	metrics.AddRtAttr(unix.RTAX_HOPLIMIT, nl.Uint32Attr(7))
	metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(1400))
	six := netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name       string
		attributes []*nl.RtAttr
		want       route
	}{
		{"interface", []*nl.RtAttr{nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(3))}, route{kind: unix.RTN_UNICAST, link: 3}},
		{"gateway", []*nl.RtAttr{nl.NewRtAttr(unix.RTA_GATEWAY, []byte{192, 0, 2, 1})},
			route{kind: unix.RTN_UNICAST, gateway: netip.MustParseAddr("192.0.2.1")}},
		{"gateway of the other family", []*nl.RtAttr{nl.NewRtAttr(unix.RTA_VIA, append([]byte{unix.AF_INET6, 0}, six.AsSlice()...))},
			route{kind: unix.RTN_UNICAST, gateway: six}},
		{"MTU", []*nl.RtAttr{metrics}, route{kind: unix.RTN_UNICAST, mtu: 1400}},
		{"encapsulated", []*nl.RtAttr{nl.NewRtAttr(unix.RTA_ENCAP|unix.NLA_F_NESTED, []byte{0, 0, 0, 0})},
			route{kind: unix.RTN_UNICAST, encapsulated: true}},
		{"short attributes", []*nl.RtAttr{nl.NewRtAttr(unix.RTA_OIF, []byte{1}), nl.NewRtAttr(unix.RTA_VIA, []byte{1})},
			route{kind: unix.RTN_UNICAST}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeRoute(routeMessage(unix.RtMsg{Family: unix.AF_INET, Type: unix.RTN_UNICAST}, test.attributes...))
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestDecodeDestination(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::")
	tests := []struct {
		header     unix.RtMsg
		attributes []*nl.RtAttr
		want       string
	}{
		{unix.RtMsg{Family: unix.AF_INET}, nil, "0.0.0.0/0"},
		{unix.RtMsg{Family: unix.AF_INET6}, nil, "::/0"},
		{unix.RtMsg{Family: unix.AF_INET, Dst_len: 24}, []*nl.RtAttr{nl.NewRtAttr(unix.RTA_DST, []byte{192, 0, 2, 0})}, "192.0.2.0/24"},
		{unix.RtMsg{Family: unix.AF_INET6, Dst_len: 64}, []*nl.RtAttr{nl.NewRtAttr(unix.RTA_DST, six.AsSlice())}, "2001:db8::/64"},
	}
	for _, test := range tests {
		got, err := decodeDestination(routeMessage(test.header, test.attributes...))
		if err != nil || got.String() != test.want {
			t.Errorf("got %v, %v; want %s", got, err, test.want)
		}
	}
	if got, err := decodeDestination(routeMessage(unix.RtMsg{Family: unix.AF_INET, Dst_len: 33})); err == nil {
		t.Errorf("33 bits of IPv4: got %v", got)
	}
}

func TestDecodeNeighbour(t *testing.T) {
	header := netlink.Ndmsg{Family: unix.AF_INET, Index: 3, State: netlink.NUD_REACHABLE, Flags: netlink.NTF_EXT_LEARNED}
	address := nl.NewRtAttr(netlink.NDA_DST, []byte{192, 0, 2, 1})
	mac := lvs.MAC{2, 0, 0, 0, 0, 1}
	got, ok := decodeNeighbour(message(header.Serialize(), address,
		nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]),
		nl.NewRtAttr(netlink.NDA_PROTOCOL, nl.Uint8Attr(Protocol)),
		nl.NewRtAttr(netlink.NDA_FLAGS_EXT, nl.Uint32Attr(netlink.NTF_EXT_MANAGED))))
	want := neighbour{
		neighbourKey: neighbourKey{3, netip.MustParseAddr("192.0.2.1")}, mac: mac, state: netlink.NUD_REACHABLE,
		flags: netlink.NTF_EXT_LEARNED, extended: netlink.NTF_EXT_MANAGED, protocol: Protocol,
	}
	if !ok || got != want {
		t.Errorf("got %+v, %t; want %+v", got, ok, want)
	}
	proxy, bridge := header, header
	proxy.Flags |= netlink.NTF_PROXY
	bridge.Family = unix.AF_BRIDGE
	for name, m := range map[string][]byte{
		"proxy": message(proxy.Serialize(), address), "bridge": message(bridge.Serialize(), address),
		"no address": header.Serialize(), "empty": nil, "cut": header.Serialize()[:11],
	} {
		if got, ok := decodeNeighbour(m); ok {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestNewLink(t *testing.T) {
	attributes := netlink.LinkAttrs{
		Index: 3, Name: "eth0.100", MTU: 1500, RawFlags: ready, EncapType: "ether", ParentIndex: 2, NetNsID: -1,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 3},
	}
	elsewhere, tunnel := attributes, attributes
	elsewhere.NetNsID = 0
	tunnel.EncapType, tunnel.HardwareAddr = "ipip", net.HardwareAddr{192, 0, 2, 1}
	plain := link{index: 3, name: "eth0.100", mac: lvs.MAC{2, 0, 0, 0, 0, 3}, ethernet: true, flags: ready, mtu: 1500}
	dot1q := vlan{id: 100, protocol: 0x8100, parent: 2}
	tests := []struct {
		name string
		in   netlink.Link
		want link
	}{
		{"a parent that is none: veth", &netlink.Veth{LinkAttrs: attributes}, plain},
		{"VLAN", &netlink.Vlan{LinkAttrs: attributes, VlanId: 100, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q},
			plain.with(func(l *link) { l.vlan = dot1q })},
		{"VLAN of another namespace", &netlink.Vlan{LinkAttrs: elsewhere, VlanId: 100, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q},
			plain.with(func(l *link) { l.vlan = vlan{id: 100, protocol: 0x8100} })},
		{"tunnel", &netlink.Iptun{LinkAttrs: tunnel}, plain.with(func(l *link) { l.ethernet, l.mac = false, lvs.MAC{} })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := newLink(test.in); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestDecodeCutMessages(t *testing.T) {
	whole := routeMessage(unix.RtMsg{Family: unix.AF_INET, Dst_len: 24},
		nl.NewRtAttr(unix.RTA_DST, []byte{192, 0, 2, 0}), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(3)))
	for length := range whole {
		_, err := decodeRoute(whole[:length])
		_, destinationErr := decodeDestination(whole[:length])
		if length < unix.SizeofRtMsg && (err == nil || destinationErr == nil) {
			t.Errorf("%d bytes are taken as a route", length)
		}
		if l, ok := decodeLink(whole[:length]); ok {
			t.Errorf("%d bytes of a route are taken as a link: %+v", length, l)
		}
	}
}
