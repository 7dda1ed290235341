package journey

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Kind is what a packet is.
type Kind uint8

// The kinds that a journey tells apart.
const (
	Other Kind = iota
	ARPRequest
	ARPReply
	NeighborSolicitation
	NeighborAdvertisement
	TCP
	UDP
)

// TCPFlags are the flag bits of a TCP header, as RFC 9293 numbers them.
type TCPFlags uint8

// The flags that a journey names.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// String returns "SYN", "SYN+ACK", "PSH+ACK"; "none" without a named flag.
func (f TCPFlags) String() string {
	var names []string
	for _, flag := range []struct {
		bit  TCPFlags
		name string
	}{{SYN, "SYN"}, {FIN, "FIN"}, {RST, "RST"}, {PSH, "PSH"}, {ACK, "ACK"}} {
		if f&flag.bit != 0 {
			names = append(names, flag.name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "+")
}

// A Packet is what a frame carries, as far as a journey reads it.
type Packet struct {
	Kind           Kind
	SourceMAC      lvs.MAC
	DestinationMAC lvs.MAC
	// Source and Destination are the IP addresses; of ARP the sender's and the
	// target's protocol address. The zero Addr where there is none.
	Source          netip.Addr
	Destination     netip.Addr
	SourcePort      uint16
	DestinationPort uint16
	// Target is the address that ARP or neighbour discovery asks for, or
	// answers.
	Target   netip.Addr
	TTL      uint8 // or hop limit
	Flags    TCPFlags
	Sequence uint32
	Payload  []byte // of TCP and UDP

	header, body []byte // the IP packet
}

// Decode reads a frame. What it does not know is of kind Other; a frame without
// an Ethernet header is the zero Packet.
func Decode(data []byte) Packet {
	var p Packet
	decoded := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	for _, layer := range decoded.Layers() {
		switch layer := layer.(type) {
		case *layers.Ethernet:
			copy(p.SourceMAC[:], layer.SrcMAC)
			copy(p.DestinationMAC[:], layer.DstMAC)
		case *layers.ARP:
			p.readARP(layer)
		case *layers.IPv4:
			p.Source, p.Destination, p.TTL = address(layer.SrcIP), address(layer.DstIP), layer.TTL
			p.header, p.body = layer.Contents, layer.Payload
		case *layers.IPv6:
			p.Source, p.Destination, p.TTL = address(layer.SrcIP), address(layer.DstIP), layer.HopLimit
			p.header, p.body = layer.Contents, layer.Payload
		case *layers.TCP:
			if len(layer.Contents) < 20 {
				continue // cut off
			}
			p.Kind, p.Payload, p.Sequence = TCP, layer.Payload, layer.Seq
			p.SourcePort, p.DestinationPort = uint16(layer.SrcPort), uint16(layer.DstPort)
			p.Flags = TCPFlags(layer.Contents[13])
		case *layers.UDP:
			p.Kind, p.Payload = UDP, layer.Payload
			p.SourcePort, p.DestinationPort = uint16(layer.SrcPort), uint16(layer.DstPort)
		case *layers.ICMPv6NeighborSolicitation:
			p.Kind, p.Target = NeighborSolicitation, address(layer.TargetAddress)
		case *layers.ICMPv6NeighborAdvertisement:
			p.Kind, p.Target = NeighborAdvertisement, address(layer.TargetAddress)
		}
	}
	return p
}

func (p *Packet) readARP(arp *layers.ARP) {
	p.Source, p.Destination = address(arp.SourceProtAddress), address(arp.DstProtAddress)
	switch arp.Operation {
	case layers.ARPRequest:
		p.Kind, p.Target = ARPRequest, p.Destination
	case layers.ARPReply:
		p.Kind, p.Target = ARPReply, p.Source
	}
}

// Resolves reports whether the packet asks for a MAC address, or tells one.
func (p Packet) Resolves() bool { return p.Kind >= ARPRequest && p.Kind <= NeighborAdvertisement }

// Claims reports whether the sender says that addr is at its MAC address: an
// answer, but also the sender's address in an ARP request, which everyone who
// hears it may learn.
func (p Packet) Claims(addr netip.Addr) bool {
	switch p.Kind {
	case ARPRequest, ARPReply, NeighborSolicitation:
		return p.Source == addr
	case NeighborAdvertisement:
		return p.Target == addr
	}
	return false
}

// Content returns the bytes of the IP packet that direct routing leaves alone:
// all but the TTL (hop limit) and the IPv4 header checksum, which are zero in
// it. It is "" for a packet that is not IP.
func (p Packet) Content() string {
	content := slices.Concat(p.header, p.body)
	switch {
	case len(content) >= 20 && content[0]>>4 == 4:
		content[8] = 0
		binary.BigEndian.PutUint16(content[10:], 0)
	case len(content) >= 40:
		content[7] = 0
	}
	return string(content)
}

func address(b []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
