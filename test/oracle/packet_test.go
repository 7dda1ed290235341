package oracle

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The EtherTypes' offset and where the IP packet begins, without VLAN tags.
const ethernetHeader = 14

// A packet is one from a client to a VIP.
type packet struct {
	protocol    string // tcp or udp
	client, vip netip.AddrPort
	flags       string // TCP: letters of S A F R P U; 0 for none
	payload     string
}

// readPacket reads "CLIENT[>VIP][ FLAGS]".
func (r *recording) readPacket(text string) (packet, error) {
	who, flags, _ := strings.Cut(text, " ")
	client, vip, _ := strings.Cut(who, ">")
	if vip == "" {
		vip = r.VIP
	}
	p := packet{protocol: r.Proto, flags: flags}
	if p.protocol == "udp" {
		p.payload = "oracle"
	} else if p.flags == "" {
		p.flags = "S"
	}
	var err error
	if p.client, err = netip.ParseAddrPort(client); err == nil {
		p.vip, err = netip.ParseAddrPort(vip)
	}
	return p, err
}

// frame returns the packet as it comes in on cl0.
func (p packet) frame() ([]byte, error) {
	transport, protocol, err := p.transport()
	if err != nil {
		return nil, err
	}
	ethernet := &layers.Ethernet{SrcMAC: clientMAC[:], DstMAC: cl0MAC[:], EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer
	source, destination := net.IP(p.client.Addr().AsSlice()), net.IP(p.vip.Addr().AsSlice())
	if p.client.Addr().Is4() {
		header := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: source, DstIP: destination}
		err = transport.SetNetworkLayerForChecksum(header)
		ip = header
	} else {
		ethernet.EthernetType = layers.EthernetTypeIPv6
		header := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: source, DstIP: destination}
		err = transport.SetNetworkLayerForChecksum(header)
		ip = header
	}
	if err != nil {
		return nil, err
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	err = gopacket.SerializeLayers(buffer, options, ethernet, ip, transport, gopacket.Payload(p.payload))
	return buffer.Bytes(), err
}

// A transportLayer has a checksum over addresses of the layer below.
type transportLayer interface {
	gopacket.SerializableLayer
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}

func (p packet) transport() (transportLayer, layers.IPProtocol, error) {
	switch p.protocol {
	case "udp":
		return &layers.UDP{SrcPort: layers.UDPPort(p.client.Port()), DstPort: layers.UDPPort(p.vip.Port())}, layers.IPProtocolUDP, nil
	case "tcp":
		tcp := &layers.TCP{
			SrcPort: layers.TCPPort(p.client.Port()), DstPort: layers.TCPPort(p.vip.Port()),
			Seq: 1, Window: 64240,
		}
		err := setFlags(tcp, p.flags)
		return tcp, layers.IPProtocolTCP, err
	}
	return nil, 0, fmt.Errorf("packet of protocol %q: neither tcp nor udp", p.protocol)
}

func setFlags(tcp *layers.TCP, flags string) error {
	if flags == "0" {
		return nil
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

// A decoded frame.
type decoded struct {
	destination, source lvs.MAC
	from, to            netip.Addr
	ttl                 uint8
	fragment            bool
	tcp                 *layers.TCP
	udp                 *layers.UDP
	unreachablePort     bool // ICMP or ICMPv6
}

func decode(frame []byte) decoded {
	var d decoded
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, layer := range packet.Layers() {
		switch l := layer.(type) {
		case *layers.Ethernet:
			d.destination, d.source = lvs.MAC(l.DstMAC), lvs.MAC(l.SrcMAC)
		case *layers.IPv4:
			d.from, _ = netip.AddrFromSlice(l.SrcIP)
			d.to, _ = netip.AddrFromSlice(l.DstIP)
			d.ttl = l.TTL
			d.fragment = l.FragOffset != 0 || l.Flags&layers.IPv4MoreFragments != 0
		case *layers.IPv6:
			d.from, _ = netip.AddrFromSlice(l.SrcIP)
			d.to, _ = netip.AddrFromSlice(l.DstIP)
			d.ttl = l.HopLimit
		case *layers.IPv6Fragment:
			d.fragment = true
		case *layers.TCP:
			d.tcp = l
		case *layers.UDP:
			d.udp = l
		case *layers.ICMPv4:
			d.unreachablePort = l.TypeCode == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort)
		case *layers.ICMPv6:
			d.unreachablePort = l.TypeCode == layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodePortUnreachable)
		}
	}
	return d
}

// maskID takes the identification out of an IPv4 frame.
func maskID(frame []byte) {
	header := frame[ethernetHeader : ethernetHeader+20]
	header[4], header[5] = 0, 0
	header[10], header[11] = 0, 0
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(header[i])<<8 | uint32(header[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	header[10], header[11] = byte(sum>>8), byte(sum)
}
