package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A numbered segment has sequence numbers and options.
type numberedSegment struct {
	flags    string
	seq, ack uint32
	options  []byte
	payload  []byte
}

func (s numberedSegment) build(from, to string) []byte {
	segment := append(tcp(from, to, s.flags), s.options...)
	binary.BigEndian.PutUint32(segment[4:], s.seq)
	binary.BigEndian.PutUint32(segment[8:], s.ack)
	segment[12] = byte(len(segment) / 4 << 4)
	return append(segment, s.payload...)
}

func (s numberedSegment) frame(from, to string) []byte {
	return sealed(ip(from, to, protoTCP, s.build(from, to)))
}

// toaOption is what tells a client's end.
func toaOption(client string) []byte {
	end := netip.MustParseAddrPort(client)
	kind, length := byte(254), byte(8)
	if end.Addr().Is6() {
		kind, length = 253, 20
	}
	option := binary.BigEndian.AppendUint16([]byte{kind, length}, end.Port())
	return append(option, end.Addr().AsSlice()...)
}

var (
	mss1460 = []byte{2, 4, 1460 >> 8, 1460 & 0xff}
	// What a Linux client's SYN has: MSS, SACK, timestamps, window scale.
	usualOptions = append(bytes.Clone(mss1460), 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7)
	timestamps   = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
)

// handshakes are the segments of a connection, from both sides, and which of the client's
// have the option.
func handshake(payload []byte) []struct {
	reply bool
	numberedSegment
	toa bool
} {
	const client, server = 1000, 0xfffffff0
	return []struct {
		reply bool
		numberedSegment
		toa bool
	}{
		{false, numberedSegment{"S", client, 0, usualOptions, nil}, true},
		{false, numberedSegment{"S", client, 0, usualOptions, nil}, true}, // again
		{true, numberedSegment{"SA", server, client + 1, usualOptions, nil}, false},
		{false, numberedSegment{"A", client + 1, server + 1, timestamps, nil}, true},
		{false, numberedSegment{"PA", client + 1, server + 1, timestamps, payload}, true},
		{false, numberedSegment{"A", client + 1, server + 1, nil, payload}, true},
		{true, numberedSegment{"A", server + 1, client + 1, timestamps, payload}, false},
		{false, numberedSegment{"A", client + 301, server + 2, timestamps, nil}, false},
		{false, numberedSegment{"PA", client + 301, server + 2, nil, payload}, false},
		{false, numberedSegment{"R", client + 301, server + 1, nil, nil}, false},
	}
}

func TestTOA(t *testing.T) {
	p := fullNATPlane(t, true)
	for _, m := range masqueradings {
		tellsClient(t, p, m, handshake(bytes.Repeat([]byte{1, 2, 3}, 99)), func(frame []byte, verdict string) []byte {
			return wantVerdict(t, p, frame, verdict, xdpTX)
		})
	}
	checkTable(t, p)
}

// At tc, where the header stays where it is, only segments without payload are made longer.
func TestTOAInTC(t *testing.T) {
	p := fullNATPlane(t, true)
	for _, m := range masqueradings {
		tellsClient(t, p, m, handshake(nil), func(frame []byte, verdict string) []byte {
			return wantInTC(t, p, frame, skbContext{}, verdict, tcRedirect)
		})
		loaded := numberedSegment{"PA", 1001, 0xfffffff1, nil, []byte{1}}
		wantInTC(t, p, loaded.frame(m.client, m.vip), skbContext{}, "forward-no-toa", tcRedirect)
	}
}

func tellsClient(t *testing.T, p *Plane, m masquerading, segments []struct {
	reply bool
	numberedSegment
	toa bool
}, run func(frame []byte, verdict string) []byte) {
	t.Helper()
	local := ""
	for i, s := range segments {
		if s.reply {
			run(fromServer(s.frame(m.server, local), m.server), "forward-reply")
			continue
		}
		out := run(s.frame(m.client, m.vip), "forward")
		local, _ = ends(out)
		if s.toa {
			s.options = append(toaOption(m.client), s.options...)
		}
		want := sentTo(ip(local, m.server, protoTCP, s.build(local, m.server)), serverMAC(addrOf(m.server)))
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s segment %d (-want +got):\n%s", m.client, i, diff)
		}
	}
}

// The client is asked for segments that fit with the option.
func TestTOALowersTheSegmentSize(t *testing.T) {
	p := fullNATPlane(t, true)
	for family, m := range masqueradings {
		local, _ := ends(wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX))
		most := map[string]int{"ipv4": 1500 - 40 - 8, "ipv6": 1500 - 60 - 20}[family]
		for _, asked := range []int{most + 100, most + 1, most, most - 1, 600} {
			options := func(mss int) []byte { return []byte{1, 1, 2, 4, byte(mss >> 8), byte(mss), 1, 1} }
			answer := numberedSegment{flags: "SA", seq: 7, ack: 1, options: options(asked)}
			out := wantVerdict(t, p, fromServer(answer.frame(m.server, local), m.server), "forward-reply", xdpTX)
			answer.options = options(min(asked, most))
			want := sentTo(ip(m.vip, m.client, protoTCP, answer.build(m.vip, m.client)), clientMAC)
			if diff := cmp.Diff(want, out); diff != "" {
				t.Errorf("%s, MSS %d (-want +got):\n%s", family, asked, diff)
			}
		}
	}
}

