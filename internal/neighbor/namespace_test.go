package neighbor

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// A namespace is a network namespace that ends with its test.
type namespace struct {
	testhost.Namespace
	t       *testing.T
	netlink *netlink.Handle
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	own := testhost.NewNamespace(t)
	handle, err := netlink.NewHandleAt(own.NsHandle, unix.NETLINK_ROUTE)
	mustDo(t, "open netlink", err)
	t.Cleanup(handle.Close)
	n := &namespace{own, t, handle}
	// Else IPv6 is silent for a second or two after an interface comes up.
	n.sysctl(map[string]string{"ipv6/conf/default/accept_dad": "0", "ipv6/conf/default/dad_transmits": "0"})
	n.up("lo")
	return n
}

// do calls f on a thread in the namespace.
func (n *namespace) do(f func() error) {
	n.t.Helper()
	mustDo(n.t, "work in network namespace", n.Do(f))
}

// sysctl writes settings under /proc/sys/net.
func (n *namespace) sysctl(settings map[string]string) {
	n.t.Helper()
	n.do(func() error {
		for name, value := range settings {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// join makes a veth pair between two namespaces and waits until both ends are
// ready: before, the kernel drops what it sends, and asks again a second later.
func (n *namespace) join(name string, peer *namespace, peerName string) {
	n.t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	mustDo(n.t, "make veth pair", n.netlink.LinkAdd(&netlink.Veth{
		LinkAttrs:     attributes,
		PeerName:      peerName,
		PeerNamespace: netlink.NsFd(peer.NsHandle),
	}))
	n.up(name)
	peer.up(peerName)
	eventually(n.t, name+" is ready", func() bool { return n.ready(name) && peer.ready(peerName) })
}

// ready reports whether an interface has a carrier and the link-local address from
// which the kernel sends neighbour solicitations.
func (n *namespace) ready(name string) bool {
	n.t.Helper()
	l := n.link(name)
	addresses, err := n.netlink.AddrList(l, unix.AF_INET6)
	mustDo(n.t, "list addresses of "+name, err)
	return l.Attrs().OperState == netlink.OperUp && slices.ContainsFunc(addresses, func(a netlink.Addr) bool {
		return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
	})
}

func (n *namespace) link(name string) netlink.Link {
	n.t.Helper()
	l, err := n.netlink.LinkByName(name)
	mustDo(n.t, "find "+name, err)
	return l
}

func (n *namespace) index(name string) int {
	n.t.Helper()
	return n.link(name).Attrs().Index
}

func (n *namespace) mac(name string) lvs.MAC {
	n.t.Helper()
	return lvs.MAC(n.link(name).Attrs().HardwareAddr)
}

func (n *namespace) setMAC(name string, mac lvs.MAC) {
	n.t.Helper()
	mustDo(n.t, "set address of "+name, n.netlink.LinkSetHardwareAddr(n.link(name), mac[:]))
}

func (n *namespace) up(name string) {
	n.t.Helper()
	mustDo(n.t, "set "+name+" up", n.netlink.LinkSetUp(n.link(name)))
}

func (n *namespace) down(name string) {
	n.t.Helper()
	mustDo(n.t, "set "+name+" down", n.netlink.LinkSetDown(n.link(name)))
}

// carrierLost returns a channel that is closed when the kernel tells that the
// interface has lost its carrier.
func (n *namespace) carrierLost(name string) <-chan struct{} {
	n.t.Helper()
	updates, stop, lost := make(chan netlink.LinkUpdate), make(chan struct{}), make(chan struct{})
	n.t.Cleanup(func() { close(stop) })
	mustDo(n.t, "subscribe to links", netlink.LinkSubscribeAt(n.NsHandle, updates, stop))
	go func() {
		for u := range updates {
			if u.Attrs().Name == name && u.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
				close(lost)
				break
			}
		}
		for range updates { // until it is stopped
		}
	}()
	return lost
}

// address gives an interface an address with its prefix, and waits until it would
// answer: the kernel joins the group of an IPv6 address some time later.
func (n *namespace) address(name, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	mustDo(n.t, "parse "+prefix, err)
	addr.Flags = unix.IFA_F_NODAD
	mustDo(n.t, "add address "+prefix, n.netlink.AddrAdd(n.link(name), addr))
	if addr.IP.To4() == nil {
		group := fmt.Sprintf("ff0200000000000000000001ff%x", []byte(addr.IP[13:]))
		eventually(n.t, prefix+" answers", func() bool { return n.joined(group) })
	}
}

// joined reports whether an interface belongs to an IPv6 multicast group.
func (n *namespace) joined(group string) bool {
	n.t.Helper()
	var groups []byte
	n.do(func() (err error) {
		groups, err = os.ReadFile("/proc/thread-self/net/igmp6")
		return err
	})
	return bytes.Contains(groups, []byte(group))
}

func (n *namespace) removeAddress(name, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	mustDo(n.t, "parse "+prefix, err)
	mustDo(n.t, "delete address "+prefix, n.netlink.AddrDel(n.link(name), addr))
}

// route adds or replaces a route.
func (n *namespace) route(prefix string, r netlink.Route) {
	n.t.Helper()
	r.Dst = mustParsePrefix(n.t, prefix)
	mustDo(n.t, "set route "+prefix, n.netlink.RouteReplace(&r))
}

// via is a route through a gateway on an interface.
func (n *namespace) via(gateway, name string) netlink.Route {
	n.t.Helper()
	return netlink.Route{Gw: net.ParseIP(gateway), LinkIndex: n.index(name)}
}

// neighbour returns the kernel's entry, false when there is none.
func (n *namespace) neighbour(name, addr string) (netlink.Neigh, bool) {
	n.t.Helper()
	entries, err := n.netlink.NeighList(n.index(name), 0)
	mustDo(n.t, "list neighbours", err)
	for _, e := range entries {
		if e.IP.Equal(net.ParseIP(addr)) {
			return e, true
		}
	}
	return netlink.Neigh{}, false
}

func (n *namespace) setNeighbour(name, addr string, mac lvs.MAC, state int) {
	n.t.Helper()
	mustDo(n.t, "set neighbour", n.netlink.NeighSet(&netlink.Neigh{
		LinkIndex: n.index(name), IP: net.ParseIP(addr), HardwareAddr: mac[:], State: state,
	}))
}

func (n *namespace) deleteNeighbour(name, addr string) {
	n.t.Helper()
	mustDo(n.t, "delete neighbour",
		n.netlink.NeighDel(&netlink.Neigh{LinkIndex: n.index(name), IP: net.ParseIP(addr)}))
}

func mustParsePrefix(t *testing.T, prefix string) *net.IPNet {
	t.Helper()
	p, err := netip.ParsePrefix(prefix)
	mustDo(t, "parse "+prefix, err)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func mustDo(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", what, err))
	}
}
