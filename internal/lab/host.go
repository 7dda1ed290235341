package lab

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The devices of hosts: every host but the switch has hostInterface on the
// segment where it belongs; a router has secondInterface too.
const (
	hostInterface   = "eth0"
	secondInterface = "eth1"
)

// The switch's segments, each a bridge of it: that of the director and the real
// servers, and that of clients behind a router.
const (
	serverSegment = "br0"
	clientSegment = "br1"
)

// A Host is one network namespace that is plugged into the switch.
type Host struct {
	Name string       `json:"name"`
	MAC  lvs.MAC      `json:"-"`
	IPv4 netip.Prefix `json:"ipv4"`
	IPv6 netip.Prefix `json:"ipv6"`
}

// Address returns the host's own address; a router's is the one on the segment of
// the real servers.
func (h Host) Address(f Family) netip.Addr { return h.prefix(f).Addr() }

func (h Host) prefix(f Family) netip.Prefix {
	if f == IPv6 {
		return h.IPv6
	}
	return h.IPv4
}

// newHost returns the host whose IPv4 address ends in the given number below
// 100. MAC and IPv6 address end in the same digits, for people to see.
func newHost(name string, number byte) Host {
	digits := number/10<<4 | number%10
	return Host{
		Name: name,
		MAC:  lvs.MAC{0x02, 0, 0, 0, 0, digits},
		IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, number}), 24),
		IPv6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: digits}), 64),
	}
}

// behindRouter returns the host with addresses of the clients' segment.
func (h Host) behindRouter() Host {
	v4, v6 := h.IPv4.Addr().As4(), h.IPv6.Addr().As16()
	h.IPv4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, v4[3]}), h.IPv4.Bits())
	v6[5] = 1
	h.IPv6 = netip.PrefixFrom(netip.AddrFrom16(v6), h.IPv6.Bits())
	return h
}

// The last numbers of addresses; real servers have the numbers from 11 on.
const (
	clientNumber    = 1
	routerNumber    = 2
	bystanderNumber = 3
	directorNumber  = 10
)

// hostsOf returns the client, the director and the real servers, and then who
// else is there.
func hostsOf(c Config) []Host {
	client := newHost(Client, clientNumber)
	if c.Topology == Routed {
		client = client.behindRouter()
	}
	hosts := []Host{client, newHost(Director, directorNumber)}
	for i := range c.Servers {
		hosts = append(hosts, newHost(fmt.Sprintf("rs%d", i+1), byte(directorNumber+1+i)))
	}
	if c.Topology == Routed {
		hosts = append(hosts, newHost(Router, routerNumber))
	}
	if c.Bystander {
		hosts = append(hosts, newHost(Bystander, bystanderNumber))
	}
	return hosts
}

// A port is an interface of a host with its other end on the switch.
type port struct {
	Host    // with the addresses and the MAC address of this interface
	device  string
	name    string // of the end on the switch
	segment string
}

// portsOf returns the ports of hosts, those of one host one after the other.
func portsOf(hosts []Host, topology Topology) []port {
	var ports []port
	for _, host := range hosts {
		p := port{Host: host, device: hostInterface, name: host.Name, segment: serverSegment}
		if topology == Routed && host.Name == Client {
			p.segment = clientSegment
		}
		ports = append(ports, p)
		if host.Name == Router {
			ports = append(ports, routerOutside(host))
		}
	}
	return ports
}

// routerOutside returns the router's port where the clients are.
func routerOutside(router Host) port {
	outside := router.behindRouter()
	outside.MAC[4] = 2
	return port{Host: outside, device: secondInterface, name: "router-out", segment: clientSegment}
}

// gateways returns the addresses of the host to which a host of the segment sends
// what is not for its own: the router's, or, with masquerading, from real servers the
// director's; none in a flat lab without that.
func (l *Lab) gateways(p port) []netip.Addr {
	gateway := Router
	if isServer(p.Name) && l.state.Method == Masquerading {
		gateway = Director
	}
	for _, other := range l.ports {
		if other.Name == gateway && other.segment == p.segment && p.Name != gateway {
			return []netip.Addr{other.Address(IPv4), other.Address(IPv6)}
		}
	}
	return nil
}

// edge is the host through which clients come to the segment of the director: the
// router if there is one, else the client itself. It is the one that learns where
// the VIP is.
func edge(hosts []Host) Host {
	for _, host := range hosts {
		if host.Name == Router {
			return host
		}
	}
	return hosts[0]
}

// namesOf returns who has which MAC address.
func namesOf(ports []port) map[lvs.MAC]string {
	names := map[lvs.MAC]string{}
	for _, p := range ports {
		names[p.MAC] = p.Name
	}
	return names
}

// cast says who takes part in the journey to the service.
func (l *Lab) cast(service netip.AddrPort) journey.Cast {
	cast := journey.Cast{Client: Client, Director: Director, Service: service}
	for _, p := range l.ports {
		if p.Name == Router {
			cast.Router = Router
		}
		addresses := []netip.Addr{p.Address(IPv4), p.Address(IPv6)}
		if p.Name == Director && l.state.Method == FullNAT {
			addresses = append(addresses, IPv4.LocalAddress(), IPv6.LocalAddress())
		}
		cast.Hosts = append(cast.Hosts, journey.Host{Name: p.Name, MAC: p.MAC, Addresses: addresses})
	}
	return cast
}
