package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Routers that send errors.
const router4, router6 = "203.0.113.77:0", "[2001:db8:3::77]:0"

// icmp returns a message with a right checksum, from and to these addresses.
func icmp(from, to netip.Addr, kind, code byte, rest uint32, body []byte) []byte {
	message := binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest)
	message = append(message, body...)
	summed := message
	if from.Is6() {
		summed = append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, 0, 0, 0, 0, protoICMPv6)
		binary.BigEndian.PutUint32(summed[32:], uint32(len(message)))
		summed = append(summed, message...)
	}
	binary.BigEndian.PutUint16(message[2:], internetChecksum(summed))
	return message
}

// errorFrame is an ICMP error about a quoted packet, from a router to the VIP of its
// family.
func errorFrame(kind, code byte, rest uint32, quote []byte) []byte {
	if quote[0]>>4 == 4 {
		from, to := addrOf(router4), addrOf(vip4)
		return ethernet(etherIPv4, ipv4Packet(from, to, protoICMP, nil, icmp(from, to, kind, code, rest, quote)))
	}
	from, to := addrOf(router6), addrOf(vip6)
	return ethernet(etherIPv6, ipv6Packet(from, to, protoICMPv6, icmp(from, to, kind, code, rest, quote)))
}

// answered returns what the VIP sent the client, upper being from the one to the
// other: the packet without its frame.
func answered(client, vip string, protocol byte, upper []byte) []byte {
	return ip(vip, client, protocol, upper)[14:]
}

// ipv4Quote is the same with options.
func ipv4Quote(options []byte, upper []byte) []byte {
	return ipv4Packet(addrOf(vip4), addrOf(client4), protoTCP, options, upper)
}

func ipv6Quote(upper []byte, extensions ...extension) []byte {
	next, payload := extend(extensions, protoTCP, upper)
	return ipv6Packet(addrOf(vip6), addrOf(client6), next, payload)
}

func withFragment(packet []byte, at int, value uint16) []byte {
	binary.BigEndian.PutUint16(packet[at:], value)
	return packet
}

// quotingPlane has a connection of each family and protocol.
func quotingPlane(t *testing.T) *Plane {
	p := servedPlane(t)
	for _, frame := range [][]byte{
		tcpFrame(client4, vip4, "S"), udpFrame(client4, vip4, 1),
		tcpFrame(client6, vip6, "S"), udpFrame(client6, vip6, 1),
	} {
		wantVerdict(t, p, frame, "forward", xdpTX)
	}
	return p
}

