package journey

import (
	"net/netip"
	"testing"
)

func TestFlags(t *testing.T) {
	for flags, want := range map[TCPFlags]string{
		SYN: "SYN", SYN | ACK: "SYN+ACK", FIN | ACK: "FIN+ACK", PSH | ACK: "PSH+ACK", RST | ACK: "RST+ACK", 0: "none", 0xc0 | SYN: "SYN",
	} {
		if got := flags.String(); got != want {
			t.Errorf("%#x: got %s, want %s", uint8(flags), got, want)
		}
	}
}

func TestClaims(t *testing.T) {
	vip, other := netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.1")
	for _, test := range []struct {
		packet Packet
		want   bool
	}{
		{Packet{Kind: ARPReply, Source: vip, Target: vip}, true},
		{Packet{Kind: ARPRequest, Source: vip, Target: other}, true}, // arp_announce=0
		{Packet{Kind: ARPRequest, Source: other, Target: vip}, false},
		{Packet{Kind: NeighborAdvertisement, Source: other, Target: vip}, true},
		{Packet{Kind: NeighborAdvertisement, Source: vip, Target: other}, false},
		{Packet{Kind: TCP, Source: vip}, false},
	} {
		if got := test.packet.Claims(vip); got != test.want {
			t.Errorf("%+v: got %v", test.packet, got)
		}
	}
}

// Content tells a packet whose TTL was lowered from one that was changed.
func TestContent(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		n := newNetwork(t, ipv6)
		n.request("rs1", 40000, SYN, 1, "payload")
		before, after := Decode(n.frames[0].Data), Decode(n.frames[2].Data)
		if before.TTL != 64 || after.TTL != 63 {
			t.Errorf("TTL %d and %d, want 64 and 63", before.TTL, after.TTL)
		}
		if before.Content() != after.Content() || before.Content() == "" {
			t.Error("forwarding changed the content")
		}
		for i := 14; i < len(n.frames[2].Data); i++ {
			if ttlOrChecksum := !ipv6 && (i == 22 || i == 24 || i == 25) || ipv6 && i == 21; ttlOrChecksum {
				continue
			}
			changed := append([]byte(nil), n.frames[2].Data...)
			changed[i] ^= 1
			if Decode(changed).Content() == before.Content() {
				t.Errorf("byte %d changed, and the content is the same", i)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	n := newNetwork(&testing.T{}, false)
	n.connection("rs1", 40000, 1)
	for _, frame := range n.frames {
		f.Add(frame.Data)
	}
	n6 := newNetwork(&testing.T{}, true)
	n6.connection("rs1", 40000, 1)
	for _, frame := range n6.frames {
		f.Add(frame.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := Decode(data)
		p.Content()
		what(p)
		detail(p)
	})
}
