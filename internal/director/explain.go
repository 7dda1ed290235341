package director

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// explainedClient is the MAC address that an explained packet comes from: one of
// those that are for documentation (RFC 7042, 2.1.2).
var explainedClient = [6]byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}

// explainedTTL is the hop limit of an explained packet, what most systems send.
const explainedTTL = 64

// Explain implements [api.Director]. It wraps lvs.ErrInvalid for an interface
// that the data plane is not attached to.
func (d *Director) Explain(_ context.Context, q lvs.Question) (lvs.Explanation, error) {
	in, err := d.explainedInterface(q.Interface)
	if err != nil {
		return lvs.Explanation{}, fmt.Errorf("explain a packet: %w", err)
	}
	frame, err := explainedFrame(q, in.HardwareAddr)
	if err != nil {
		return lvs.Explanation{}, fmt.Errorf("explain a packet: build it: %w", err)
	}
	e, err := d.plane.Explain(frame, in.Index)
	if err != nil {
		return lvs.Explanation{}, err
	}
	e.In.InterfaceName = in.Name
	if e.Out != nil {
		if out, err := net.InterfaceByIndex(e.Out.InterfaceIndex); err == nil {
			e.Out.InterfaceName = out.Name
		}
	}
	return e, nil
}

// explainedInterface is the attached interface of that name, the first for "".
func (d *Director) explainedInterface(name string) (*net.Interface, error) {
	var attached []string
	for _, is := range d.interfaces.list() {
		if is.Name == name || name == "" {
			return net.InterfaceByName(is.Name)
		}
		attached = append(attached, is.Name)
	}
	return nil, fmt.Errorf("interface %q: %w: want one that the data plane is attached to: %s",
		name, lvs.ErrInvalid, strings.Join(attached, ", "))
}

// explainedFrame is the packet of a question as it comes to that MAC address.
func explainedFrame(q lvs.Question, director net.HardwareAddr) ([]byte, error) {
	ethernet := &layers.Ethernet{SrcMAC: explainedClient[:], DstMAC: director, EthernetType: layers.EthernetTypeIPv4}
	parts := []gopacket.SerializableLayer{ethernet}
	var network gopacket.NetworkLayer
	if q.Virtual.Addr().Is4() {
		ip := &layers.IPv4{
			Version: 4, TTL: explainedTTL, Protocol: layers.IPProtocol(q.Protocol), Flags: layers.IPv4DontFragment,
			SrcIP: q.Client.Addr().AsSlice(), DstIP: q.Virtual.Addr().AsSlice(),
		}
		parts, network = append(parts, ip), ip
	} else {
		ethernet.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{
			Version: 6, HopLimit: explainedTTL, NextHeader: layers.IPProtocol(q.Protocol),
			SrcIP: q.Client.Addr().AsSlice(), DstIP: q.Virtual.Addr().AsSlice(),
		}
		parts, network = append(parts, ip), ip
	}
	upper, err := explainedUpper(q, network)
	if err != nil {
		return nil, err
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, append(parts, upper)...); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func explainedUpper(q lvs.Question, network gopacket.NetworkLayer) (gopacket.SerializableLayer, error) {
	if q.Protocol == lvs.UDP {
		udp := &layers.UDP{SrcPort: layers.UDPPort(q.Client.Port()), DstPort: layers.UDPPort(q.Virtual.Port())}
		return udp, udp.SetNetworkLayerForChecksum(network)
	}
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(q.Client.Port()), DstPort: layers.TCPPort(q.Virtual.Port()), Window: 65535,
		FIN: q.Flags&lvs.TCPFin != 0, SYN: q.Flags&lvs.TCPSyn != 0,
		RST: q.Flags&lvs.TCPRst != 0, PSH: q.Flags&lvs.TCPPsh != 0,
		ACK: q.Flags&lvs.TCPAck != 0, URG: q.Flags&lvs.TCPUrg != 0,
		ECE: q.Flags&lvs.TCPEce != 0, CWR: q.Flags&lvs.TCPCwr != 0,
	}
	return tcp, tcp.SetNetworkLayerForChecksum(network)
}
