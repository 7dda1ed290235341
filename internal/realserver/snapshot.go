package realserver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A snapshot is what matters of a host, as it was when it was read.
type snapshot struct {
	// sysctls lack what the kernel does not have.
	sysctls   map[string]string
	links     map[string]bool // by name: whether it is up
	addresses []address
	delivery  map[netip.Addr]delivery
	// tunnels are the tunnel ends by interface: what they are, absent or
	// anotherProgram.
	tunnels map[string]string
	proxies []address // that the host answers neighbour solicitations for
	// defaults are the interfaces that IPv4 packets to the world leave by.
	defaults []string
}

// A delivery tells whether packets to a VIP are the host's own, to the kernel.
type delivery int

// The deliveries.
const (
	noRoute   delivery = iota // the VIP has no local route
	shadowed                  // it has one, and a rule or a route comes before it
	delivered                 // they are
)

// An address is one of an interface.
type address struct {
	prefix netip.Prefix
	name   string // of the interface
}

// A kernel is the network namespace that its socket was opened in. Sysctls are
// those of the calling thread's.
type kernel struct{ netlink *netlink.Handle }

func openKernel() (*kernel, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &kernel{handle}, nil
}

func (k *kernel) close() { k.netlink.Close() }

// look reads what matters to the spec, but for the default routes: a host may have
// a million routes, and they are not read each second.
func (k *kernel) look(spec Spec) (snapshot, error) {
	s := snapshot{sysctls: map[string]string{}, links: map[string]bool{}, delivery: map[netip.Addr]delivery{}}
	for _, name := range sysctlsOf(spec) {
		value, err := readSysctl(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return s, err
		}
		s.sysctls[name] = value
	}
	names, err := k.names(s.links)
	if err != nil {
		return s, err
	}
	if err := k.lookAtAddresses(&s, names); err != nil {
		return s, err
	}
	for _, v := range spec {
		if s.delivery[v.Address], err = k.delivery(v.Address); err != nil {
			return s, err
		}
	}
	return s, k.lookAtProxies(&s, names)
}

// names returns the links' names by index, and notes which are up.
func (k *kernel) names(up map[string]bool) (map[int]string, error) {
	links, err := whole(k.netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		up[l.Attrs().Name] = l.Attrs().Flags&net.FlagUp != 0
	}
	return names, nil
}

func (k *kernel) lookAtAddresses(s *snapshot, names map[int]string) error {
	addresses, err := whole(func() ([]netlink.Addr, error) { return k.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		if prefix, ok := prefixOf(a.IPNet); ok {
			s.addresses = append(s.addresses, address{prefix, names[a.LinkIndex]})
		}
	}
	return nil
}

// delivery asks the kernel for the way of a packet to the VIP. Only if that is not
// the host does it list the local routes: a router has many.
func (k *kernel) delivery(vip netip.Addr) (delivery, error) {
	found, err := k.netlink.RouteGet(vip.AsSlice())
	if err == nil && len(found) == 1 && found[0].Type == unix.RTN_LOCAL {
		return delivered, nil
	}
	family := netlink.FAMILY_V4
	if vip.Is6() {
		family = netlink.FAMILY_V6
	}
	local, err := whole(func() ([]netlink.Route, error) {
		filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
		return k.netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return noRoute, fmt.Errorf("list local routes: %w", err)
	}
	for _, r := range local {
		if prefix, ok := prefixOf(r.Dst); ok && prefix == netip.PrefixFrom(vip, vip.BitLen()) {
			return shadowed, nil
		}
	}
	return noRoute, nil
}

func (k *kernel) lookAtProxies(s *snapshot, names map[int]string) error {
	proxies, err := whole(func() ([]netlink.Neigh, error) { return k.netlink.NeighProxyList(0, netlink.FAMILY_V6) })
	if err != nil {
		return fmt.Errorf("list proxied neighbours: %w", err)
	}
	for _, p := range proxies {
		if a, ok := netip.AddrFromSlice(p.IP); ok && p.Flags&netlink.NTF_PROXY != 0 {
			s.proxies = append(s.proxies, address{netip.PrefixFrom(a, a.BitLen()), names[p.LinkIndex]})
		}
	}
	return nil
}

// routes returns the main table of both families.
func (k *kernel) routes() ([]route, error) {
	names, err := k.names(map[string]bool{})
	if err != nil {
		return nil, err
	}
	var all []route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := whole(func() ([]netlink.Route, error) { return k.netlink.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			all = append(all, flatten(r, family, names)...)
		}
	}
	return all, nil
}

// flatten returns the route once for each of its next hops.
func flatten(r netlink.Route, family int, names map[int]string) []route {
	prefix, ok := prefixOf(r.Dst)
	switch {
	case ok || r.Type != unix.RTN_UNICAST:
	case family == netlink.FAMILY_V4:
		prefix, ok = netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	default:
		prefix, ok = netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	}
	if !ok || r.Type != unix.RTN_UNICAST {
		return nil
	}
	hops := r.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex}}
	}
	var all []route
	for _, hop := range hops {
		all = append(all, route{prefix, names[hop.LinkIndex], r.Priority})
	}
	return all
}

