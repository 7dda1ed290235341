package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

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
