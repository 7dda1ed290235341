package neighbor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var errShortMessage = errors.New("message too short")

// A route is what the kernel answers when it is asked for the way to one
// address.
type route struct {
	kind         uint8 // RTN_UNICAST, RTN_LOCAL, ...
	link         int   // interface index
	gateway      netip.Addr
	mtu          int        // 0 when the route sets none
	encapsulated bool       // a lightweight tunnel: MPLS, SRv6, ...
	source       netip.Addr // of the host's own packets; the zero Addr when it has none
}

// A neighbourKey names a neighbour entry of the kernel: the address has no zone.
type neighbourKey struct {
	link    int
	address netip.Addr
}

// A neighbour is a neighbour entry of the kernel.
type neighbour struct {
	neighbourKey
	mac      lvs.MAC // zero when the entry has none
	state    uint16  // NUD_*
	flags    uint8   // NTF_*
	extended uint32  // NTF_EXT_*
	protocol uint8
}

// valid reports whether the kernel would send to the entry's MAC address.
func (n neighbour) valid() bool {
	const valid = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY |
		netlink.NUD_PROBE | netlink.NUD_NOARP | netlink.NUD_PERMANENT
	return n.state&valid != 0 && n.mac != lvs.MAC{}
}

// static reports whether the kernel never resolves the entry itself.
func (n neighbour) static() bool {
	return n.state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0
}

func (n neighbour) managed() bool { return n.extended&netlink.NTF_EXT_MANAGED != 0 }

// A link is what the path over a network interface depends on. It is comparable.
type link struct {
	index    int
	name     string
	mac      lvs.MAC
	ethernet bool
	flags    uint32 // IFF_*
	mtu      int
	vlan     vlan // zero for other devices
}

// A vlan is what a VLAN device adds to its frames, and whom it gives them.
type vlan struct {
	id       uint16
	protocol uint16 // EtherType of the tag
	parent   int    // interface index; 0 when it is in another network namespace
}

// decodeRoute reads an RTM_NEWROUTE that answers RTM_GETROUTE.
func decodeRoute(message []byte) (route, error) {
	if len(message) < unix.SizeofRtMsg {
		return route{}, fmt.Errorf("decode route: %w", errShortMessage)
	}
	header := nl.DeserializeRtMsg(message)
	attributes, err := nl.ParseRouteAttr(message[unix.SizeofRtMsg:])
	if err != nil {
		return route{}, fmt.Errorf("decode route: %v", err)
	}
	r := route{kind: header.Type}
	for _, a := range attributes {
		switch attributeType(a) {
		case unix.RTA_OIF:
			r.link = int(attributeUint32(a))
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_VIA: // a gateway of the other family, behind its two bytes
			r.gateway, _ = netip.AddrFromSlice(a.Value[min(2, len(a.Value)):])
		case unix.RTA_PREFSRC:
			if source, ok := netip.AddrFromSlice(a.Value); ok && !source.IsUnspecified() {
				r.source = source
			}
		case unix.RTA_ENCAP:
			r.encapsulated = true
		case unix.RTA_METRICS:
			r.mtu = decodeMTU(a.Value)
		}
	}
	return r, nil
}

func decodeMTU(metrics []byte) int {
	attributes, err := nl.ParseRouteAttr(metrics)
	if err != nil {
		return 0
	}
	for _, a := range attributes {
		if attributeType(a) == unix.RTAX_MTU {
			return int(attributeUint32(a))
		}
	}
	return 0
}

