package dataplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The flows of the tests of single packets, and the real servers behind the VIPs.
const (
	client4, vip4, server4 = "203.0.113.5:40000", "192.0.2.10:80", "198.51.100.11:80"
	client6, vip6, server6 = "[2001:db8:3::5]:40000", "[2001:db8:2::10]:80", "[2001:db8:1::b]:80"
)

// servedPlane is a plane with four services of one real server each: TCP and
// UDP, IPv4 and IPv6.
func servedPlane(t testing.TB) *Plane {
	t.Helper()
	p := newTestPlane(t)
	for _, svc := range []lvs.Service{
		tcpService(vip4, lvs.RoundRobin), udpService(vip4, lvs.RoundRobin),
		tcpService(vip6, lvs.RoundRobin), udpService(vip6, lvs.RoundRobin),
		sctpService(vip4, lvs.RoundRobin), sctpService(vip6, lvs.RoundRobin),
	} {
		mustAddService(t, p, svc)
		if svc.Address.Is4() {
			mustAddServer(t, p, svc, server4, 1)
		} else {
			mustAddServer(t, p, svc, server6, 1)
		}
	}
	return p
}

func addrOf(addrPort string) netip.Addr { return netip.MustParseAddrPort(addrPort).Addr() }

// changed returns a copy of a frame with some bytes replaced.
func changed(frame []byte, at int, replacement ...byte) []byte {
	frame = bytes.Clone(frame)
	copy(frame[at:], replacement)
	return frame
}

// frame6 is an IPv6 frame with these extension headers before an upper layer.
func frame6(protocol byte, upper []byte, extensions ...extension) []byte {
	next, payload := extend(extensions, protocol, upper)
	return ethernet(etherIPv6, ipv6Packet(addrOf(client6), addrOf(vip6), next, payload))
}

func repeatExtension(n int, e extension) []extension { return slices.Repeat([]extension{e}, n) }

