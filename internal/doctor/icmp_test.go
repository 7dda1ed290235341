package doctor

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var families = []struct{ director, vip netip.Addr }{
	{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.100")},
	{netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::100")},
}

// An echo request is of the size that was asked for, and its answer is known by
// its size too.
func TestEchoSizes(t *testing.T) {
	for _, family := range families {
		for _, size := range []int{576, 1281, 1500} {
			request := echo{from: lvs.MAC{2}, to: lvs.MAC{2, 1}, source: family.director, destination: family.vip,
				id: 7, sequence: 8, hops: fewHops, size: size}
			frame, err := request.frame()
			if err != nil {
				t.Fatal(err)
			}
			m, ok := readMessage(frame)
			if !ok || m.size != size || m.id != 7 || m.sequence != 8 || m.mac != request.from {
				t.Errorf("%s, %d bytes: %+v", family.vip, size, m)
			}
			reply := m
			reply.answer, reply.source, reply.destination = echoReply, family.vip, family.director
			if !request.isAnsweredBy(reply) || request.isAnsweredBy(m) {
				t.Errorf("%s: the reply is not known, or the request is taken for it", family.vip)
			}
			reply.size--
			if request.isAnsweredBy(reply) {
				t.Errorf("%s: a shorter reply is taken for the whole one", family.vip)
			}
		}
	}
}

// An ICMP error is known by the packet that it quotes, even if that is cut off.
func TestErrorsQuote(t *testing.T) {
	for _, family := range families {
		c := connection{from: lvs.MAC{2}, to: lvs.MAC{2, 1}, hops: fewHops,
			client: netip.AddrPortFrom(family.director, 61000), server: netip.AddrPortFrom(family.vip, 53)}
		for name, build := range map[string]func() ([]byte, error){"UDP": c.datagram, "TCP": c.syn} {
			frame, err := build()
			if err != nil {
				t.Fatal(err)
			}
			const header, ports = 14, 4
			ip := 20
			if family.vip.Is6() {
				ip = 40
			}
			m := mustRead(t, family.vip, family.director, frame[header:header+ip+ports+4])
			if m.answer != hopsExceeded || !c.isAbout(m) {
				t.Errorf("%s from %s: %+v", name, family.vip, m)
			}
			other := c
			other.client = netip.AddrPortFrom(family.director, 61001)
			if other.isAbout(m) {
				t.Errorf("%s from %s: taken for the error about another connection", name, family.vip)
			}
			for cut := range ip {
				mustRead(t, family.vip, family.director, frame[header:header+cut])
			}
		}
	}
}

// mustRead reads the "time exceeded" that quotes the packet.
func mustRead(t *testing.T, from, to netip.Addr, quoted []byte) message {
	t.Helper()
	header, _ := ipPacket(from, to, layers.IPProtocolICMPv4, manyHops)
	parts := []gopacket.SerializableLayer{ethernet(lvs.MAC{2, 1}, lvs.MAC{2}, from), header,
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeTimeExceeded, layers.ICMPv4CodeTTLExceeded)},
		gopacket.Payload(quoted)}
	if from.Is6() {
		header, network := ipPacket(from, to, layers.IPProtocolICMPv6, manyHops)
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeTimeExceeded, layers.ICMPv6CodeHopLimitExceeded)}
		if err := icmp.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		parts[1], parts[2], parts[3] = header, icmp, gopacket.Payload(append(make([]byte, 4), quoted...))
	}
	frame, err := serialize(parts...)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := readMessage(frame)
	if !ok {
		t.Fatalf("not read as ICMP: %x", frame)
	}
	return m
}
