package neighbor

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A path is where the routing of the director sends what is for one real server,
// short of the neighbour's answer.
type path struct {
	address  netip.Addr // the real server
	via      neighbourKey
	static   bool   // only a permanent neighbour entry can help
	over     string // name of the interface in the routing table
	template lvs.NextHop
}

// findPath joins the kernel's answer for addr with the links. The path is
// always told in full as far as it goes; template.Problem is set when it does
// not go all the way. err is an error for which noWay is true, or nil.
// last is the interface that led to addr before, 0 when none did.
func findPath(addr netip.Addr, r route, err error, links links, last int) path {
	p := path{address: addr}
	if err != nil {
		p.template.Problem = routeProblem(addr, err, links[last])
		return p
	}
	if r.kind == unix.RTN_LOCAL {
		p.template.Local = true
		return p
	}
	if problem := kindProblem(addr, r); problem != "" {
		p.template.Problem = problem
		return p
	}
	out, ok := links[r.link]
	if !ok {
		p.template.Problem = fmt.Sprintf("the route to %s leads over an interface that is gone", addr)
		return p
	}
	p.via = neighbourKey{link: out.index, address: addr.WithZone("")}
	if r.gateway.IsValid() && !r.gateway.IsUnspecified() {
		p.via.address = r.gateway
	}
	p.over = out.name
	p.static = out.flags&unix.IFF_NOARP != 0
	p.template = sender(out, links)
	if p.via.address != addr.WithZone("") {
		p.template.Gateway = p.via.address
	}
	p.template.SourceIP = r.source
	if r.mtu != 0 {
		p.template.MTU = min(r.mtu, out.mtu)
	}
	return p
}

// nextHop returns the next hop of a path whose neighbour answered with n, or did
// not answer. It returns false while that is undecided.
func (p path) nextHop(h *hop) (lvs.NextHop, bool) {
	next := p.template
	switch {
	case next.Problem != "", next.Local:
	case h.answered():
		next.Destination = h.entry.mac
	case h.err != nil:
		next.Problem = fmt.Sprintf("neighbour entry of %s on %s: %v", p.via.address, p.over, h.err)
	case h.silent:
		next.Problem = p.silence()
	default:
		return lvs.NextHop{}, false
	}
	return next, true
}

// silence says that the neighbour does not answer.
func (p path) silence() string {
	who := p.via.address.String()
	if p.template.Gateway.IsValid() {
		who = fmt.Sprintf("gateway %s of %s", who, p.address)
	}
	if p.static {
		return fmt.Sprintf("%s has no permanent neighbour entry on %s, which does not resolve addresses", who, p.over)
	}
	question := "neighbour solicitation"
	if p.via.address.Is4() {
		question = "ARP"
	}
	return fmt.Sprintf("%s does not answer %s on %s", who, question, p.over)
}

// sender returns the next hop over an interface without its destination: the
// device that sends, with the tag if out is a VLAN device, out's MAC address and
// MTU, or the problem that keeps it from sending.
func sender(out link, links links) lvs.NextHop {
	next := lvs.NextHop{InterfaceIndex: out.index, InterfaceName: out.name, Source: out.mac, MTU: out.mtu}
	next.Problem = linkProblem(out)
	if out.vlan.protocol == 0 {
		return next
	}
	device, ok := links[out.vlan.parent]
	switch {
	case !ok:
		next.Problem = fmt.Sprintf("%s is a VLAN of an interface in another network namespace", out.name)
		return next
	case out.vlan.protocol != uint16(netlink.VLAN_PROTOCOL_8021Q):
		next.Problem = fmt.Sprintf("%s is not an 802.1Q VLAN", out.name)
		return next
	case device.vlan.protocol != 0:
		next.Problem = fmt.Sprintf("%s is a VLAN inside the VLAN %s: only one tag can be set", out.name, device.name)
		return next
	}
	next.InterfaceIndex = device.index
	next.InterfaceName = device.name
	next.VLAN = out.vlan.id
	if next.Problem == "" {
		next.Problem = linkProblem(device)
	}
	return next
}

// linkProblem says why no frame can leave through l, "" when one can.
func linkProblem(l link) string {
	switch {
	case !l.ethernet:
		return fmt.Sprintf("%s is not an Ethernet interface", l.name)
	case l.flags&unix.IFF_UP == 0:
		return fmt.Sprintf("%s is down", l.name)
	case l.flags&unix.IFF_LOWER_UP == 0:
		return fmt.Sprintf("%s has no carrier", l.name)
	}
	return ""
}

// kindProblem says why a route of the table is no way to a real server, "" when
// it is one.
func kindProblem(addr netip.Addr, r route) string {
	switch r.kind {
	case unix.RTN_UNICAST:
		if r.encapsulated {
			return fmt.Sprintf("the route to %s encapsulates", addr)
		}
		return ""
	case unix.RTN_BROADCAST:
		return fmt.Sprintf("%s is a broadcast address", addr)
	case unix.RTN_ANYCAST:
		return fmt.Sprintf("%s is an anycast address", addr)
	case unix.RTN_MULTICAST:
		return fmt.Sprintf("%s is a multicast address", addr)
	}
	return fmt.Sprintf("the route to %s is of type %d, which leads nowhere", addr, r.kind)
}

// noWay reports whether an error of conn.route is the routing table's answer
// rather than a request that went wrong. The errnos are those of the route types
// in fib_props of net/ipv4/fib_semantics.c; IPv6 answers the same. ENODEV is for
// an interface that is gone.
func noWay(err error) bool {
	for _, errno := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES, unix.ENODEV} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// routeProblem names the answer err, for which noWay is true. last is the link
// that led to addr before, or the zero value.
func routeProblem(addr netip.Addr, err error, last link) string {
	switch {
	case errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Sprintf("the route to %s is of type unreachable", addr)
	case errors.Is(err, unix.EINVAL):
		return fmt.Sprintf("the route to %s is of type blackhole", addr)
	case errors.Is(err, unix.EACCES):
		return fmt.Sprintf("the route to %s is of type prohibit", addr)
	case last.name != "" && last.flags&unix.IFF_UP == 0:
		return fmt.Sprintf("no route to %s: %s is down", addr, last.name)
	}
	return fmt.Sprintf("no route to %s", addr)
}
