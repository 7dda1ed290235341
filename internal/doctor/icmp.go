package doctor

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// An answer is what an ICMP message says to a probe.
type answer uint8

const (
	otherAnswer     answer = iota
	echoReply              // of the same id and sequence
	hopsExceeded           // a host would have sent it on
	portUnreachable        // the host has the address, and nobody listens
)

// A message is a whole ICMP packet: a part of one is none.
type message struct {
	answer       answer
	mac          lvs.MAC // that sent it
	source       netip.Addr
	destination  netip.Addr
	size         int // of the IP packet
	id, sequence uint16
	quoted       quotation
}

// A quotation is the packet that an ICMP error is about. Ports are zero for other
// protocols than TCP and UDP.
type quotation struct {
	source, destination         netip.Addr
	sourcePort, destinationPort uint16
}

func readMessage(frame []byte) (message, bool) {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	var m message
	if ethernet, ok := packet.LinkLayer().(*layers.Ethernet); ok {
		copy(m.mac[:], ethernet.SrcMAC)
	}
	network := packet.NetworkLayer()
	if network == nil {
		return m, false
	}
	m.source, _ = netip.AddrFromSlice(network.NetworkFlow().Src().Raw())
	m.destination, _ = netip.AddrFromSlice(network.NetworkFlow().Dst().Raw())
	m.size = len(network.LayerContents()) + len(network.LayerPayload())
	if icmp, ok := packet.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		m.answer = answerOf4(icmp.TypeCode)
		m.id, m.sequence = icmp.Id, icmp.Seq
		m.quoted = readQuotation(icmp.Payload)
		return m, true
	}
	icmp, ok := packet.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	const rest = 4 // of the header: id and sequence, or unused
	if !ok || len(icmp.Payload) < rest {
		return m, false
	}
	m.answer = answerOf6(icmp.TypeCode)
	m.id, m.sequence = binary.BigEndian.Uint16(icmp.Payload), binary.BigEndian.Uint16(icmp.Payload[2:])
	m.quoted = readQuotation(icmp.Payload[rest:])
	return m, true
}

func answerOf4(is layers.ICMPv4TypeCode) answer {
	switch {
	case is.Type() == layers.ICMPv4TypeEchoReply:
		return echoReply
	case is == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeTimeExceeded, layers.ICMPv4CodeTTLExceeded):
		return hopsExceeded
	case is == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort):
		return portUnreachable
	}
	return otherAnswer
}

func answerOf6(is layers.ICMPv6TypeCode) answer {
	switch {
	case is.Type() == layers.ICMPv6TypeEchoReply:
		return echoReply
	case is == layers.CreateICMPv6TypeCode(layers.ICMPv6TypeTimeExceeded, layers.ICMPv6CodeHopLimitExceeded):
		return hopsExceeded
	case is == layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodePortUnreachable):
		return portUnreachable
	}
	return otherAnswer
}

// readQuotation reads a packet that may be cut off after 8 bytes of its payload
// (RFC 792).
func readQuotation(packet []byte) quotation {
	const header4, header6 = 20, 40
	var q quotation
	var protocol byte
	var upper []byte
	switch {
	case len(packet) >= header4 && packet[0]>>4 == 4:
		q.source, q.destination = address(packet[12:16]), address(packet[16:20])
		protocol, upper = packet[9], packet[min(int(packet[0]&0xf)*4, len(packet)):]
	case len(packet) >= header6 && packet[0]>>4 == 6:
		q.source, q.destination = address(packet[8:24]), address(packet[24:40])
		protocol, upper = packet[6], packet[header6:]
	}
	if ports := 4; len(upper) >= ports && (protocol == byte(lvs.TCP) || protocol == byte(lvs.UDP)) {
		q.sourcePort, q.destinationPort = binary.BigEndian.Uint16(upper), binary.BigEndian.Uint16(upper[2:])
	}
	return q
}

func address(b []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

const fewHops, manyHops = 1, 64

// An echo is an ICMP echo request.
type echo struct {
	from, to            lvs.MAC
	source, destination netip.Addr
	id, sequence        uint16
	hops                uint8 // TTL or hop limit
	size                int   // of the IP packet; 0 is the smallest
}

func newEcho(s *segment, to lvs.MAC, source, destination netip.Addr) echo {
	return echo{from: s.mac, to: to, source: source, destination: destination,
		id: uint16(rand.Uint32()), sequence: uint16(rand.Uint32()), hops: manyHops}
}

func (e echo) frame() ([]byte, error) {
	const ip4, ip6, icmp = 20, 40, 8
	header6, network := ipPacket(e.source, e.destination, layers.IPProtocolICMPv6, e.hops)
	if e.source.Is6() {
		request := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		if err := request.SetNetworkLayerForChecksum(network); err != nil {
			return nil, err
		}
		return serialize(ethernet(e.from, e.to, e.source), header6, request,
			&layers.ICMPv6Echo{Identifier: e.id, SeqNumber: e.sequence}, gopacket.Payload(make([]byte, max(0, e.size-ip6-icmp))))
	}
	header4, _ := ipPacket(e.source, e.destination, layers.IPProtocolICMPv4, e.hops)
	return serialize(ethernet(e.from, e.to, e.source), header4,
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: e.id, Seq: e.sequence},
		gopacket.Payload(make([]byte, max(0, e.size-ip4-icmp))))
}

// isAnsweredBy reports whether the message is the echo's reply, of the same size.
func (e echo) isAnsweredBy(m message) bool {
	return m.answer == echoReply && m.id == e.id && m.sequence == e.sequence && m.source == e.destination && m.destination == e.source &&
		(e.size == 0 || m.size == e.size)
}

// isAbout reports whether the message is an error about the echo.
func (e echo) isAbout(m message) bool {
	return (m.answer == hopsExceeded || m.answer == portUnreachable) && m.destination == e.source &&
		m.quoted.source == e.source && m.quoted.destination == e.destination
}
