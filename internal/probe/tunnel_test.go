package probe_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A check of a tunnelled server leaves as clients' packets do: in an outer packet to
// its own address, whatever the families, with checksums that are right.
func TestTunnels(t *testing.T) {
	b := newBench(t)
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	var ears int
	b.servers[0].do(func() (err error) {
		ears, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		return err
	})
	t.Cleanup(func() { unix.Close(ears) })
	patience := unix.Timeval{Usec: 100_000}
	if err := unix.SetsockoptTimeval(ears, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		t.Fatal(err)
	}
	for _, tunnel := range []lvs.Tunnel{
		{Type: lvs.IPIP}, {Type: lvs.GRE}, {Type: lvs.GRE, Checksum: lvs.Checksum},
		{Type: lvs.GUE, Port: 6080}, {Type: lvs.GUE, Port: 6080, Checksum: lvs.Checksum},
	} {
		for outer := range vips {
			for inner := range vips {
				server := b.server(0, outer)
				server.Method, server.Tunnel = lvs.Tunnelling, tunnel
				hop := b.hops[0]
				hop.SourceIP = dips[outer]
				b.director.do(func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
					if conn, err := b.Dial(ctx, "tcp", dips[inner], netip.AddrPortFrom(vips[inner], port), server, hop); err == nil {
						conn.Close()
						t.Errorf("%v: connected, although nobody is at the end of the tunnel", tunnel)
					}
					return nil
				})
				if !hears(t, ears, tunnel, rips[0][outer], vips[inner]) {
					t.Errorf("%v to %s for %s: no SYN in a tunnel", tunnel, rips[0][outer], vips[inner])
				}
			}
		}
	}
}

// hears waits for a SYN for a VIP that came through a tunnel to an address.
func hears(t *testing.T, ears int, tunnel lvs.Tunnel, outer, inner netip.Addr) bool {
	t.Helper()
	buffer := make([]byte, 2000)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		n, _, err := unix.Recvfrom(ears, buffer, 0)
		if err != nil {
			return false
		}
		p := gopacket.NewPacket(buffer[:n], layers.LayerTypeEthernet, gopacket.NoCopy)
		network := p.NetworkLayer()
		if network == nil || network.NetworkFlow().Dst().String() != outer.String() {
			continue
		}
		packet := p
		if tunnel.Type == lvs.GUE {
			udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if !ok || udp.DstPort != layers.UDPPort(tunnel.Port) || len(udp.Payload) < 4 {
				continue
			}
			if ok := udp.Checksum != 0; ok != (tunnel.Checksum == lvs.Checksum) {
				t.Errorf("%v: checksum %#x", tunnel, udp.Checksum)
			}
			kind := layers.LayerTypeIPv4
			if inner.Is6() {
				kind = layers.LayerTypeIPv6
			}
			packet = gopacket.NewPacket(udp.Payload[4:], kind, gopacket.NoCopy)
		}
		for _, part := range []gopacket.Packet{p, packet} {
			if err := verify(part); err != nil {
				t.Errorf("%v: %v", tunnel, err)
			}
		}
		for _, layer := range packet.Layers() {
			if n, ok := layer.(gopacket.NetworkLayer); ok && n.NetworkFlow().Dst().String() == inner.String() {
				if tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && tcp.SYN {
					return true
				}
			}
		}
	}
	return false
}

// verify looks at all checksums of a packet but those that are left out.
func verify(p gopacket.Packet) error {
	var network gopacket.NetworkLayer
	for _, layer := range p.Layers() {
		var sum gopacket.LayerWithChecksum
		switch l := layer.(type) {
		case gopacket.NetworkLayer:
			network = l
			sum, _ = layer.(gopacket.LayerWithChecksum)
		case *layers.TCP:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				return err
			}
			sum = l
		case *layers.UDP:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				return err
			}
			if l.Checksum != 0 {
				sum = l
			}
		case *layers.GRE:
			if l.ChecksumPresent {
				sum = l
			}
		}
		if sum == nil {
			continue
		}
		if err, result := sum.VerifyChecksum(); err != nil || !result.Valid {
			return fmt.Errorf("checksum of %s: %+v, %w", layer.LayerType(), result, err)
		}
	}
	return nil
}
