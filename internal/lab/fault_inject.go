package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// onHost runs a shell command as it stands.
func (l *Lab) onHost(ctx context.Context, host, command string) error {
	_, err := l.Output(ctx, host, "sh", "-c", command)
	return err
}

// setARP gives the real server the kernel's default of an ARP setting.
func (l *Lab) setARP(ctx context.Context, key string) error {
	return l.onHost(ctx, faulty, fmt.Sprintf("sysctl -qw net.ipv4.conf.all.%[1]s=0 net.ipv4.conf.%[2]s.%[1]s=0 net.ipv4.conf.lo.%[1]s=0", key, hostInterface))
}

// forgetVIP makes a new client, or a router that has been away for long.
func forgetVIP(l *Lab, family Family) error { return l.forget(edge(l.hosts).Name, family.VIP()) }

// forget takes an address out of the host's neighbour table.
func (l *Lab) forget(host string, address netip.Addr) error {
	return l.within(host, func() error {
		link, err := netlink.LinkByName(hostInterface)
		if err != nil {
			return fmt.Errorf("find %s: %w", hostInterface, err)
		}
		err = netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: address.AsSlice()})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget neighbour %s: %w", address, err)
		}
		return nil
	})
}

// learnt returns the name of the host whose MAC address the edge has for the VIP,
// "" if it has none.
func (l *Lab) learnt(family Family) (string, error) {
	var mac lvs.MAC
	err := l.within(edge(l.hosts).Name, func() error {
		link, err := netlink.LinkByName(hostInterface)
		if err != nil {
			return fmt.Errorf("find %s: %w", hostInterface, err)
		}
		entries, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
		for _, entry := range entries {
			if address, ok := netip.AddrFromSlice(entry.IP); ok && address.Unmap() == family.VIP() {
				copy(mac[:], entry.HardwareAddr)
			}
		}
		return err
	})
	return namesOf(l.ports)[mac], err
}

// injectVIPBeforeSysctl does what an administrator does in the wrong order: the VIP
// is there, a client asks for it, and only then the settings follow.
func injectVIPBeforeSysctl(ctx context.Context, l *Lab, family Family) error {
	if err := l.setARP(ctx, "arp_ignore"); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, faultTimeout)
	defer cancel()
	err := poll(patience, func() (bool, error) {
		if err := forgetVIP(l, family); err != nil {
			return false, err
		}
		if _, err := l.Get(patience, netip.AddrPortFrom(family.VIP(), HTTPPort)); err != nil {
			return false, err
		}
		host, err := l.learnt(family)
		return host == faulty, err
	})
	if err != nil {
		return fmt.Errorf("wait for the client's side to learn the MAC address of %s: %w", faulty, err)
	}
	return l.onHost(ctx, faulty, "fairlead realserver up --vip "+family.VIP().String())
}

// injectWrongMAC makes an entry as people do who work around ARP, with a MAC address
// that no host has.
func injectWrongMAC(ctx context.Context, l *Lab, family Family) error {
	wrong := lvs.MAC{0x02, 0, 0, 0, 0, 0xff}
	address := l.Servers()[0].Address(family)
	err := l.onHost(ctx, Director, fmt.Sprintf("ip neighbour replace %s lladdr %s dev %s nud permanent", address, wrong, hostInterface))
	if err != nil {
		return err
	}
	client := l.DirectorClient()
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, nextHopTimeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		services, err := client.Services(ctx)
		for _, service := range services {
			for _, server := range service.Servers {
				if server.Address == address && server.NextHop.Destination == wrong {
					return true, err
				}
			}
		}
		return false, err
	})
}

// injectReversePath gives the real server a second interface on the segment, as
// hosts have one for what is not the clients', and the route to the client by it.
func injectReversePath(ctx context.Context, l *Lab, family Family) error {
	const number = 92
	p := port{Host: newHost(faulty, number), device: secondInterface, name: faulty + "-" + secondInterface, segment: serverSegment}
	p.IPv4, p.IPv6 = hostPrefix(p.IPv4.Addr()), hostPrefix(p.IPv6.Addr())
	peer := netlink.NsFd(l.namespaces[faulty].handle)
	err := l.within(Switch, func() error { return addPort(p, peer) })
	if err == nil {
		err = l.within(faulty, func() error { return addressPort(p, nil) })
	}
	if err != nil {
		return fmt.Errorf("give %s a second interface: %w", faulty, err)
	}
	l.ports = append(l.ports, p)
	return l.onHost(ctx, faulty, fmt.Sprintf("%s && sysctl -qw net.ipv4.conf.%s.rp_filter=1", l.routeToClient(family, secondInterface), hostInterface))
}

