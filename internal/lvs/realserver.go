package lvs

import (
	"fmt"
	"net/netip"
)

// A RealServerKey names a real server within its virtual service.
type RealServerKey struct {
	Address netip.Addr
	Port    uint16
}

// String returns "198.51.100.11:80" or "[2001:db8:1::11]:80".
func (k RealServerKey) String() string {
	return netip.AddrPortFrom(k.Address, k.Port).String()
}

// A RealServer is what is wanted of one real server of one virtual service.
type RealServer struct {
	RealServerKey
	Method ForwardingMethod
	// Weight is 0..2147483647; 0 is quiesced: no new connections, old ones go on.
	Weight uint32
	// UpperThreshold stops new connections when that many (active and inactive)
	// are there; 0 is no limit. LowerThreshold lets them in again below it; 0
	// with an upper threshold is three quarters of that.
	UpperThreshold uint32
	LowerThreshold uint32
	// Tunnel is the zero value unless Method is Tunnelling.
	Tunnel Tunnel
	// TOA has the client's address and port told to the real server by a TCP option,
	// which it needs a kernel module to read; false unless Method is FullNAT.
	TOA bool
}

// A RealServerStatus is a real server as it was read back.
type RealServerStatus struct {
	RealServer
	Active     uint32
	Inactive   uint32
	Persistent uint32
	// Retries counts clients' first packets (SYN, INIT) that came again before the real
	// server had answered, as far as the director sees; Resets connections that it
	// refused or broke off (RST, ABORT), which are seen with masquerading alone. Both
	// count modulo 2^32, since the server was added.
	Retries  uint32
	Resets   uint32
	Counters Counters
	Rates    Rates
	// NextHop is where its packets go now; NextHop.Problem says why they can't.
	NextHop NextHop
	// Health is what checks say; they change Weight, which is the one in force.
	Health HealthStatus
	// ConfiguredWeight is the one that was asked for.
	ConfiguredWeight uint32
	// Draining: it gets no new connections until that is undone.
	Draining bool
}

// A ForwardingMethod is how packets reach a real server.
type ForwardingMethod uint8

// The forwarding methods of IPVS.
const (
	Masquerading  ForwardingMethod = iota // -m: addresses translated, both ways through the director
	Local                                 // the director itself
	Tunnelling                            // -i: encapsulated
	DirectRouting                         // -g: only the MAC address changes
)

// FullNAT is not in IPVS. As masquerading, and the real server sees a local address of the
// director for a client, to which it answers by whatever way it has.
const FullNAT ForwardingMethod = 5

// Translates reports whether packets have the real server's own address and port, and its
// answers come back through the director.
func (m ForwardingMethod) Translates() bool { return m == Masquerading || m == FullNAT }

// String returns the name that listings use: Masq, Local, Tunnel, Route, FullNat.
func (m ForwardingMethod) String() string {
	switch m {
	case Masquerading:
		return "Masq"
	case Local:
		return "Local"
	case Tunnelling:
		return "Tunnel"
	case DirectRouting:
		return "Route"
	case FullNAT:
		return "FullNat"
	}
	return fmt.Sprintf("ForwardingMethod(%d)", uint8(m))
}

// A TunnelType is an encapsulation.
type TunnelType uint8

// The encapsulations of IPVS.
const (
	IPIP TunnelType = iota
	GUE
	GRE
)

// String returns the name that ipvsadm uses: ipip, gue, gre.
func (t TunnelType) String() string {
	switch t {
	case IPIP:
		return "ipip"
	case GUE:
		return "gue"
	case GRE:
		return "gre"
	}
	return fmt.Sprintf("TunnelType(%d)", uint8(t))
}

// A TunnelChecksum says whether the outer header carries a checksum.
type TunnelChecksum uint8

// The checksum choices of --tun-nocsum, --tun-csum and --tun-remcsum.
const (
	NoChecksum TunnelChecksum = iota
	Checksum
	RemoteChecksum
)

// A Tunnel is how a tunnelled real server is reached.
type Tunnel struct {
	Type     TunnelType
	Port     uint16 // GUE: destination UDP port
	Checksum TunnelChecksum
}

// A NextHop is the interface and the MAC addresses that carry a packet to a
// real server.
type NextHop struct {
	// InterfaceIndex is of the device that sends: for a VLAN interface its
	// parent, with VLAN set.
	InterfaceIndex int
	InterfaceName  string
	Source         MAC
	Destination    MAC
	VLAN           uint16 // 802.1Q VLAN identifier; 0 is untagged
	MTU            int    // of the route: largest IP packet, bytes
	// Gateway is the router that Destination belongs to; the zero Addr if that is
	// the real server itself. A data plane does not keep it.
	Gateway netip.Addr
	// SourceIP is the address that the host gives its own packets on this way, such
	// as the outer ones of tunnels; the zero Addr if it has none of that family.
	SourceIP netip.Addr
	// Local: the real server is this host. Its packets go to the host's own stack,
	// and all fields above are zero.
	Local bool
	// Problem is "" when packets can go, else why they can't, for a person to
	// read: "no route to 198.51.100.11", "198.51.100.11 does not answer ARP on
	// eth0".
	Problem string
}

// Usable reports whether packets can go this way.
func (h NextHop) Usable() bool { return h.Problem == "" && (h.Local || h.InterfaceIndex != 0) }

// Judge returns the next hop with the problem that it has for this real server, which
// other servers on the same way may not have.
func (s RealServer) Judge(hop NextHop) NextHop {
	if s.Method == Tunnelling && hop.Usable() && !hop.Local && !hop.SourceIP.IsValid() {
		hop.Problem = fmt.Sprintf("this host has no address to send the outer packets of a tunnel to %s from", s.Address)
	}
	if s.Method.Translates() && hop.Local {
		// Its replies would not pass the data plane.
		hop.Problem = "it is this host, which can't be masqueraded: add it with -g, and let its program listen on the virtual address"
	}
	return hop
}

// A MAC is an Ethernet address.
type MAC [6]byte

// String returns "02:00:00:00:00:01".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}
