package doctor

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var broadcast = lvs.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func hardware(mac lvs.MAC) net.HardwareAddr { return mac[:] }

func ethernet(from, to lvs.MAC, address netip.Addr) *layers.Ethernet {
	kind := layers.EthernetTypeIPv4
	if address.Is6() {
		kind = layers.EthernetTypeIPv6
	}
	return &layers.Ethernet{SrcMAC: hardware(from), DstMAC: hardware(to), EthernetType: kind}
}

func serialize(parts ...gopacket.SerializableLayer) ([]byte, error) {
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, parts...); err != nil {
		return nil, fmt.Errorf("build frame: %w", err)
	}
	return buffer.Bytes(), nil
}

// question returns the ARP request or neighbour solicitation for the target.
// Without a valid source it is a probe, which tells nobody anything (RFC 5227;
// RFC 4861, 7.2.2).
func question(mac lvs.MAC, source, target netip.Addr) ([]byte, error) {
	if target.Is6() {
		return solicitation(mac, source, target)
	}
	if !source.IsValid() {
		source = netip.IPv4Unspecified()
	}
	return arp(mac, broadcast, source, lvs.MAC{}, target)
}

// arp returns an ARP request, sent to one or to all.
func arp(mac, to lvs.MAC, source netip.Addr, targetMAC lvs.MAC, target netip.Addr) ([]byte, error) {
	header := &layers.Ethernet{SrcMAC: hardware(mac), DstMAC: hardware(to), EthernetType: layers.EthernetTypeARP}
	return serialize(header, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation:       layers.ARPRequest,
		SourceHwAddress: hardware(mac), SourceProtAddress: source.AsSlice(),
		DstHwAddress: hardware(targetMAC), DstProtAddress: target.AsSlice(),
	})
}

// solicitation goes to the solicited-node multicast address (RFC 4291, 2.7.1).
func solicitation(mac lvs.MAC, source, target netip.Addr) ([]byte, error) {
	low := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: low[13], 14: low[14], 15: low[15]})
	var options layers.ICMPv6Options
	if source.IsValid() {
		options = layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: hardware(mac)}}
	} else {
		source = netip.IPv6Unspecified()
	}
	ip := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: source.AsSlice(), DstIP: group.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	return serialize(ethernet(mac, lvs.MAC{0x33, 0x33, 0xff, low[13], low[14], low[15]}, target), ip, icmp,
		&layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice(), Options: options})
}

// unsolicited returns what tells all neighbours that the address is at mac: a
// gratuitous ARP request, or an unsolicited neighbour advertisement that overrides
// what they know (RFC 4861, 7.2.6).
func unsolicited(mac lvs.MAC, address netip.Addr) ([]byte, error) {
	if address.Is4() {
		return arp(mac, broadcast, address, broadcast, address)
	}
	const override = 0x20
	all := netip.IPv6LinkLocalAllNodes()
	ip := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: address.AsSlice(), DstIP: all.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	return serialize(ethernet(mac, lvs.MAC{0x33, 0x33, 5: 1}, address), ip, icmp,
		&layers.ICMPv6NeighborAdvertisement{
			Flags:         override,
			TargetAddress: address.AsSlice(),
			Options:       layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: hardware(mac)}},
		})
}

// A connection is one that the doctor begins, as far as its first answer.
type connection struct {
	from, to       lvs.MAC
	client, server netip.AddrPort
	sequence       uint32
	hops           uint8 // of what begins it: TTL or hop limit
}

// syn returns the frame that begins it.
func (c connection) syn() ([]byte, error) {
	return c.segment(&layers.TCP{SYN: true, Seq: c.sequence, Window: 1024}, c.hops)
}

// rst returns the frame that ends it, answered or not.
func (c connection) rst() ([]byte, error) {
	return c.segment(&layers.TCP{RST: true, Seq: c.sequence + 1}, manyHops)
}

// stray returns an answer to a SYN that nobody has sent, which the other side
// answers with a RST of that sequence number.
func (c connection) stray(sequence uint32) ([]byte, error) {
	return c.segment(&layers.TCP{SYN: true, ACK: true, Seq: c.sequence, Ack: sequence, Window: 1024}, c.hops)
}

func (c connection) segment(tcp *layers.TCP, hops uint8) ([]byte, error) {
	tcp.SrcPort, tcp.DstPort = layers.TCPPort(c.client.Port()), layers.TCPPort(c.server.Port())
	header, network := ipPacket(c.client.Addr(), c.server.Addr(), layers.IPProtocolTCP, hops)
	if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
		return nil, err
	}
	return serialize(ethernet(c.from, c.to, c.client.Addr()), header, tcp)
}

// datagram returns an empty UDP datagram of the connection's addresses.
func (c connection) datagram() ([]byte, error) {
	udp := &layers.UDP{SrcPort: layers.UDPPort(c.client.Port()), DstPort: layers.UDPPort(c.server.Port())}
	header, network := ipPacket(c.client.Addr(), c.server.Addr(), layers.IPProtocolUDP, c.hops)
	if err := udp.SetNetworkLayerForChecksum(network); err != nil {
		return nil, err
	}
	return serialize(ethernet(c.from, c.to, c.client.Addr()), header, udp)
}

// isAbout reports whether the message is an error about what the connection sent.
func (c connection) isAbout(m message) bool {
	return (m.answer == hopsExceeded || m.answer == portUnreachable) && m.destination == c.client.Addr() &&
		netip.AddrPortFrom(m.quoted.source, m.quoted.sourcePort) == c.client &&
		netip.AddrPortFrom(m.quoted.destination, m.quoted.destinationPort) == c.server
}

func ipPacket(source, destination netip.Addr, protocol layers.IPProtocol, hops uint8) (gopacket.SerializableLayer, gopacket.NetworkLayer) {
	if source.Is6() {
		ip := &layers.IPv6{Version: 6, NextHeader: protocol, HopLimit: hops, SrcIP: source.AsSlice(), DstIP: destination.AsSlice()}
		return ip, ip
	}
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: hops, Flags: layers.IPv4DontFragment, Protocol: protocol,
		SrcIP: source.AsSlice(), DstIP: destination.AsSlice()}
	return ip, ip
}

// segmentSize returns the largest TCP segment that the sender of a SYN asks for, 0 if
// it says nothing.
func segmentSize(frame []byte) int {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	tcp, ok := packet.TransportLayer().(*layers.TCP)
	if !ok {
		return 0
	}
	for _, option := range tcp.Options {
		if option.OptionType == layers.TCPOptionKindMSS && len(option.OptionData) == 2 {
			return int(binary.BigEndian.Uint16(option.OptionData))
		}
	}
	return 0
}