func TestErrorsAboutConnections(t *testing.T) {
	p := quotingPlane(t)
	tcp4, tcp6 := tcp(vip4, client4, "A"), tcp(vip6, client6, "A")
	about4, about6 := answered(client4, vip4, protoTCP, tcp4), answered(client6, vip6, protoTCP, tcp6)
	destination := extension{protoDestination, 1, 16}
	fragment := extension{protoFragment, 0, 8}
	for _, test := range []struct {
		name  string
		frame []byte
		want  string // verdict
	}{
		{"ipv4 too big", errorFrame(3, 4, 1400, about4), "forward-icmp"},
		{"ipv4 too big, udp", errorFrame(3, 4, 1400, answered(client4, vip4, protoUDP, udp(vip4, client4, 1))), "forward-icmp"},
		{"ipv4 source quench", errorFrame(4, 0, 0, about4), "forward-icmp"},
		{"ipv4 time exceeded", errorFrame(11, 0, 0, about4), "forward-icmp"},
		{"ipv4 redirect", errorFrame(5, 1, 0, about4), "pass-icmp"},
		{"ipv4 parameter problem", errorFrame(12, 0, 0, about4), "pass-icmp"},
		{"ipv4 timestamp", errorFrame(13, 0, 0, about4), "pass-icmp"},
		{"ipv4 ports alone", errorFrame(3, 3, 0, about4[:24]), "forward-icmp"},
		{"ipv4 half the ports", errorFrame(3, 3, 0, about4[:23]), "pass-icmp"},
		{"ipv4 no ports", errorFrame(3, 3, 0, about4[:20]), "pass-icmp"},
		{"ipv4 half a header", errorFrame(3, 3, 0, about4[:19]), "pass-icmp"},
		{"ipv4 with options", errorFrame(3, 3, 0, ipv4Quote(make([]byte, 40), tcp4)), "forward-icmp"},
		{"ipv4 with options, cut", errorFrame(3, 3, 0, ipv4Quote(make([]byte, 40), tcp4)[:62]), "pass-icmp"},
		{"ipv4 header too short", errorFrame(3, 3, 0, changed(bytes.Clone(about4), 0, 0x44)), "pass-icmp"},
		{"ipv4 first fragment", errorFrame(3, 3, 0, withFragment(bytes.Clone(about4), 6, 0x2000)), "forward-icmp"},
		{"ipv4 later fragment", errorFrame(3, 3, 0, withFragment(bytes.Clone(about4), 6, 1)), "pass-icmp"},
		{"ipv4 of another protocol", errorFrame(3, 3, 0, changed(bytes.Clone(about4), 9, protoESP)), "pass-icmp"},
		{"ipv4 of ipv6", errorFrame(3, 3, 0, changed(bytes.Clone(about4), 0, 0x65)), "pass-icmp"},
		{"ipv4 of the client", errorFrame(3, 3, 0, tcpFrame(client4, vip4, "A")[14:]), "pass-icmp"},
		{"ipv4 unknown", errorFrame(3, 3, 0, answered("203.0.113.9:9", vip4, protoTCP, tcp(vip4, "203.0.113.9:9", "A"))), "pass-icmp"},
		{"ipv4 padded", append(errorFrame(3, 3, 0, about4[:24]), 1, 2, 3, 4), "forward-icmp"},
		{"ipv4 wrong checksum", changed(errorFrame(3, 3, 0, about4), 36, 0xff), "drop-icmp-checksum"},
		{"ipv4 wrong checksum, odd length", changed(errorFrame(3, 3, 0, append(bytes.Clone(about4), 7)), 36, 0xff), "drop-icmp-checksum"},
		{"ipv4 odd length", errorFrame(3, 3, 0, append(bytes.Clone(about4), 7)), "forward-icmp"},
		{"ipv4 576 bytes", errorFrame(3, 3, 0, append(bytes.Clone(about4), make([]byte, 576-28-40)...)), "forward-icmp"},
		{"ipv4 ttl", withTTL(errorFrame(3, 3, 0, about4), 1), "drop-icmp-error"},
		{"ipv6 too big", errorFrame(2, 0, 1400, about6), "forward-icmp"},
		{"ipv6 too big, udp", errorFrame(2, 0, 1400, answered(client6, vip6, protoUDP, udp(vip6, client6, 1))), "forward-icmp"},
		{"ipv6 parameter problem", errorFrame(4, 0, 0, about6), "forward-icmp"},
		{"ipv6 last error", errorFrame(127, 0, 0, about6), "forward-icmp"},
		{"ipv6 echo request", errorFrame(128, 0, 0, about6), "pass-icmp"},
		{"ipv6 neighbour solicitation", errorFrame(135, 0, 0, about6), "pass-icmp"},
		{"ipv6 ports alone", errorFrame(1, 4, 0, about6[:44]), "forward-icmp"},
		{"ipv6 half the ports", errorFrame(1, 4, 0, about6[:43]), "pass-icmp"},
		{"ipv6 half a header", errorFrame(1, 4, 0, about6[:39]), "pass-icmp"},
		{"ipv6 with headers", errorFrame(1, 4, 0, ipv6Quote(tcp6, destination, destination)), "forward-icmp"},
		{"ipv6 first fragment", errorFrame(1, 4, 0, withFragment(ipv6Quote(tcp6, fragment), 42, 1)), "forward-icmp"},
		{"ipv6 later fragment", errorFrame(1, 4, 0, withFragment(ipv6Quote(tcp6, fragment), 42, 8)), "pass-icmp"},
		{"ipv6 with headers, cut", errorFrame(1, 4, 0, ipv6Quote(tcp6, destination)[:58]), "pass-icmp"},
		{"ipv6 of the client", errorFrame(1, 4, 0, tcpFrame(client6, vip6, "A")[14:]), "pass-icmp"},
		{"ipv6 wrong checksum", changed(errorFrame(1, 4, 0, about6), 56, 0xff), "forward-icmp"},
		{"ipv6 ttl", changed(errorFrame(1, 4, 0, about6), 21, 1), "drop-icmp-error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			action, server := map[string]uint32{"forward-icmp": xdpTX, "pass-icmp": xdpPass}[test.want], server4
			if action == 0 {
				action = xdpDrop
			}
			if test.frame[14]>>4 == 6 {
				server = server6
			}
			before := theConnections(p)
			out := wantVerdict(t, p, test.frame, test.want, action)
			if want := aged(test.frame, serverMAC(addrOf(server))); action == xdpTX && !bytes.Equal(out, want) {
				t.Errorf("frame\n%x, want\n%x", out, want)
			}
			if diff := cmp.Diff(before, theConnections(p)); diff != "" {
				t.Errorf("connections changed (-before +after):\n%s", diff)
			}
		})
	}
}

// theConnections are the entries without what the clock changes.
func theConnections(p *Plane) (all []string) {
	for c := range p.Connections() {
		all = append(all, fmt.Sprint(c.Protocol, c.Client, c.Virtual, c.Server, c.State))
	}
	slices.Sort(all)
	return all
}

