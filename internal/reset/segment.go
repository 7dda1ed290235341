package reset

import (
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const hops = 64

// A segment is one of TCP without data or options.
type segment struct {
	from, to               netip.AddrPort
	sequence, acknowledged uint32
	ack, reset             bool
}

// packet returns the IP packet.
func (s segment) packet() ([]byte, error) {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(s.from.Port()), DstPort: layers.TCPPort(s.to.Port()),
		Seq: s.sequence, Ack: s.acknowledged, ACK: s.ack, RST: s.reset,
	}
	var header interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	}
	source, destination := s.from.Addr().AsSlice(), s.to.Addr().AsSlice()
	if s.from.Addr().Is6() {
		header = &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolTCP, HopLimit: hops, SrcIP: source, DstIP: destination}
	} else {
		header = &layers.IPv4{
			Version: 4, IHL: 5, TTL: hops, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP, SrcIP: source, DstIP: destination,
		}
	}
	if err := tcp.SetNetworkLayerForChecksum(header); err != nil {
		return nil, fmt.Errorf("build segment: %w", err)
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, header, tcp); err != nil {
		return nil, fmt.Errorf("build segment: %w", err)
	}
	return buffer.Bytes(), nil
}

// parse reads an IP packet; false: it is no TCP segment.
func parse(packet []byte) (segment, bool) {
	if len(packet) == 0 {
		return segment{}, false
	}
	kind := layers.LayerTypeIPv4
	if packet[0]>>4 == 6 {
		kind = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(packet, kind, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	tcp, ok := p.TransportLayer().(*layers.TCP)
	if !ok {
		return segment{}, false
	}
	network := p.NetworkLayer().NetworkFlow()
	from, okFrom := netip.AddrFromSlice(network.Src().Raw())
	to, okTo := netip.AddrFromSlice(network.Dst().Raw())
	return segment{
		from: netip.AddrPortFrom(from, uint16(tcp.SrcPort)), to: netip.AddrPortFrom(to, uint16(tcp.DstPort)),
		sequence: tcp.Seq, acknowledged: tcp.Ack, ack: tcp.ACK, reset: tcp.RST,
	}, okFrom && okTo
}
