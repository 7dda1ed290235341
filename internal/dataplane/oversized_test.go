package dataplane

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// oversizedBy follows what a plane gives to be fragmented, until the test ends.
func oversizedBy(t *testing.T, p *Plane) <-chan OversizedPacket {
	t.Helper()
	return followed(t, p.FollowOversized)
}

// patterned is a payload whose parts differ.
func patterned(bytes int) []byte {
	payload := make([]byte, bytes)
	for i := range payload {
		payload[i] = byte(i*i>>3 + i)
	}
	return payload
}

// wantAsFragments wants an oversized frame to leave as it would have if its sender had
// fragmented it; most is how large a packet may be.
func wantAsFragments(t *testing.T, p *Plane, packets <-chan OversizedPacket, frame []byte, most int, verdict string) {
	t.Helper()
	wantVerdict(t, p, frame, "forward-in-fragments", xdpDrop)
	o := <-packets
	if o.Interface != testIfindex {
		t.Errorf("leaves by interface %d, want %d", o.Interface, testIfindex)
	}
	got, err := o.Fragments()
	if err != nil {
		t.Fatal(err)
	}
	id := uint32(binary.BigEndian.Uint16(frame[14+4:]))
	cut := fragments(frame, id, (most-20)&^7)
	if len(got) != len(cut) {
		t.Fatalf("%d fragments, want %d", len(got), len(cut))
	}
	for i, fragment := range cut {
		want := wantVerdict(t, p, fragment, verdict, xdpTX)
		if diff := cmp.Diff(withoutOuterID(t, want), withoutOuterID(t, got[i])); diff != "" {
			t.Errorf("fragment %d (-want +got):\n%s", i, diff)
		}
	}
}

// withoutOuterID checks the checksum of an IPv4 header and, where the packet is no
// fragment and so the outer one of a tunnel, takes the identification away, which is
// drawn.
func withoutOuterID(t *testing.T, frame []byte) []byte {
	t.Helper()
	frame = bytes.Clone(frame)
	packet := frame[14:]
	if packet[0]>>4 != 4 {
		return frame
	}
	if internetChecksum(packet[:20]) != 0 {
		t.Errorf("the checksum of the header is wrong: %x", packet[:20])
	}
	if binary.BigEndian.Uint16(packet[6:])&(moreFragments|fragmentOffset) == 0 {
		clear(packet[4:6])
		clear(packet[10:12])
	}
	return frame
}

// What is larger than its way carries and may be fragmented leaves in fragments, and is
// counted as one packet.
func TestOversizedPackets(t *testing.T) {
	p := servedPlane(t)
	packets := oversizedBy(t, p)
	setHop(t, p, server4, lvs.NextHop{MTU: 1400})
	frame := withIPv4Checksum(changed(udpFrame(client4, vip4, patterned(3000)...), 18, 0x77))
	key := udpService(vip4, lvs.RoundRobin).ServiceKey
	was := countersOf(t, p, key)
	wantVerdict(t, p, frame, "forward-in-fragments", xdpDrop)
	o := <-packets
	got, err := o.Fragments()
	if err != nil {
		t.Fatal(err)
	}
	want := was.Add(lvs.Counters{Connections: 1, InPackets: 1, InBytes: uint64(len(frame) - 14)})
	if counted := countersOf(t, p, key); counted != want {
		t.Errorf("counted %+v, want %+v", counted, want)
	}
	wantFragments := fragments(aged(frame, serverMAC(addrOf(server4))), 0x7700, 1376)
	if diff := cmp.Diff(wantFragments, got); diff != "" {
		t.Errorf("fragments (-want +got):\n%s", diff)
	}
	// The fragment of a sender may be too large as well.
	early := fragments(udpFrame(client4, vip4, patterned(5000)...), 9, 1456)
	for i, fragment := range early[:3] {
		wantVerdict(t, p, fragment, "forward-in-fragments", xdpDrop)
		pieces, err := (<-packets).Fragments()
		if err != nil {
			t.Fatal(err)
		}
		offsets := []uint16{uint16(182*i) | moreFragments, uint16(182*i+172) | moreFragments}
		for j, piece := range pieces {
			if where := binary.BigEndian.Uint16(piece[14+6:]); j > 1 || where != offsets[j] {
				t.Errorf("piece %d of fragment %d is at %#x", j, i, where)
			}
		}
	}
	// Nobody fragments what does not fit in a record.
	wantVerdict(t, p, withIPv4Checksum(udpFrame(client4, vip4, patterned(int(directorLimitMAX_OVERSIZED_FRAME))...)), "drop-too-big", xdpDrop)
}

