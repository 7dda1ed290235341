package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/ethtool"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	insideName = "probe"
	// mtu fits into every tunnel on an Ethernet: what a check sends is small.
	mtu = 1280
	// The source ports lie below those that Linux gives to others by default, so that
	// no conversation of the host itself can be mistaken for a probe.
	firstPort, lastPort = 20000, 32767
)

// insideMAC is of a link with two ends, where nobody else is.
var insideMAC = lvs.MAC{0x02, 'f', 'a', 'i', 'r', 0x01}

// A Route is what a conversation's packets do outside the namespace.
type Route struct {
	Protocol            lvs.Protocol // TCP, UDP, ICMP or ICMPv6
	Source, Destination netip.AddrPort
	Server              lvs.RealServer // by whose forwarding method
	NextHop             lvs.NextHop
}

// A Carrier takes packets out of the namespace and brings the answers back.
type Carrier interface {
	// Listen makes answers find their way that come in on an interface.
	Listen(ifindex int) error
	// Route says where the packets of one conversation go.
	Route(Route) error
	Close() error
}

// A Namespace opens conversations. It is safe for concurrent use.
type Namespace struct {
	carrier Carrier
	tasks   chan func()
	ended   chan struct{}
	outside string
	echo    atomic.Uint32
	stocks  [2]stock // of IPv4 and of IPv6

	mu        sync.Mutex
	addresses map[netip.Addr]bool
}

// New makes the namespace, and a link into it whose outer end is outside in the
// namespace of the caller. carry is given the index of that end and the MAC address of
// the inner one. All of it goes with the process, however that ends.
func New(carry func(outside int, inside lvs.MAC) (Carrier, error)) (*Namespace, error) {
	n := &Namespace{
		tasks: make(chan func()), ended: make(chan struct{}), addresses: map[netip.Addr]bool{},
		outside: "probe" + strconv.Itoa(os.Getpid()),
	}
	handle := make(chan int)
	failed := make(chan error, 1)
	go n.live(handle, failed)
	var inner int
	select {
	case err := <-failed:
		return nil, err
	case inner = <-handle:
	}
	index, err := n.link(inner)
	if err == nil {
		err = n.do(n.prepare)
	}
	if err == nil {
		n.carrier, err = carry(index, insideMAC)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the namespace of health checks: %w", err), n.Close())
	}
	return n, nil
}

// live has a thread in the namespace until tasks is closed; the thread ends then.
func (n *Namespace) live(handle chan<- int, failed chan<- error) {
	runtime.LockOSThread() // and never unlocked
	defer close(n.ended)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		failed <- fmt.Errorf("make the namespace of health checks: %w", err)
		return
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		failed <- fmt.Errorf("make the namespace of health checks: %w", err)
		return
	}
	handle <- fd
	for task := range n.tasks {
		task()
	}
	unix.Close(fd)
}

// do runs a task in the namespace. It should not wait for anything.
func (n *Namespace) do(task func() error) error {
	done := make(chan error, 1)
	n.tasks <- func() { done <- task() }
	return <-done
}

// link makes the link, and returns the index of its outer end.
func (n *Namespace) link(inner int) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = n.outside, mtu
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: insideName, PeerNamespace: netlink.NsFd(inner), PeerHardwareAddr: net.HardwareAddr(insideMAC[:]),
		PeerMTU: mtu,
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, fmt.Errorf("add link %s: %w", n.outside, err)
	}
	link, err := netlink.LinkByName(n.outside)
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", n.outside, err)
	}
	// The host has nothing to say on it: no router solicitations, no address.
	setting := "/proc/sys/net/ipv6/conf/" + n.outside + "/disable_ipv6"
	if err := os.WriteFile(setting, []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("set link %s up: %w", n.outside, err)
	}
	return link.Attrs().Index, nil
}

// prepare sets the namespace's side up: everything is reached by the link, and nobody
// is asked for a MAC address.
func (n *Namespace) prepare() error {
	for name, value := range map[string]string{
		"ipv4/ip_local_port_range": fmt.Sprintf("%d %d", firstPort, lastPort),
		"ipv6/conf/all/accept_dad": "0", "ipv6/conf/" + insideName + "/accept_dad": "0",
		"ipv6/conf/" + insideName + "/accept_ra": "0", "ipv6/conf/" + insideName + "/addr_gen_mode": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/" + insideName + "/rp_filter": "0",
	} {
		err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
		if err != nil && !(errors.Is(err, os.ErrNotExist) && name[:4] == "ipv6") {
			return err
		}
	}
	link, err := netlink.LinkByName(insideName)
	if err != nil {
		return fmt.Errorf("find link %s: %w", insideName, err)
	}
	// Packets are finished before they leave: a tunnel's checksum is of what is in it.
	if err := ethtool.Set(insideName, 0, ethtool.TxChecksum, ethtool.TSO, ethtool.GSO); err != nil {
		return fmt.Errorf("switch offloads off: %w", err)
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("set link %s up: %w", insideName, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", insideName, err)
	}
	for _, everywhere := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		bits := everywhere.Addr().BitLen()
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: everywhere.Addr().AsSlice(), Mask: net.CIDRMask(0, bits)},
		}
		err := netlink.RouteAdd(route)
		if err != nil && !(bits == 128 && errors.Is(err, unix.EOPNOTSUPP)) {
			return fmt.Errorf("add route %s: %w", everywhere, err)
		}
	}
	return nil
}

// own gives the namespace an address, which must be the host's, from which probes come.
func (n *Namespace) own(addr netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addresses[addr] {
		return nil
	}
	err := n.do(func() error {
		link, err := netlink.LinkByName(insideName)
		if err != nil {
			return err
		}
		bits := addr.BitLen()
		address := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, bits)}}
		if bits == 128 {
			address.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrAdd(link, address)
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("give the namespace of health checks the address %s: %w", addr, err)
	}
	n.addresses[addr] = true
	return nil
}

// Close takes the namespace down. No Dial may go on or come.
func (n *Namespace) Close() error {
	close(n.tasks)
	<-n.ended
	for i := range n.stocks {
		n.stocks[i].clear()
	}
	var err error
	if n.carrier != nil {
		err = n.carrier.Close()
	}
	link, missing := netlink.LinkByName(n.outside)
	if missing != nil {
		return err
	}
	// The kernel removes it with the namespace: that may come in between.
	if failed := netlink.LinkDel(link); failed != nil && !errors.Is(failed, unix.ENODEV) {
		err = errors.Join(err, fmt.Errorf("delete link %s: %w", n.outside, failed))
	}
	return err
}

// Dial opens a conversation of "tcp", "udp" or "icmp" from an address of the host to
// destination, whose packets go to server by hop. A TCP connection is ended by a RST when it
// is closed, so that the server need not remember it.
func (n *Namespace) Dial(ctx context.Context, network string, source netip.Addr, destination netip.AddrPort, server lvs.RealServer, hop lvs.NextHop) (net.Conn, error) {
	if err := n.own(source); err != nil {
		return nil, err
	}
	if err := n.carrier.Listen(hop.InterfaceIndex); err != nil {
		return nil, err
	}
	switch network {
	case "icmp":
		return n.dialICMP(source, Route{Destination: netip.AddrPortFrom(destination.Addr(), 0), Server: server, NextHop: hop})
	case "udp":
		return n.dialUDP(source, Route{Destination: destination, Server: server, NextHop: hop})
	}
	return n.dialTCP(ctx, source, Route{Destination: destination, Server: server, NextHop: hop})
}
