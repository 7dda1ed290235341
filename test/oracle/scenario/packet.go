package scenario

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A packet is one from a client to a VIP, or back.
type packet struct {
	protocol string // tcp, udp or sctp
	from, to netip.AddrPort
	what     string // TCP flags, an SCTP chunk, sip=ID, text=ESCAPED, an ICMP error
	payload  int    // bytes of data; -1 is what is usual
}

// sctpChunks are the types that a packet may be named after (RFC 9260, 3.2).
var sctpChunks = map[string]byte{
	"DATA": 0, "INIT": 1, "INIT_ACK": 2, "SACK": 3, "HEARTBEAT": 4, "HEARTBEAT_ACK": 5, "ABORT": 6, "SHUTDOWN": 7,
	"SHUTDOWN_ACK": 8, "ERROR": 9, "COOKIE_ECHO": 10, "COOKIE_ACK": 11, "SHUTDOWN_COMPLETE": 14,
}

// parsePacket reads "CLIENT[>VIP][/WHAT][+BYTES]", or "<SERVER>CLIENT..." for one
// from a real server, and returns the interface that it comes in on.
func parsePacket(text, protocol string, vip netip.AddrPort) (p packet, on string, err error) {
	p = packet{protocol: protocol, to: vip, payload: -1}
	text, isReply := strings.CutPrefix(text, "<")
	on = "cl"
	if isReply {
		on = "rs"
	}
	text, size, ok := strings.Cut(text, "+")
	who, what, _ := strings.Cut(text, "/")
	if ok {
		if p.payload, err = strconv.Atoi(size); err != nil {
			return p, on, err
		}
	}
	p.what = what
	client, to, ok := strings.Cut(who, ">")
	if ok {
		if p.to, err = netip.ParseAddrPort(to); err != nil {
			return p, on, err
		}
	}
	p.from, err = netip.ParseAddrPort(client)
	return p, on, err
}

// frame returns the packet as it comes in on an interface of the director.
func (p packet) frame(on string) ([]byte, error) {
	far, near := FarMAC(on), NearMAC(on)
	ethernet := &layers.Ethernet{SrcMAC: far[:], DstMAC: near[:], EthernetType: layers.EthernetTypeIPv4}
	if !p.from.Addr().Is4() {
		ethernet.EthernetType = layers.EthernetTypeIPv6
	}
	if isICMP(p.what) {
		return p.icmpFrame(ethernet)
	}
	packet, err := p.layers()
	if err != nil {
		return nil, err
	}
	return serialize(append([]gopacket.SerializableLayer{ethernet}, packet...))
}

func serialize(packet []gopacket.SerializableLayer) ([]byte, error) {
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	err := gopacket.SerializeLayers(buffer, options, packet...)
	return buffer.Bytes(), err
}

// layers returns the packet from its IP header on.
func (p packet) layers() ([]gopacket.SerializableLayer, error) {
	transport, protocol, err := p.transport()
	if err != nil {
		return nil, err
	}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	source, destination := net.IP(p.from.Addr().AsSlice()), net.IP(p.to.Addr().AsSlice())
	if p.from.Addr().Is4() {
		header := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: source, DstIP: destination}
		ip, network = header, header
	} else {
		header := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: source, DstIP: destination}
		ip, network = header, header
	}
	if checked, ok := transport.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		if err := checked.SetNetworkLayerForChecksum(network); err != nil {
			return nil, err
		}
	}
	data, err := p.data()
	return []gopacket.SerializableLayer{ip, transport, gopacket.Payload(data)}, err
}

func (p packet) transport() (gopacket.SerializableLayer, layers.IPProtocol, error) {
	switch p.protocol {
	case "tcp":
		tcp := &layers.TCP{
			SrcPort: layers.TCPPort(p.from.Port()), DstPort: layers.TCPPort(p.to.Port()),
			Seq: 1, Window: 64240,
		}
		return tcp, layers.IPProtocolTCP, setFlags(tcp, p.what)
	case "udp":
		return &layers.UDP{SrcPort: layers.UDPPort(p.from.Port()), DstPort: layers.UDPPort(p.to.Port())}, layers.IPProtocolUDP, nil
	case "sctp":
		if _, ok := sctpChunks[p.what]; !ok && p.what != "" {
			return nil, 0, fmt.Errorf("SCTP chunk %q: unknown", p.what)
		}
		return &layers.SCTP{
			SrcPort: layers.SCTPPort(p.from.Port()), DstPort: layers.SCTPPort(p.to.Port()),
			VerificationTag: 0x0a0b0c0d,
		}, layers.IPProtocolSCTP, nil
	}
	return nil, 0, fmt.Errorf("packet of protocol %q: none of tcp, udp, sctp", p.protocol)
}

func setFlags(tcp *layers.TCP, flags string) error {
	switch flags {
	case "0":
		return nil
	case "":
		flags = "S"
	}
	bits := map[rune]*bool{'S': &tcp.SYN, 'A': &tcp.ACK, 'F': &tcp.FIN, 'R': &tcp.RST, 'P': &tcp.PSH, 'U': &tcp.URG}
	for _, letter := range flags {
		bit := bits[letter]
		if bit == nil {
			return fmt.Errorf("TCP flag %q: none of S A F R P U", letter)
		}
		*bit = true
	}
	return nil
}

// data returns what is in the packet behind ports and flags.
func (p packet) data() ([]byte, error) {
	id, isSIP := strings.CutPrefix(p.what, "sip=")
	escaped, isText := strings.CutPrefix(p.what, "text=")
	switch {
	case p.payload >= 0:
		return bytes.Repeat([]byte("x"), p.payload), nil
	case p.protocol == "sctp":
		chunk := sctpChunks["INIT"]
		if p.what != "" {
			chunk = sctpChunks[p.what]
		}
		const length = 20
		return append([]byte{chunk, 0, 0, length}, make([]byte, length-4)...), nil
	case isSIP:
		return []byte("INVITE sip:bob@example.com SIP/2.0\r\nCall-ID: " + id + "\r\nContent-Length: 0\r\n\r\n"), nil
	case isText:
		text, err := strconv.Unquote(`"` + escaped + `"`)
		return []byte(text), err
	case p.protocol == "udp":
		return []byte("oracle"), nil
	}
	return nil, nil
}