// An error counts at its real server, and leaves the connection's timer alone.
func TestErrorsAreCounted(t *testing.T) {
	p := quotingPlane(t)
	frame := errorFrame(3, 4, 1400, answered(client4, vip4, protoTCP, tcp(vip4, client4, "A")))
	left := func() time.Duration {
		for c := range p.Connections() {
			if c.Protocol == lvs.TCP && c.Client == netip.MustParseAddrPort(client4) {
				return c.Expires
			}
		}
		t.Fatal("no connection")
		return 0
	}
	p.SetClockOffset(50 * time.Second)
	wantVerdict(t, p, frame, "forward-icmp", xdpTX)
	if got := left(); got > 11*time.Second {
		t.Errorf("the timer began anew: %v", got)
	}
	services := mustServices(t, p)
	for _, svc := range services {
		want := uint64(1)
		if svc.Protocol == lvs.SCTP {
			want = 0
		}
		if svc.Protocol == lvs.TCP && svc.Address.Is4() {
			want = 2
		}
		if got := svc.Servers[0].Counters.InPackets; got != want {
			t.Errorf("%v: %d packets, want %d", svc.ServiceKey, got, want)
		}
	}
}

// What can't be delivered is dropped: nobody is told.
func TestErrorsThatAreDropped(t *testing.T) {
	frame := errorFrame(3, 3, 0, append(answered(client4, vip4, protoTCP, tcp(vip4, client4, "A")), make([]byte, 400)...))
	for _, test := range []struct {
		name   string
		change func(t *testing.T, p *Plane)
		want   string
	}{
		{"too big", func(t *testing.T, p *Plane) { setHop(t, p, server4, lvs.NextHop{MTU: 400}) }, "drop-too-big"},
		{"no next hop", func(t *testing.T, p *Plane) {
			if err := p.SetNextHop(addrOf(server4), lvs.NextHop{Problem: "test"}); err != nil {
				t.Fatal(err)
			}
		}, "drop-no-next-hop"},
		{"removed", func(t *testing.T, p *Plane) {
			rs := lvs.RealServerKey{Address: addrOf(server4), Port: netip.MustParseAddrPort(server4).Port()}
			if err := p.DeleteServer(tcpService(vip4, "").ServiceKey, rs); err != nil {
				t.Fatal(err)
			}
		}, "drop-server-removed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := quotingPlane(t)
			test.change(t, p)
			wantVerdict(t, p, frame, test.want, xdpDrop)
		})
	}
	p := quotingPlane(t)
	setHop(t, p, server4, lvs.NextHop{MTU: 400})
	withoutFragments := bytes.Clone(frame)
	withoutFragments[20] = 0x40
	setIPv4Checksum(withoutFragments[14:])
	wantVerdict(t, p, withoutFragments, "drop-icmp-error", xdpDrop)
}

// With schedule_icmp, an error about nothing known makes a connection.
func TestScheduleICMP(t *testing.T) {
	p := answeringPlane(t)
	unknown := errorFrame(3, 3, 0, answered(client4, vip4, protoTCP, tcp(vip4, client4, "A")))
	unserved := errorFrame(3, 3, 0, answered(client4, idle4, protoTCP, tcp(idle4, client4, "A")))
	strange := errorFrame(3, 3, 0, answered(client4, "192.0.2.10:99", protoTCP, tcp("192.0.2.10:99", client4, "A")))
	wantVerdict(t, p, unknown, "pass-icmp", xdpPass)
	if err := p.SetSysctls(lvs.ServiceKey{}, []lvs.SysctlChange{{Name: "schedule_icmp", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p, strange, "pass-icmp", xdpPass)
	wantVerdict(t, p, unserved, "drop-icmp-error", xdpDrop)
	wantVerdict(t, p, unknown, "forward-icmp", xdpTX)
	for c := range p.Connections() {
		if c.State != lvs.StateNone || c.Expires > 3100*time.Millisecond || c.Expires < 2*time.Second {
			t.Errorf("connection %+v, want NONE for three seconds", c)
		}
	}
	wantVerdict(t, p, tcpFrame(client4, vip4, "A"), "forward", xdpTX)
	for c := range p.Connections() {
		if c.State != lvs.StateEstablished {
			t.Errorf("after a segment: %+v", c)
		}
	}
}

// What another director forwarded here is the host's.
func TestErrorsFromPeers(t *testing.T) {
	p := quotingPlane(t)
	if err := p.AddPeerMAC(clientMAC); err != nil {
		t.Fatal(err)
	}
	frame := errorFrame(3, 3, 0, answered(client4, vip4, protoTCP, tcp(vip4, client4, "A")))
	wantVerdict(t, p, frame, "pass-icmp", xdpPass)
}

// withTTL returns a frame of IPv4 with another time to live.
func withTTL(frame []byte, ttl byte) []byte {
	frame[22] = ttl
	setIPv4Checksum(frame[14:])
	return frame
}
