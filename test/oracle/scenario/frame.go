package scenario

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// ethernetHeader is where the IP packet begins.
const ethernetHeader = 14

// A decoded frame.
type decoded struct {
	destination, source lvs.MAC
	from, to            netip.Addr
	ttl                 uint8
	id                  uint16 // of IPv4
	fragment            bool
	tcp                 *layers.TCP
	udp                 *layers.UDP
	unreachablePort     bool // ICMP or ICMPv6
	protocolUnknown     bool // ICMP or ICMPv6
	echoRequest         bool // ICMP or ICMPv6
	echoReply           bool // ICMP or ICMPv6
	icmpError           bool // ICMP or ICMPv6
	other               bool // neither TCP nor UDP
}

// icmp4Errors are the types that quote a packet.
var icmp4Errors = []uint8{
	layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4TypeSourceQuench, layers.ICMPv4TypeRedirect,
	layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeParameterProblem,
}

func decode(frame []byte) decoded {
	d := decoded{other: true}
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, layer := range packet.Layers() {
		switch l := layer.(type) {
		case *layers.Ethernet:
			d.destination, d.source = lvs.MAC(l.DstMAC), lvs.MAC(l.SrcMAC)
		case *layers.IPv4:
			d.from, _ = netip.AddrFromSlice(l.SrcIP)
			d.to, _ = netip.AddrFromSlice(l.DstIP)
			d.ttl, d.id = l.TTL, l.Id
			d.fragment = l.FragOffset != 0 || l.Flags&layers.IPv4MoreFragments != 0
		case *layers.IPv6:
			d.from, _ = netip.AddrFromSlice(l.SrcIP)
			d.to, _ = netip.AddrFromSlice(l.DstIP)
			d.ttl = l.HopLimit
		case *layers.IPv6Fragment:
			d.fragment = true
		case *layers.TCP:
			d.tcp, d.other = l, false
		case *layers.UDP:
			d.udp, d.other = l, false
		case *layers.ICMPv4:
			d.unreachablePort = l.TypeCode == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort)
			d.protocolUnknown = l.TypeCode == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeProtocol)
			d.echoRequest = l.TypeCode.Type() == layers.ICMPv4TypeEchoRequest
			d.echoReply = l.TypeCode.Type() == layers.ICMPv4TypeEchoReply
			d.icmpError = slices.Contains(icmp4Errors, l.TypeCode.Type())
		case *layers.ICMPv6:
			d.unreachablePort = l.TypeCode == layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodePortUnreachable)
			d.protocolUnknown = l.TypeCode == layers.CreateICMPv6TypeCode(layers.ICMPv6TypeParameterProblem, layers.ICMPv6CodeUnrecognizedNextHeader)
			d.echoRequest = l.TypeCode.Type() == layers.ICMPv6TypeEchoRequest
			d.echoReply = l.TypeCode.Type() == layers.ICMPv6TypeEchoReply
			d.icmpError = l.TypeCode.Type() < layers.ICMPv6TypeEchoRequest
		}
	}
	return d
}

// What the answers call what became of a packet; real servers are letters.
const (
	nothing   = '.'
	icmpError = '!'
	tcpAnswer = '?'
	otherwise = '*'
	answer    = '<' // of a packet from a real server: it went to the client, from the VIP
	forwarded = '>' // the same, but as any router would send it on
)

// outcome says in one letter what became of a frame that came in on cl or rs.
func (s Sent) outcome(in []byte, on string) byte {
	if on == "rs" {
		return s.replyOutcome(in)
	}
	switch {
	case s.Passed != nil && len(s.Frames) == 0:
		return hostsOutcome(in, s.Passed)
	case s.Passed != nil || len(s.Frames) > 1:
		return otherwise
	case len(s.Frames) == 0:
		return nothing
	}
	d := decode(s.Frames[0].Frame)
	if s.Frames[0].On == "rs" {
		n := int(d.destination[len(d.destination)-1])
		if d.source == rs0MAC && d.destination == ServerMAC(n) && n >= FirstServer && n < FirstServer+ServerCount {
			return byte('a' + n - FirstServer)
		}
		return otherwise
	}
	switch {
	case d.destination != ClientMAC:
		return otherwise
	case d.unreachablePort || d.protocolUnknown:
		return icmpError
	case d.tcp != nil:
		return tcpAnswer
	}
	return otherwise
}