// routeToClient returns the command that makes a real server reach the client by
// the device.
func (l *Lab) routeToClient(family Family, device string) string {
	command := "ip route add " + l.hosts[0].Address(family).String() + " dev " + device
	if e := edge(l.hosts); e.Name == Router {
		command += " onlink via " + e.Address(family).String()
	}
	return command
}

// injectNoRouteBack takes away the route to clients by the director, and gives the real server
// the one that hosts of its segment have: none is needed to a client on it.
func injectNoRouteBack(ctx context.Context, l *Lab, family Family) error {
	command := fmt.Sprintf("ip route del %s via %s", l.hosts[0].Address(family), l.hosts[1].Address(family))
	if e := edge(l.hosts); e.Name == Router {
		command = fmt.Sprintf("ip -%d route replace default via %s", family, e.Address(family))
	}
	return l.onHost(ctx, faulty, command)
}

// injectMTU makes the real server's link narrower than its clients are told. The MTU
// alone would not harm TCP: the segment size that the real server asks for follows
// it, unless a route has one of its own.
func injectMTU(ctx context.Context, l *Lab, family Family) error {
	const ethernet, narrow, tcpHeader = 1500, 1400, 20
	ipHeader := 20
	if family == IPv6 {
		ipHeader = 40
	}
	return l.onHost(ctx, faulty, fmt.Sprintf("%s advmss %d && ip link set dev %s mtu %d",
		l.routeToClient(family, hostInterface), ethernet-ipHeader-tcpHeader, hostInterface, narrow))
}

// injectProxyARP makes the bystander a router that takes the VIP to be behind its
// other interface, which leads nowhere; what it sends itself is routed as before. It
// answers at once, as hosts of containers do.
func injectProxyARP(ctx context.Context, l *Lab, family Family) error {
	const around = "192.0.2.96/27" // the VIP, and none of the hosts
	what, settings := around, "net.ipv4.ip_forward=1 net.ipv4.conf.%[1]s.proxy_arp=1 net.ipv4.neigh.%[1]s.proxy_delay=0"
	if family == IPv6 {
		what = family.VIP().String()
		settings = "net.ipv6.conf.all.forwarding=1 net.ipv6.conf.%[1]s.proxy_ndp=1 net.ipv6.neigh.%[1]s.proxy_delay=0 && " +
			"ip neighbour add proxy " + what + " dev %[1]s"
	}
	return l.onHost(ctx, Bystander, fmt.Sprintf("ip link add %[2]s type veth peer name nowhere && ip link set nowhere up && ip link set %[2]s up && "+
		"ip -%[3]d route add default dev %[2]s table 100 && ip -%[3]d rule add iif %[1]s to %[4]s lookup 100 && sysctl -qw "+settings,
		hostInterface, secondInterface, family, what))
}

// injectSecondDirector starts a director on the real server, with the same service
// and the other real servers.
func injectSecondDirector(ctx context.Context, l *Lab, family Family) error {
	err := l.change(func() error {
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := l.within(Switch, func() error { return receiveFromXDP(faulty) }); err != nil {
			return err
		}
		return l.startDirector(ctx, faulty, Director)
	})
	if err != nil {
		return fmt.Errorf("start a director on %s: %w%s", faulty, err, l.lastWords(faulty))
	}
	others := slices.DeleteFunc(l.Servers(), func(h Host) bool { return h.Name == faulty })
	options := Options{Scheduler: lvs.RoundRobin, Family: family, Weights: slices.Repeat([]int{1}, len(others))}
	return l.addService(ctx, faulty, "-t", netip.AddrPortFrom(family.VIP(), HTTPPort), options, others)
}