func TestParse(t *testing.T) {
	syn4, syn6 := tcp(client4, vip4, "S"), tcp(client6, vip6, "S")
	packet4, packet6 := ipv4Packet(addrOf(client4), addrOf(vip4), protoTCP, nil, syn4), ipv6Packet(addrOf(client6), addrOf(vip6), protoTCP, syn6)
	frame4, whole6 := ethernet(etherIPv4, packet4), ethernet(etherIPv6, packet6)
	const ip, l4 = 14, 34
	destination := extension{protoDestination, 0, 8}

	type test struct {
		name    string
		frame   []byte
		verdict string
	}
	tests := []test{
		{"ipv4 tcp", frame4, "forward"},
		{"ipv4 udp", udpFrame(client4, vip4, 1, 2, 3), "forward"},
		{"ipv6 tcp", whole6, "forward"},
		{"ipv6 udp", udpFrame(client6, vip6), "forward"},
		{"ipv4 icmp", ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoICMP, nil, syn4)), "pass-icmp"},
		{"ipv4 sctp", sctpFrame(client4, vip4, chunkInit), "forward"},
		{"ipv6 sctp", sctpFrame(client6, vip6, chunkInit), "forward"},
		{"ipv4 esp", ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoESP, nil, syn4)), "pass-protocol"},
		{"ipv6 icmp", frame6(protoICMPv6, syn6), "pass-icmp"},
		{"ipv6 no next header", frame6(protoNone, syn6), "pass-protocol"},
		{"ipv6 esp", frame6(protoESP, syn6), "pass-protocol"},

		{"arp", ethernet(etherARP, make([]byte, 46)), "pass-not-ip"},
		{"length in place of a type", ethernet(46, make([]byte, 46)), "pass-not-ip"},
		{"ethernet only", frame4[:14], "pass-malformed"},
		{"other MAC", changed(frame4, 5, 2), "pass-other-host"},
		{"other MAC, first byte", changed(frame4, 0, 6), "pass-other-host"},
		{"broadcast", changed(frame4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "pass-other-host"},
		{"multicast", changed(frame4, 0, 0x01, 0, 0x5e, 0, 0, 1), "pass-other-host"},

		{"one tag", ethernet(etherIPv4, packet4, vlanTag{etherVLAN, 7}), "forward"},
		{"one provider tag", ethernet(etherIPv4, packet4, vlanTag{etherService, 7}), "forward"},
		{"two tags", ethernet(etherIPv6, packet6, vlanTag{etherService, 9}, vlanTag{etherVLAN, 7}), "forward"},
		{"three tags", ethernet(etherIPv4, packet4, vlanTag{etherVLAN, 9}, vlanTag{etherVLAN, 7}, vlanTag{etherVLAN, 5}), "pass-not-ip"},
		{"tagged arp", ethernet(etherARP, make([]byte, 46), vlanTag{etherVLAN, 7}), "pass-not-ip"},
		{"cut in the tag", ethernet(etherIPv4, packet4, vlanTag{etherVLAN, 7})[:17], "pass-malformed"},
		{"cut after the tag", ethernet(etherIPv4, packet4, vlanTag{etherVLAN, 7})[:18], "pass-malformed"},

		{"ipv4 version 6", changed(frame4, ip, 0x65), "pass-malformed"},
		{"ipv4 header of 16", changed(frame4, ip, 0x44), "pass-malformed"},
		{"ipv4 header beyond the packet", changed(frame4, ip, 0x4f), "pass-malformed"},
		{"ipv4 total length below the header", changed(frame4, ip+2, 0, 19), "pass-malformed"},
		{"ipv4 header only", changed(frame4, ip+2, 0, 20), "pass-malformed"},
		{"ipv4 total length beyond the frame", changed(frame4, ip+2, 0, 41), "pass-malformed"},
		{"ipv4 total length cuts tcp", changed(frame4, ip+2, 0, 39), "pass-malformed"},
		{"ipv4 reserved flag", changed(frame4, ip+6, 0x80), "forward"},
		{"ipv4 don't fragment", changed(frame4, ip+6, 0x40), "forward"},
		{"ipv4 first fragment", fragments(tcpFrame(client4, vip4, "S", make([]byte, 20)...), 1, 24)[0], "forward"},
		{"ipv4 last fragment, of nothing known", changed(frame4, ip+6, 0, 1), "hold-fragment"},
		{"ipv4 fragment with more to come, no multiple of eight", changed(frame4, ip+6, 0x20), "pass-malformed"},
		{"ipv4 fragment beyond the largest datagram", changed(frame4, ip+6, 0x1f, 0xff), "pass-malformed"},
		{"ipv4 fragment of nothing", changed(frame4, ip+2, 0, 20, 0, 0, 0, 1), "pass-malformed"},
		{"padding", append(bytes.Clone(frame4), 0, 0, 0, 0, 0, 0), "forward"},
		{"padding that is not zero", append(bytes.Clone(whole6), 1, 2, 3), "forward"},

		{"tcp data offset 4", changed(frame4, l4+12, 0x40), "pass-malformed"},
		{"tcp data offset 15", changed(frame4, l4+12, 0xf0), "forward"},
		{"udp of 7 bytes", ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoUDP, nil, udp(client4, vip4)[:7])), "pass-malformed"},
		{"udp cut by the packet, not the frame", append(ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoUDP, nil, udp(client4, vip4)[:7])), 0), "pass-malformed"},
		{"udp length field that lies", changed(udpFrame(client4, vip4), l4+4, 0xff), "forward"},
		{"sctp without a chunk", ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoSCTP, nil, sctp(client4, vip4))), "pass-malformed"},
		{"sctp chunk cut", ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoSCTP, nil, sctp(client4, vip4, chunkInit)[:15])), "pass-malformed"},
		{"sctp unknown chunk", sctpFrame(client4, vip4, 0xc0), "forward"},

		{"ipv6 version 4", changed(whole6, ip, 0x40), "pass-malformed"},
		{"ipv6 jumbogram", changed(whole6, ip+4, 0, 0), "pass-malformed"},
		{"ipv6 payload beyond the frame", changed(whole6, ip+4, 0, 21), "pass-malformed"},
		{"ipv6 payload cuts tcp", changed(whole6, ip+4, 0, 19), "pass-malformed"},
		{"hop-by-hop", frame6(protoTCP, syn6, extension{protoHopByHop, 0, 8}), "forward"},
		{"routing", frame6(protoTCP, syn6, extension{protoRouting, 2, 24}), "forward"},
		{"destination", frame6(protoTCP, syn6, extension{protoDestination, 1, 16}), "forward"},
		{"authentication", frame6(protoTCP, syn6, extension{protoAH, 4, 24}), "forward"},
		{"largest destination", frame6(protoTCP, syn6, extension{protoDestination, 255, 2048}), "forward"},
		{"each kind", frame6(protoUDP, udp(client6, vip6), extension{protoHopByHop, 0, 8}, extension{protoDestination, 0, 8},
			extension{protoRouting, 0, 8}, extension{protoFragment, 0, 8}, extension{protoAH, 1, 12}), "forward"},
		{"eight headers", frame6(protoTCP, syn6, repeatExtension(8, destination)...), "forward"},
		{"nine headers", frame6(protoTCP, syn6, repeatExtension(9, destination)...), "pass-protocol"},
		{"header beyond the packet", frame6(protoTCP, syn6, extension{protoDestination, 3, 8}), "pass-malformed"},
		{"header beyond the frame", frame6(protoTCP, syn6, extension{protoDestination, 255, 8}), "pass-malformed"},
		{"header of the padding", append(frame6(protoTCP, nil, extension{protoDestination, 0, 8}), syn6...), "pass-malformed"},
		{"header cut", frame6(protoTCP, nil, extension{protoDestination, 0, 3}), "pass-malformed"},
		{"atomic fragment", frame6(protoTCP, syn6, extension{protoFragment, 0, 8}), "forward"},
		{"fragment header of length 255", frame6(protoTCP, syn6, extension{protoFragment, 255, 8}), "forward"},
		{"ipv6 first fragment", fragments(tcpFrame(client6, vip6, "S", make([]byte, 20)...), 1, 24)[0], "forward"},
		{"ipv6 last fragment, of nothing known", changed(frame6(protoTCP, syn6, extension{protoFragment, 0, 8}), 14+40+2, 0, 8), "hold-fragment"},
		{"ipv6 fragment with more to come, no multiple of eight", changed(frame6(protoTCP, syn6, extension{protoFragment, 0, 8}), 14+40+3, 1), "pass-malformed"},
		{"ipv6 fragment beyond the largest datagram", changed(frame6(protoTCP, syn6, extension{protoFragment, 0, 8}), 14+40+2, 0xff, 0xf8), "pass-malformed"},
		{"ipv6 first fragment with headers behind its own", changed(frame6(protoTCP, append(syn6, 0, 0, 0, 0), extension{protoFragment, 0, 8}, extension{protoDestination, 0, 8}), 14+40+3, 1, 0, 0, 0, 9), "forward"},
		{"ipv6 first fragment without its headers' end", changed(frame6(protoTCP, make([]byte, 0), extension{protoFragment, 0, 8}, extension{protoDestination, 1, 8}), 14+40+3, 1, 0, 0, 0, 8), "drop-fragment-tiny"},
		{"ipv6 fragment, reserved bits only", changed(frame6(protoTCP, syn6, extension{protoFragment, 0, 8}), 14+40+3, 6), "forward"},
	}
	for n := 4; n <= 40; n += 4 {
		tests = append(tests, test{
			fmt.Sprintf("ipv4 with %d bytes of options", n),
			ethernet(etherIPv4, ipv4Packet(addrOf(client4), addrOf(vip4), protoTCP, make([]byte, n), syn4)), "forward",
		})
	}
	p := servedPlane(t)
	setHop(t, p, server6, lvs.NextHop{MTU: 3000})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			action := uint32(xdpPass)
			switch kind, _, _ := strings.Cut(test.verdict, "-"); kind {
			case "forward":
				action = xdpTX
			case "hold", "drop":
				action = xdpDrop
			}
			out := wantVerdict(t, p, test.frame, test.verdict, action)
			if action == xdpPass && !bytes.Equal(out, test.frame) {
				t.Errorf("reached the host as\n%x, came in as\n%x", out, test.frame)
			}
		})
	}
}

