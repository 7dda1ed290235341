package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/realserver"
)

// build makes the namespaces, the switch and every host on it.
func (l *Lab) build(ctx context.Context) error {
	if err := l.createHost(Switch); err != nil {
		return err
	}
	if err := l.within(Switch, func() error { return buildSwitch(l.segments()) }); err != nil {
		return fmt.Errorf("build switch: %w", err)
	}
	for _, host := range l.hosts {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := l.buildHost(host); err != nil {
			return fmt.Errorf("build host %s: %w", host.Name, err)
		}
	}
	return nil
}

func (l *Lab) buildHost(host Host) error {
	if err := l.createHost(host.Name); err != nil {
		return err
	}
	translates := l.state.Method.translates()
	routes := host.Name == Router || host.Name == Director && translates
	err := l.within(host.Name, func() error {
		if err := prepareHost(routes); err != nil || !translates {
			return err
		}
		return straightenOut()
	})
	if err != nil {
		return err
	}
	for _, p := range l.ports {
		if p.Name != host.Name {
			continue
		}
		if err := l.plug(p); err != nil {
			return err
		}
	}
	return l.within(host.Name, func() error {
		switch {
		case host.Name == Director:
			return l.addVirtual()
		case isServer(host.Name) && l.state.Method == Masquerading:
			return l.routeBack()
		case isServer(host.Name) && !translates:
			return setUpServer(l.runDirectory(host.Name), l.state.Method)
		}
		return nil
	})
}

func (l *Lab) createHost(name string) error {
	ns, err := createNamespace(l.namespacePath(name))
	if err != nil {
		return err
	}
	l.namespaces[name] = ns
	return nil
}

// plug gives a host an interface, with the other end on the switch, its addresses
// and routes.
func (l *Lab) plug(p port) error {
	peer := netlink.NsFd(l.namespaces[p.Name].handle)
	if err := l.within(Switch, func() error { return addPort(p, peer) }); err != nil {
		return err
	}
	return l.within(p.Name, func() error { return addressPort(p, l.gateways(p)) })
}

// segments returns the bridges of the lab.
func (l *Lab) segments() []string {
	var all []string
	for _, p := range l.ports {
		if !slices.Contains(all, p.segment) {
			all = append(all, p.segment)
		}
	}
	return all
}

// buildSwitch works in the switch's namespace. The switch has no address but lo's, and
// says nothing of its own.
func buildSwitch(segments []string) error {
	err := setSysctls(map[string]string{
		"net/ipv6/conf/all/disable_ipv6":     "1",
		"net/ipv6/conf/default/disable_ipv6": "1",
	})
	if err != nil {
		return err
	}
	// Where the kernel lets packet filters see bridged frames, this switch asks
	// none.
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		if err := setSysctl("net/bridge/bridge-nf-call-"+name, "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := setUp("lo"); err != nil { // for captures
		return err
	}
	flood := false
	for _, segment := range segments {
		if err := addLink(&netlink.Bridge{LinkAttrs: namedLink(segment), MulticastSnooping: &flood}); err != nil {
			return err
		}
	}
	return nil
}

// prepareHost works in the host's namespace, before it has its interfaces.
func prepareHost(forward bool) error {
	forwarding := "0"
	if forward {
		forwarding = "1"
	}
	settings := map[string]string{
		"net/ipv4/ip_forward":              forwarding,
		"net/ipv6/conf/all/forwarding":     forwarding,
		"net/ipv6/conf/default/forwarding": forwarding,
		// Addresses are usable at once.
		"net/ipv6/conf/all/accept_dad":               "0",
		"net/ipv6/conf/default/accept_dad":           "0",
		"net/ipv6/conf/default/dad_transmits":        "0",
		"net/ipv6/conf/default/accept_ra":            "0",
		"net/ipv6/conf/default/router_solicitations": "0",
		// Reports of multicast groups are repeated at once, not in between what is shown:
		// the switch would learn from them who is where.
		"net/ipv6/conf/default/mldv1_unsolicited_report_interval": "1",
		"net/ipv6/conf/default/mldv2_unsolicited_report_interval": "1",
	}
	for _, scope := range []string{"all", "default", "lo"} {
		settings["net/ipv4/conf/"+scope+"/arp_ignore"] = "0"
		settings["net/ipv4/conf/"+scope+"/arp_announce"] = "0"
		settings["net/ipv4/conf/"+scope+"/rp_filter"] = "0"
	}
	return setSysctls(settings)
}