// What has no room goes as it is, and is counted.
func TestTOAWithoutRoom(t *testing.T) {
	p := fullNATPlane(t, true)
	for family, m := range masqueradings {
		room := 40 - len(toaOption(m.client))
		fits := map[string]int{"ipv4": 1500 - 40, "ipv6": 1500 - 60}[family] - len(toaOption(m.client))
		for _, test := range []struct {
			options, payload int
			verdict          string
		}{
			{room, 0, "forward"},
			{room + 4, 0, "forward-no-toa"},
			{40, 0, "forward-no-toa"},
			{0, fits, "forward"},
			{0, fits + 1, "forward-no-toa"},
		} {
			s := numberedSegment{"S", 1, 0, bytes.Repeat([]byte{1}, test.options), make([]byte, test.payload)}
			out := wantVerdict(t, p, s.frame(m.client, m.vip), test.verdict, xdpTX)
			local, _ := ends(out)
			if test.verdict == "forward" {
				s.options = append(toaOption(m.client), s.options...)
			}
			want := sentTo(ip(local, m.server, protoTCP, s.build(local, m.server)), serverMAC(addrOf(m.server)))
			if diff := cmp.Diff(want, out); diff != "" {
				t.Errorf("%s, %d bytes of options and %d of payload (-want +got):\n%s", family, test.options, test.payload, diff)
			}
		}
	}
}

// Behind tags, IP options and extension headers it is the same option.
func TestTOABehindOtherHeaders(t *testing.T) {
	p := fullNATPlane(t, true)
	m := masqueradings["ipv4"]
	hop := lvs.NextHop{InterfaceIndex: testIfindex, MTU: 1500, VLAN: 7, Source: directorMAC, Destination: serverMAC(addrOf(m.server))}
	if err := p.SetNextHop(addrOf(m.server), hop); err != nil {
		t.Fatal(err)
	}
	syn := numberedSegment{flags: "S", options: usualOptions}
	options := bytes.Repeat([]byte{1}, 40)
	packet := ipv4Packet(addrOf(m.client), addrOf(m.vip), protoTCP, options, syn.build(m.client, m.vip))
	out := wantVerdict(t, p, ethernet(etherIPv4, packet, vlanTag{etherVLAN, 9}), "forward", xdpTX)
	vlan, _, packet := network(out)
	if vlan != 7 || !bytes.HasPrefix(packet[80:], toaOption(m.client)) || !bytes.HasSuffix(packet, usualOptions) ||
		internetChecksum(packet[:60]) != 0 || int(binary.BigEndian.Uint16(packet[2:])) != len(packet) {
		t.Errorf("in VLAN %d: %x", vlan, packet)
	}
	m = masqueradings["ipv6"]
	next, payload := extend([]extension{{protoDestination, 2, 24}}, protoTCP, syn.build(m.client, m.vip))
	out = wantVerdict(t, p, ethernet(etherIPv6, ipv6Packet(addrOf(m.client), addrOf(m.vip), next, payload)), "forward", xdpTX)
	if packet := out[14:]; !bytes.HasPrefix(packet[84:], toaOption(m.client)) || !bytes.HasSuffix(packet, usualOptions) {
		t.Errorf("behind an extension header: %x", packet)
	}
	next, payload = extend([]extension{{protoDestination, 14, 120}}, protoTCP, syn.build(m.client, m.vip))
	wantVerdict(t, p, ethernet(etherIPv6, ipv6Packet(addrOf(m.client), addrOf(m.vip), next, payload)), "forward-no-toa", xdpTX)
}

// A client that lost the first segments of the answer acknowledges no more than the real
// server's SYN, and selectively what came behind them: beside that there may be no room.
func TestTOABesideSelectiveAcknowledgements(t *testing.T) {
	p := fullNATPlane(t, true)
	most := map[string]int{"ipv4": 2, "ipv6": 0} // blocks, beside timestamps
	for family, m := range masqueradings {
		local, _ := ends(wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX))
		greeting := numberedSegment{flags: "SA", seq: 6, ack: 1, options: usualOptions}
		wantVerdict(t, p, fromServer(greeting.frame(m.server, local), m.server), "forward-reply", xdpTX)
		for blocks := range 4 {
			options := bytes.Clone(timestamps)
			if blocks > 0 {
				options = append(options, 1, 1, 5, byte(2+8*blocks))
				options = append(options, make([]byte, 8*blocks)...)
			}
			s, verdict := numberedSegment{flags: "A", seq: 1, ack: 7, options: options}, "forward-no-toa"
			frame := s.frame(m.client, m.vip)
			if blocks <= most[family] {
				verdict, s.options = "forward", append(toaOption(m.client), options...)
			}
			want := sentTo(ip(local, m.server, protoTCP, s.build(local, m.server)), serverMAC(addrOf(m.server)))
			if diff := cmp.Diff(want, wantVerdict(t, p, frame, verdict, xdpTX)); diff != "" {
				t.Errorf("%s, %d blocks (-want +got):\n%s", family, blocks, diff)
			}
			// What acknowledges data wants no option, and is not counted.
			s.ack, s.options = 8, options
			wantVerdict(t, p, s.frame(m.client, m.vip), "forward", xdpTX)
		}
	}
}
