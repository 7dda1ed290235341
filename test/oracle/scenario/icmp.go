package scenario

import (
	"encoding/binary"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// icmpErrors are those that a packet may be: what it says in IPv4 and in IPv6.
var icmpErrors = map[string]struct {
	v4 layers.ICMPv4TypeCode
	v6 layers.ICMPv6TypeCode
}{
	"icmp-unreachable": {
		layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeHost),
		layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodeAddressUnreachable),
	},
	"icmp-too-big": {
		layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded),
		layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0),
	},
	"icmp-exceeded": {
		layers.CreateICMPv4TypeCode(layers.ICMPv4TypeTimeExceeded, layers.ICMPv4CodeTTLExceeded),
		layers.CreateICMPv6TypeCode(layers.ICMPv6TypeTimeExceeded, layers.ICMPv6CodeHopLimitExceeded),
	},
}

// isICMP reports whether what of a packet is one of icmpErrors.
func isICMP(what string) bool {
	_, ok := icmpErrors[what]
	return ok
}

// icmpFrame returns an error from who the packet is from, about a packet that came to it from
// who the packet is to.
func (p packet) icmpFrame(ethernet *layers.Ethernet) ([]byte, error) {
	about := packet{protocol: p.protocol, from: p.to, to: p.from, payload: p.payload}
	quoted, err := about.layers()
	if err != nil {
		return nil, err
	}
	quote, err := serialize(quoted)
	if err != nil {
		return nil, err
	}
	const mtu = 1400
	kind := icmpErrors[p.what]
	source, destination := net.IP(p.from.Addr().AsSlice()), net.IP(p.to.Addr().AsSlice())
	if p.from.Addr().Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: source, DstIP: destination}
		icmp := &layers.ICMPv4{TypeCode: kind.v4}
		if p.what == "icmp-too-big" {
			icmp.Seq = mtu
		}
		return serialize([]gopacket.SerializableLayer{ethernet, ip, icmp, gopacket.Payload(quote)})
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: source, DstIP: destination}
	icmp := &layers.ICMPv6{TypeCode: kind.v6}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	var parameter [4]byte
	if p.what == "icmp-too-big" {
		binary.BigEndian.PutUint32(parameter[:], mtu)
	}
	return serialize([]gopacket.SerializableLayer{ethernet, ip, icmp, gopacket.Payload(parameter[:]), gopacket.Payload(quote)})
}