// decodeDestination returns the destinations that an RTM_NEWROUTE or an
// RTM_DELROUTE is about.
func decodeDestination(message []byte) (netip.Prefix, error) {
	if len(message) < unix.SizeofRtMsg {
		return netip.Prefix{}, fmt.Errorf("decode route destination: %w", errShortMessage)
	}
	header := nl.DeserializeRtMsg(message)
	attributes, err := nl.ParseRouteAttr(message[unix.SizeofRtMsg:])
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("decode route destination: %v", err)
	}
	destination := netip.IPv6Unspecified()
	if header.Family == unix.AF_INET {
		destination = netip.IPv4Unspecified()
	}
	for _, a := range attributes {
		if attributeType(a) == unix.RTA_DST {
			destination, _ = netip.AddrFromSlice(a.Value)
		}
	}
	prefix := netip.PrefixFrom(destination, int(header.Dst_len))
	if !prefix.IsValid() {
		return netip.Prefix{}, fmt.Errorf("decode route destination: %v/%d", destination, header.Dst_len)
	}
	return prefix, nil
}

// decodeNeighbour reads an RTM_NEWNEIGH or RTM_DELNEIGH. It returns false for
// what is not the neighbour entry of an IP address: a bridge's, a proxy's.
func decodeNeighbour(message []byte) (neighbour, bool) {
	var header netlink.Ndmsg // struct ndmsg of linux/neighbour.h
	if len(message) < header.Len() {
		return neighbour{}, false
	}
	n := neighbour{
		neighbourKey: neighbourKey{link: int(binary.NativeEndian.Uint32(message[4:]))},
		state:        binary.NativeEndian.Uint16(message[8:]),
		flags:        message[10],
	}
	family := message[0]
	if (family != unix.AF_INET && family != unix.AF_INET6) || n.flags&netlink.NTF_PROXY != 0 {
		return neighbour{}, false
	}
	attributes, err := nl.ParseRouteAttr(message[header.Len():])
	if err != nil {
		return neighbour{}, false
	}
	for _, a := range attributes {
		switch attributeType(a) {
		case netlink.NDA_DST:
			n.address, _ = netip.AddrFromSlice(a.Value)
		case netlink.NDA_LLADDR:
			n.mac, _ = macFromSlice(a.Value)
		case netlink.NDA_PROTOCOL:
			if len(a.Value) > 0 {
				n.protocol = a.Value[0]
			}
		case netlink.NDA_FLAGS_EXT:
			n.extended = attributeUint32(a)
		}
	}
	return n, n.address.IsValid()
}

// decodeLink reads an RTM_NEWLINK or RTM_DELLINK. It returns false for messages
// that do not describe a whole interface: a bridge's about its port, a wireless
// event.
func decodeLink(message []byte) (link, bool) {
	if len(message) < unix.SizeofIfInfomsg || message[0] != unix.AF_UNSPEC {
		return link{}, false
	}
	decoded, err := netlink.LinkDeserialize(nil, message)
	if err != nil || decoded.Attrs().Name == "" || decoded.Attrs().MTU == 0 {
		return link{}, false
	}
	return newLink(decoded), true
}

func newLink(from netlink.Link) link {
	attributes := from.Attrs()
	l := link{
		index: attributes.Index,
		name:  attributes.Name,
		flags: attributes.RawFlags,
		mtu:   attributes.MTU,
	}
	mac, sixBytes := macFromSlice(attributes.HardwareAddr)
	l.mac = mac
	l.ethernet = attributes.EncapType == "ether" && sixBytes
	if v, ok := from.(*netlink.Vlan); ok {
		l.vlan = vlan{id: uint16(v.VlanId), protocol: uint16(v.VlanProtocol)}
		if attributes.NetNsID < 0 {
			l.vlan.parent = attributes.ParentIndex
		}
	}
	return l
}

func macFromSlice(b []byte) (lvs.MAC, bool) {
	if len(b) != len(lvs.MAC{}) {
		return lvs.MAC{}, false
	}
	return lvs.MAC(b), true
}

func attributeType(a syscall.NetlinkRouteAttr) uint16 {
	return a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
}

// attributeUint32 returns 0 for an attribute of another size.
func attributeUint32(a syscall.NetlinkRouteAttr) uint32 {
	if len(a.Value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.Value)
}