func TestOversizedPacketsOfMasqueradings(t *testing.T) {
	p := masqueradedPlane(t)
	packets := oversizedBy(t, p)
	m := masqueradings["ipv4"]
	setHop(t, p, m.server, lvs.NextHop{MTU: 1400})
	for _, upper := range upperLayers()[:2] {
		wantVerdict(t, p, sealed(ip(m.client, m.vip, upper.protocol, upper.first(m.client, m.vip))), "forward", xdpTX)
		large := func(from, to string) []byte {
			if upper.protocol == protoTCP {
				return tcp(from, to, "A", patterned(1450)...)
			}
			return udp(from, to, patterned(1450)...)
		}
		wantAsFragments(t, p, packets, sealed(ip(m.client, m.vip, upper.protocol, large(m.client, m.vip))), 1400, "forward")
	}
	checkTable(t, p)
	// The checksum of SCTP is changed before the packet is cut.
	wantVerdict(t, p, sctpFrame(m.client, m.vip, chunkInit), "forward", xdpTX)
	large := func(from, to string) []byte { return append(sctp(from, to, chunkData), patterned(1448)...) }
	wantVerdict(t, p, sealed(ip(m.client, m.vip, protoSCTP, large(m.client, m.vip))), "forward-in-fragments", xdpDrop)
	got, err := (<-packets).Fragments()
	if err != nil {
		t.Fatal(err)
	}
	want := fragments(sentTo(ip(m.client, m.server, protoSCTP, large(m.client, m.server)), serverMAC(addrOf(m.server))), 0, 1376)
	for i := range want {
		if diff := cmp.Diff(want[i][14+20:], got[i][14+20:]); diff != "" {
			t.Errorf("fragment %d of SCTP (-want +got):\n%s", i, diff)
		}
	}
}

// In a tunnel, each fragment has outer headers of its own, as if it had come alone.
func TestOversizedPacketsInTunnels(t *testing.T) {
	eachTunnel(t, func(t *testing.T, p *Plane, client, vip, server string, tunnel lvs.Tunnel) {
		if addrOf(vip).Is6() {
			return
		}
		packets := oversizedBy(t, p)
		if err := p.SetNextHop(addrOf(server), tunnelHop(addrOf(server), 1400)); err != nil {
			t.Fatal(err)
		}
		overhead := int(toTunnel(lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: addrOf(server)}, Tunnel: tunnel}, directorAddress{}).Overhead)
		for _, size := range []int{1400, 1401, 2999} {
			frame := withIPv4Checksum(changed(udpFrame(client, vip, patterned(size)...), 18, byte(size)))
			wantAsFragments(t, p, packets, frame, 1400-overhead, "forward")
		}
	})
}

// An oversized packet of IPv4 with options: only some of them belong in every fragment
// (RFC 791, 3.1).
func TestFragmentsHaveTheirOptions(t *testing.T) {
	options := []byte{
		1,             // no operation
		0x44, 4, 5, 0, // timestamp: not copied
		0x83, 7, 4, 1, 2, 3, 4, // loose source route: copied
		0x88, 4, 0, 9, // stream: copied
		0, 0, 0, 0,
	}
	packet := ipv4Packet(addrOf(client4), addrOf(vip4), protoUDP, options, patterned(100))
	pieces, err := cutIPv4(packet, 40+32)
	if err != nil {
		t.Fatal(err)
	}
	var joined []byte
	for i, piece := range pieces {
		header := int(piece[0]&0xf) * 4
		want := options
		if i > 0 {
			want = []byte{0x83, 7, 4, 1, 2, 3, 4, 0x88, 4, 0, 9, 0}
		}
		if !bytes.Equal(piece[20:header], want) {
			t.Errorf("fragment %d has the options %x, want %x", i, piece[20:header], want)
		}
		if internetChecksum(piece[:header]) != 0 || int(binary.BigEndian.Uint16(piece[2:])) != len(piece) || len(piece) > 40+32 {
			t.Errorf("fragment %d: %x", i, piece)
		}
		where := binary.BigEndian.Uint16(piece[6:])
		if int(where&fragmentOffset)*8 != len(joined) || (where&moreFragments != 0) != (i < len(pieces)-1) {
			t.Errorf("fragment %d is at %#x, after %d bytes", i, where, len(joined))
		}
		joined = append(joined, piece[header:]...)
	}
	if !bytes.Equal(joined, packet[len(packet)-100:]) {
		t.Errorf("the fragments have the payload %x", joined)
	}
}

// What contradicts itself, or has no room, is refused.
func TestPacketsThatCannotBeFragmented(t *testing.T) {
	good := ipv4Packet(addrOf(client4), addrOf(vip4), protoUDP, nil, patterned(100))
	for name, bad := range map[string]struct {
		packet []byte
		most   int
	}{
		"cut short":         {good[:10], 68},
		"shorter than told": {good[:60], 68},
		"version":           {slices.Concat([]byte{0x65}, good[1:]), 68},
		"don't fragment":    {slices.Concat(good[:6], []byte{0x40}, good[7:]), 68},
		"no room":           {good, 27},
	} {
		if pieces, err := cutIPv4(bad.packet, bad.most); err == nil {
			t.Errorf("%s: %d fragments, want an error", name, len(pieces))
		}
	}
}

// A tag that lies beside the frame is put into each fragment's.
func TestFragmentsGetTheirTag(t *testing.T) {
	o := OversizedPacket{frame: udpFrame(client4, vip4, patterned(100)...), packet: 14, most: 68, tag: 7}
	frames, err := o.Fragments()
	if err != nil {
		t.Fatal(err)
	}
	for i, frame := range frames {
		if !bytes.Equal(frame[:18], ethernet(etherIPv4, nil, vlanTag{etherVLAN, 7})) {
			t.Errorf("fragment %d begins with %x", i, frame[:18])
		}
	}
	if len(frames) != 3 {
		t.Errorf("%d fragments of 108 bytes, 48 at a time, want 3", len(frames))
	}
}