// Whatever a packet's way to its ports, it is the same flow.
func TestHeadersDoNotChangeTheFlow(t *testing.T) {
	p := servedPlane(t)
	syn := tcp(client6, vip6, "S")
	for _, frame := range [][]byte{
		frame6(protoTCP, syn),
		frame6(protoTCP, syn, extension{protoHopByHop, 0, 8}, extension{protoFragment, 0, 8}),
		ethernet(etherIPv6, ipv6Packet(addrOf(client6), addrOf(vip6), protoTCP, syn), vlanTag{etherVLAN, 3}),
	} {
		wantVerdict(t, p, frame, "forward", xdpTX)
	}
	conns := slices.Collect(p.Connections())
	if len(conns) != 1 || conns[0].Packets != 3 || conns[0].Bytes != 60+76+60 {
		t.Errorf("connections %+v, want one of 3 packets, 196 bytes", conns)
	}
}

func TestNoServices(t *testing.T) {
	p := newTestPlane(t)
	frame := tcpFrame(client4, vip4, "S")
	for _, frame := range [][]byte{frame, frame[:14], changed(frame, 5, 9)} {
		if out := wantVerdict(t, p, frame, "pass-no-services", xdpPass); !bytes.Equal(out, frame) {
			t.Errorf("reached the host as %x, came in as %x", out, frame)
		}
	}
}
