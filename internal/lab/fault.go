package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/doctor"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// faulty is the real server that faults of real servers are made on.
const faulty = "rs1"

// A Fault is a mistake that people make with LVS-DR.
type Fault struct {
	Name  string
	About string // what is wrong, in a sentence without a full stop

	// check is what the doctor is to find, and host whose fault it is.
	check, host string
	// inject makes the fault on a network that was right.
	inject func(ctx context.Context, l *Lab) error
	// before prepares each request: it makes hosts forget what they have learnt,
	// as if a client or a real server were new.
	before func(l *Lab) error
}

// Faults returns all that a lab can be built with.
func Faults() []Fault {
	return []Fault{{
		Name: "arp-ignore", About: faulty + " answers ARP requests for the VIP, as arp_ignore is 0",
		check: doctor.ARPIgnore, host: faulty,
		inject: func(ctx context.Context, l *Lab) error { return l.setARP(ctx, "arp_ignore") },
		before: forgetVIP,
	}, {
		Name: "arp-announce", About: faulty + " names the VIP as the sender of its ARP requests, as arp_announce is 0",
		check: doctor.ARPAnnounce, host: faulty,
		inject: func(ctx context.Context, l *Lab) error { return l.setARP(ctx, "arp_announce") },
		before: func(l *Lab) error { return l.forget(faulty, l.hosts[0].Address(IPv4)) },
	}, {
		Name: "no-vip", About: faulty + " has the VIP on no interface",
		check: doctor.NoVIP, host: faulty,
		inject: func(ctx context.Context, l *Lab) error {
			return l.onHost(ctx, faulty, fmt.Sprintf("ip address del %s dev lo", hostPrefix(IPv4.VIP())))
		},
	}, {
		Name: "vip-before-sysctl", About: faulty + " got the VIP before its ARP settings, and the client has learnt the wrong MAC address",
		check: doctor.StaleARP, host: Client,
		inject: injectVIPBeforeSysctl,
	}, {
		Name: "wrong-mac", About: "the director's neighbour table has a wrong MAC address for " + faulty,
		check: doctor.WrongMAC, host: Director,
		inject: injectWrongMAC,
	}}
}

// FaultByName returns the fault, or an error that names those there are.
func FaultByName(name string) (Fault, error) {
	var names []string
	for _, fault := range Faults() {
		if fault.Name == name {
			return fault, nil
		}
		names = append(names, fault.Name)
	}
	return Fault{}, fmt.Errorf("fault %q: there are %s", name, strings.Join(names, ", "))
}

// onHost runs a shell command as it stands.
func (l *Lab) onHost(ctx context.Context, host, command string) error {
	_, err := l.Output(ctx, host, "sh", "-c", command)
	return err
}

// setARP gives the real server the kernel's default of an ARP setting.
func (l *Lab) setARP(ctx context.Context, key string) error {
	return l.onHost(ctx, faulty, fmt.Sprintf("sysctl -qw net.ipv4.conf.all.%[1]s=0 net.ipv4.conf.%[2]s.%[1]s=0 net.ipv4.conf.lo.%[1]s=0", key, hostInterface))
}

func forgetVIP(l *Lab) error { return l.forget(Client, IPv4.VIP()) }

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

// learnt returns the name of the host whose MAC address the client has for the VIP,
// "" if it has none.
func (l *Lab) learnt() (string, error) {
	var mac lvs.MAC
	err := l.within(Client, func() error {
		link, err := netlink.LinkByName(hostInterface)
		if err != nil {
			return fmt.Errorf("find %s: %w", hostInterface, err)
		}
		entries, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		for _, entry := range entries {
			if IPv4.VIP() == netip.AddrFrom4([4]byte(entry.IP.To4())) {
				copy(mac[:], entry.HardwareAddr)
			}
		}
		return err
	})
	for _, host := range l.hosts {
		if host.MAC == mac {
			return host.Name, err
		}
	}
	return "", err
}

// injectVIPBeforeSysctl does what an administrator does in the wrong order: the VIP
// is there, a client asks for it, and only then the settings follow.
func injectVIPBeforeSysctl(ctx context.Context, l *Lab) error {
	if err := l.setARP(ctx, "arp_ignore"); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, faultTimeout)
	defer cancel()
	err := poll(patience, func() (bool, error) {
		if err := forgetVIP(l); err != nil {
			return false, err
		}
		if _, err := l.Get(patience, netip.AddrPortFrom(IPv4.VIP(), HTTPPort)); err != nil {
			return false, err
		}
		host, err := l.learnt()
		return host == faulty, err
	})
	if err != nil {
		return fmt.Errorf("wait for the client to learn the MAC address of %s: %w", faulty, err)
	}
	return l.onHost(ctx, faulty, "fairlead realserver up --vip "+IPv4.VIP().String())
}

// injectWrongMAC makes an entry as people do who work around ARP, with a MAC address
// that no host has.
func injectWrongMAC(ctx context.Context, l *Lab) error {
	wrong := lvs.MAC{0x02, 0, 0, 0, 0, 0xff}
	address := l.Servers()[0].Address(IPv4)
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