// straightenOut works in the host's namespace, before it has its interfaces. The director
// stands between hosts of one segment, which must not be told of a shorter way.
func straightenOut() error {
	settings := map[string]string{}
	for _, scope := range []string{"all", "default"} {
		settings["net/ipv4/conf/"+scope+"/send_redirects"] = "0"
		settings["net/ipv4/conf/"+scope+"/accept_redirects"] = "0"
		settings["net/ipv6/conf/"+scope+"/accept_redirects"] = "0"
	}
	return setSysctls(settings)
}

// routeBack works in a real server's namespace. A client on its own segment is behind the
// director, too.
func (l *Lab) routeBack() error {
	client, director := l.hosts[0], l.hosts[1]
	if l.state.Topology == Routed {
		return nil
	}
	for _, family := range []Family{IPv4, IPv6} {
		to, via := client.Address(family), director.Address(family)
		route := &netlink.Route{
			Dst: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(to.BitLen(), to.BitLen())},
			Gw:  via.AsSlice(),
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add route to %s via %s: %w", to, via, err)
		}
	}
	return nil
}

// addPort works in the switch's namespace.
func addPort(p port, peer netlink.NsFd) error {
	veth := netlink.NewVeth(namedLink(p.name))
	veth.PeerName = p.device
	veth.PeerHardwareAddr = net.HardwareAddr(p.MAC[:])
	veth.PeerNamespace = peer
	veth.HardwareAddr = net.HardwareAddr{0x02, 0, 0, 0, 0x01 + p.MAC[4], p.MAC[5]}
	if err := addLink(veth); err != nil {
		return err
	}
	master, err := netlink.LinkByName(p.segment)
	if err != nil {
		return fmt.Errorf("find %s: %w", p.segment, err)
	}
	if err := netlink.LinkSetMaster(veth, master); err != nil {
		return fmt.Errorf("plug %s into %s: %w", p.name, p.segment, err)
	}
	if p.Name == Director {
		return receiveFromXDP(p.name)
	}
	return nil
}

// addressPort works in the host's namespace.
func addressPort(p port, gateways []netip.Addr) error {
	if err := finishFramesInSoftware(p.device); err != nil {
		return err
	}
	for _, device := range []string{"lo", p.device} {
		if err := setUp(device); err != nil {
			return err
		}
	}
	for _, prefix := range []netip.Prefix{p.IPv4, p.IPv6} {
		if err := addAddress(p.device, prefix, math.MaxUint32); err != nil {
			return err
		}
	}
	for _, gateway := range gateways {
		if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("add default route via %s: %w", gateway, err)
		}
	}
	return nil
}

// addVirtual works in the director's namespace. It adds the VIPs, and the local addresses.
func (l *Lab) addVirtual() error {
	all := []netip.Addr{IPv4.VIP(), IPv6.VIP()}
	if l.state.Method == FullNAT {
		all = append(all, IPv4.LocalAddress(), IPv6.LocalAddress())
	}
	for _, addr := range all {
		preferred := math.MaxUint32
		if addr.Is6() {
			preferred = 0 // never the source of what the host says itself
		}
		if err := addAddress(hostInterface, hostPrefix(addr), preferred); err != nil {
			return err
		}
	}
	return nil
}

// setUpServer works in the real server's namespace. It solves the ARP problem, and
// ends the tunnel, as `fairlead realserver up` does, whose other commands then work on the host too.
func setUpServer(runDirectory string, method Method) error {
	request, err := method.request()
	if err != nil {
		return err
	}
	server, err := realserver.Open(realserver.Config{RunDir: runDirectory})
	if err != nil {
		return err
	}
	defer server.Close()
	_, err = server.Up(request, false)
	return err
}

func isServer(name string) bool { return strings.HasPrefix(name, "rs") }

func hostPrefix(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

func namedLink(name string) netlink.LinkAttrs {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	return attributes
}

func addLink(link netlink.Link) error {
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("add link %s: %w", link.Attrs().Name, err)
	}
	return setUp(link.Attrs().Name)
}

func setUp(device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", device, err)
	}
	return nil
}

// addAddress adds an address without duplicate address detection; preferred is
// for how many seconds the host may choose it as a source, MaxUint32 for ever.
func addAddress(device string, prefix netip.Prefix, preferred int) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	addr := &netlink.Addr{
		IPNet: &net.IPNet{
			IP:   prefix.Addr().AsSlice(),
			Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		},
		ValidLft:    math.MaxUint32,
		PreferedLft: preferred,
	}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", prefix, device, err)
	}
	return nil
}

func setSysctls(settings map[string]string) error {
	for name, value := range settings {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	return nil
}

// setSysctl works in the network namespace of the calling thread.
func setSysctl(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}
