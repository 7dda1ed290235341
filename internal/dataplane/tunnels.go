package dataplane

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Sizes of headers.
const (
	ipv4HeaderSize  = 20
	ipv6HeaderSize  = 40
	gueHeaderSize   = 8 + 4 // with UDP's
	greHeaderSize   = 4
	greChecksumSize = 4
)

// A way is where the packets of a real server go, and what goes around them:
// what the two halves of its entry hold.
type way struct {
	hop    directorNextHop
	tunnel directorTunnel
}

// toTunnel returns what goes around packets to a real server. The source is that of
// its next hop.
func toTunnel(server lvs.RealServer, source directorAddress) directorTunnel {
	t := directorTunnel{
		Destination: toAddress(server.Address),
		Type:        directorTunnelType(server.Tunnel.Type),
		Port:        toPort(server.Tunnel.Port),
		Checksum:    uint8(server.Tunnel.Checksum),
		Overhead:    ipv4HeaderSize,
		Ethertype:   toPort(unix.ETH_P_IP),
	}
	if server.Address.Is6() {
		t.Overhead, t.Ethertype = ipv6HeaderSize, toPort(unix.ETH_P_IPV6)
	}
	switch server.Tunnel.Type {
	case lvs.GUE:
		t.Overhead += gueHeaderSize
	case lvs.GRE:
		t.Overhead += greHeaderSize
		if server.Tunnel.Checksum != lvs.NoChecksum {
			t.Overhead += greChecksumSize
		}
	}
	return t.from(source)
}

// from returns the same with another source.
func (t directorTunnel) from(source directorAddress) directorTunnel {
	t.Source = source
	t.Sum = addSums(sumAddress(source), sumAddress(t.Destination))
	return t
}

func fromTunnel(t directorTunnel) lvs.Tunnel {
	return lvs.Tunnel{
		Type:     lvs.TunnelType(t.Type),
		Port:     fromPort(t.Port),
		Checksum: lvs.TunnelChecksum(t.Checksum),
	}
}

// isBareIPv4 reports whether it adds an IPv4 header and nothing else.
func (t directorTunnel) isBareIPv4() bool { return t.Overhead == ipv4HeaderSize }

// hasChecksum reports whether the data plane sums each packet up.
func (t directorTunnel) hasChecksum() bool {
	return t.Checksum != 0 && t.Type != directorTunnelTypeTUNNEL_IPIP
}

// way returns the one that holds.
func (p *Plane) way(slot uint32) way {
	rs := &p.view.servers.elements[slot]
	return way{rs.nextHop(), p.view.tunnels.elements[slot].Tunnels[rs.which()]}
}

// setWay fills the way that does not hold and turns to it. Packets may still read
// the former one, so a second change waits for them.
func (p *Plane) setWay(slot uint32, want way) error {
	rs := &p.view.servers.elements[slot]
	p.notePath(slot, want.hop.Mtu)
	if p.way(slot) == want {
		p.turnHop(slot, rs.which())
		return nil
	}
	if p.flipped[slot] {
		if err := p.settle(); err != nil {
			return err
		}
	}
	next := rs.which() ^ 1
	rs.Hops[next] = want.hop
	p.view.tunnels.elements[slot].Tunnels[next] = want.tunnel
	p.turnHop(slot, next)
	p.flipped[slot] = true
	return nil
}

// turnHop makes a way hold, and tells the data plane what to do with packets on it,
// and whether its short ways may.
func (p *Plane) turnHop(slot uint32, which directorServerHop) {
	rs := &p.view.servers.elements[slot]
	word := which
	steady := rs.State == directorServerStateSERVER_LISTED && rs.Hops[which].Ifindex != 0 && rs.Hops[which].Vlan == 0 &&
		!p.hasOwnTimeouts(rs)
	tunnel := p.view.tunnels.elements[slot].Tunnels[which]
	outerSource := uint32(0)
	if tunnel.isBareIPv4() {
		outerSource = uint32(tunnel.Source.Low >> 32)
		rs.OuterDestination = uint32(tunnel.Destination.Low >> 32) // and stays: a packet may have read the source before
	}
	atomic.StoreUint32(&rs.OuterSource, outerSource)
	switch {
	case lvs.ForwardingMethod(rs.Method) == lvs.Tunnelling:
		word |= directorServerHopHOP_TUNNEL
		if steady && tunnel.Source != (directorAddress{}) && !tunnel.hasChecksum() {
			word |= directorServerHopHOP_STEADY_TUNNEL
		}
	case steady && lvs.ForwardingMethod(rs.Method) == lvs.DirectRouting:
		word |= directorServerHopHOP_STEADY
	case steady && lvs.ForwardingMethod(rs.Method).Translates():
		word |= directorServerHopHOP_STEADY_MASQUERADING
	}
	atomic.StoreUint32((*uint32)(&rs.Hop), uint32(word))
}