// replyOutcome says what became of a frame from a real server.
func (s Sent) replyOutcome(in []byte) byte {
	switch {
	case s.Passed != nil && len(s.Frames) == 0 && bytes.Equal(in, s.Passed):
		return forwarded // the host is a router
	case s.Passed != nil || len(s.Frames) > 1:
		return otherwise
	case len(s.Frames) == 0:
		return nothing
	}
	was, is := decode(in), decode(s.Frames[0].Frame)
	switch {
	case s.Frames[0].On == "rs" && is.icmpError:
		return icmpError
	case s.Frames[0].On == "rs" || is.destination != ClientMAC || is.to != was.to || is.ttl != was.ttl-1:
		return otherwise
	case is.from == was.from:
		return forwarded
	}
	return answer
}

// hostsOutcome returns what a host makes of a packet for an address of its own,
// with nobody listening.
func hostsOutcome(in, passed []byte) byte {
	if !bytes.Equal(in, passed) {
		return otherwise
	}
	d := decode(in)
	switch {
	case d.icmpError || d.tcp != nil && d.tcp.RST:
		return nothing
	case d.tcp == nil:
		return icmpError
	}
	return tcpAnswer
}

// maskRandom takes out of a frame what a kernel picks at random: the
// identification of an IPv4 packet that it made and of fragments of IPv6, and the
// source port of GUE.
func maskRandom(frame, in []byte) {
	switch ip := frame[ethernetHeader:]; {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		header := ip[:min(int(ip[0]&15)*4, len(ip))]
		if came := decode(in); !came.from.Is4() || came.id != binary.BigEndian.Uint16(ip[4:]) {
			ip[4], ip[5] = 0, 0
			setHeaderChecksum(header)
		}
		if isFirst := binary.BigEndian.Uint16(ip[6:])&0x1fff == 0; isFirst {
			maskGUE(ip[9], ip[len(header):])
		}
	case len(ip) >= 48 && ip[0]>>4 == 6 && ip[6] == byte(layers.IPProtocolIPv6Fragment):
		clear(ip[44:48])
		if isFirst := binary.BigEndian.Uint16(ip[42:])>>3 == 0; isFirst {
			maskGUE(ip[40], ip[48:])
		}
	case len(ip) >= 40 && ip[0]>>4 == 6:
		maskGUE(ip[6], ip[40:])
	}
}

// maskGUE sets the source port of a tunnel's UDP header, and its checksum, if it
// has one, right.
func maskGUE(protocol byte, udp []byte) {
	const port = 49152
	if protocol != byte(layers.IPProtocolUDP) || len(udp) < 8 {
		return
	}
	if to := binary.BigEndian.Uint16(udp[2:]); to != 6080 && to != 6081 {
		return
	}
	was, sum := binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[6:])
	binary.BigEndian.PutUint16(udp, port)
	if sum != 0 {
		binary.BigEndian.PutUint16(udp[6:], fold(uint32(^sum)+uint32(^was)+port))
	}
}

func setHeaderChecksum(header []byte) {
	header[10], header[11] = 0, 0
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	binary.BigEndian.PutUint16(header[10:], fold(sum))
}

// fold makes an Internet checksum of a sum.
func fold(sum uint32) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Letter returns what the answers call a real server.
func Letter(addr netip.Addr) (byte, error) {
	n, err := ServerNumber(addr)
	return byte('a' + n - FirstServer), err
}

// ServerNumber returns the last number of a real server's address, which is
// decimal in IPv6 too.
func ServerNumber(addr netip.Addr) (int, error) {
	for n := FirstServer; n < FirstServer+ServerCount; n++ {
		for _, format := range []string{"198.51.100.%d", "2001:db8:1::%d"} {
			if addr.String() == fmt.Sprintf(format, n) {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("address %s is none of a real server", addr)
}