// defaultsOf returns the interfaces of the IPv4 default routes of least metric.
func defaultsOf(routes []route) []string {
	var names []string
	least := 0
	for _, r := range routes {
		if !r.prefix.Addr().Is4() || r.prefix.Bits() != 0 || len(names) > 0 && r.metric > least {
			continue
		}
		if r.metric < least {
			names = nil
		}
		least, names = r.metric, append(names, r.name)
	}
	return names
}

// set is the setter of sysctls and of lo's addresses. An address that is there
// already is present, one that is not there is absent; a sysctl that went away
// with its interface has no value to get back.
func (k *kernel) set(s subject, value string) error {
	if s.Kind == kindSysctl {
		return writeSysctl(s.Name, value)
	}
	prefix, err := netip.ParsePrefix(s.Name)
	if err != nil {
		return err
	}
	lo, err := k.netlink.LinkByName(loopback)
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if value == absent {
		if err := k.netlink.AddrDel(lo, loAddress(prefix)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
		return nil
	}
	if err := k.netlink.AddrAdd(lo, loAddress(prefix)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := k.awaitRoute(prefix.Addr()); err != nil {
		return errors.Join(err, k.netlink.AddrDel(lo, loAddress(prefix)))
	}
	return nil
}

// awaitRoute waits for the local route of an address that was added: for IPv6 the
// kernel makes it a moment later (addrconf_dad_work in net/ipv6/addrconf.c).
func (k *kernel) awaitRoute(vip netip.Addr) error {
	const limit, pause = 2 * time.Second, time.Millisecond
	for deadline := time.Now().Add(limit); ; time.Sleep(pause) {
		found, err := k.delivery(vip)
		if err != nil || found != noRoute {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no local route for %s after %s", vip, limit)
		}
	}
}

// loAddress returns the VIP as lo is given it: see the package's words on scope,
// duplicate address detection and lifetime.
func loAddress(prefix netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is4() {
		a.Scope = unix.RT_SCOPE_HOST
		return a
	}
	const forever = 1<<32 - 1
	a.Flags, a.ValidLft, a.PreferedLft = unix.IFA_F_NODAD, forever, 0
	return a
}

func readSysctl(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", dotted(name), err)
	}
	return strings.TrimSpace(string(text)), nil
}

func writeSysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
}

// prefixOf returns false for nil, which is a default route's.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if v4 := n.IP.To4(); v4 != nil && len(n.Mask) == net.IPv4len {
		a = netip.AddrFrom4([4]byte(v4))
	}
	return netip.PrefixFrom(a, bits), ok
}

// whole repeats a listing that changes have interrupted.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	const attempts = 10
	for range attempts - 1 {
		if all, err := list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return list()
}
