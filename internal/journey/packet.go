package journey

import (
	"encoding/binary"
	"fmt"
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
	// Outer is the packet of a tunnel that this one came in, nil for none.
	Outer *Outer

	header, body []byte // the IP packet
}

// An Outer is the packet of a tunnel around another one.
type Outer struct {
	Tunnel      string // "ipip", "gue", "gre"
	Source      netip.Addr
	Destination netip.Addr
	TTL         uint8
}

// String returns "ipip 192.0.2.2 -> 192.0.2.11".
func (o Outer) String() string {
	return fmt.Sprintf("%s %s -> %s", o.Tunnel, o.Source, o.Destination)
}

// guePort is where GUE goes to (IANA).
const guePort = 6080

// Decode reads a frame; of a tunnel's, the inner packet. What it does not know is of kind Other; a frame without
// an Ethernet header is the zero Packet.
func Decode(data []byte) Packet {
	var p Packet
	p.read(data, layers.LayerTypeEthernet)
	return p
}

// read reads what begins with that layer.
func (p *Packet) read(data []byte, first gopacket.LayerType) {
	decoded := gopacket.NewPacket(data, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	tunnel := "ipip"
	for _, layer := range decoded.Layers() {
		switch layer := layer.(type) {
		case *layers.Ethernet:
			copy(p.SourceMAC[:], layer.SrcMAC)
			copy(p.DestinationMAC[:], layer.DstMAC)
		case *layers.ARP:
			p.readARP(layer)
		case *layers.GRE:
			tunnel = "gre"
		case *layers.IPv4:
			p.wrap(tunnel)
			p.Source, p.Destination, p.TTL = address(layer.SrcIP), address(layer.DstIP), layer.TTL
			p.header, p.body = layer.Contents, layer.Payload
		case *layers.IPv6:
			p.wrap(tunnel)
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
			p.readGUE(layer.Payload)
		case *layers.ICMPv6NeighborSolicitation:
			p.Kind, p.Target = NeighborSolicitation, address(layer.TargetAddress)
		case *layers.ICMPv6NeighborAdvertisement:
			p.Kind, p.Target = NeighborAdvertisement, address(layer.TargetAddress)
		}
	}
}

// wrap notes that the IP packet which was read holds another one.
func (p *Packet) wrap(tunnel string) {
	if p.header == nil || p.Outer != nil {
		return
	}
	p.Outer = &Outer{Tunnel: tunnel, Source: p.Source, Destination: p.Destination, TTL: p.TTL}
	p.Kind, p.Payload, p.SourcePort, p.DestinationPort = Other, nil, 0, 0
}

// readGUE reads what a datagram to GUE's port holds: behind a header of four bytes, the
// second of which is its protocol, an IP packet.
func (p *Packet) readGUE(datagram []byte) {
	const header = 4
	if p.DestinationPort != guePort || p.Outer != nil || len(datagram) < header || datagram[0] != 0 || datagram[2]|datagram[3] != 0 {
		return
	}
	inner := map[byte]gopacket.LayerType{
		byte(layers.IPProtocolIPv4): layers.LayerTypeIPv4,
		byte(layers.IPProtocolIPv6): layers.LayerTypeIPv6,
	}
	if first, ok := inner[datagram[1]]; ok {
		p.wrap("gue")
		p.read(datagram[header:], first)
	}
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

// From returns the source with its port, 0 where there is none.
func (p Packet) From() netip.AddrPort { return netip.AddrPortFrom(p.Source, p.SourcePort) }

// To returns the destination with its port, 0 where there is none.
func (p Packet) To() netip.AddrPort {
	return netip.AddrPortFrom(p.Destination, p.DestinationPort)
}

// isBetween reports whether the packet goes from one of the two to the other.
func (p Packet) isBetween(a, b netip.AddrPort) bool {
	return p.From() == a && p.To() == b || p.From() == b && p.To() == a
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

// TranslatedContent returns the bytes of a TCP segment or a UDP datagram that masquerading
// leaves alone: Content without addresses, ports and the checksum of the upper layer. It is ""
// for another packet.
func (p Packet) TranslatedContent() string {
	check := map[Kind]int{TCP: 16, UDP: 6}[p.Kind]
	content := []byte(p.Content())
	upper := len(p.header)
	if check == 0 || len(content) < upper+check+2 {
		return ""
	}
	if content[0]>>4 == 4 {
		clear(content[12:20])
	} else {
		clear(content[8:40])
	}
	clear(content[upper : upper+4])
	clear(content[upper+check : upper+check+2])
	return string(content)
}

func address(b []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
