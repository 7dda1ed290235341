package dataplane

import (
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// withTCPChecksum sets the checksum of a frame with TCP at l4 right.
func withTCPChecksum(frame []byte, l4 int) []byte {
	binary.BigEndian.PutUint16(frame[l4+16:], 0)
	binary.BigEndian.PutUint16(frame[l4+16:], tcpSum(frame, l4))
	return frame
}

// tcpSum is the checksum of a segment that begins at l4; 0 if the one that is there is right.
func tcpSum(frame []byte, l4 int) uint16 {
	addresses := frame[26:34]
	if frame[14]>>4 == 6 {
		addresses = frame[22:54]
	}
	pseudo := append([]byte{}, addresses...)
	pseudo = append(pseudo, 0, protoTCP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(frame)-l4))
	return internetChecksum(append(pseudo, frame[l4:]...))
}

// synWith is a SYN with options, whose length is a multiple of four.
func synWith(client, vip string, options ...byte) []byte {
	segment := append(tcp(client, vip, "S"), options...)
	segment[12] = byte(len(segment) / 4 << 4)
	frame := ip(client, vip, protoTCP, segment)
	return withTCPChecksum(frame, len(frame)-len(segment))
}

func TestMSSClamp(t *testing.T) {
	p := tunnelledPlane(t, vip4, server4, lvs.Tunnel{Type: lvs.IPIP})
	svc := tcpService(vip6, lvs.RoundRobin)
	mustAddService(t, p, svc)
	mustAddTunnel(t, p, svc, server6, lvs.Tunnel{Type: lvs.IPIP})
	mss := func(n int) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	join := func(parts ...[]byte) (all []byte) {
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	nop := []byte{1}
	for _, flow := range []struct {
		client, vip  string
		inner, outer int // where the segment begins in the frame, before and after
		most         int
	}{
		{client4, vip4, 34, 54, 1500 - 20 - 40},
		{client6, vip6, 54, 94, 1500 - 40 - 60},
	} {
		for _, test := range []struct {
			name    string
			options []byte
			at      int // of the MSS in the options
			want    int // 0: as it was
		}{
			{"large", mss(1460), 2, flow.most},
			{"one too large", mss(flow.most + 1), 2, flow.most},
			{"fits", mss(flow.most), 2, 0},
			{"behind others", join([]byte{3, 3, 7}, nop, mss(1460)), 6, flow.most},
			{"at an odd place", join(nop, mss(1460), nop, nop, nop), 3, flow.most},
			{"at an odd place, behind a timestamp", join(nop, []byte{8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, mss(65535), nop), 13, flow.most},
			{"last of forty", join(make35(), nop, mss(9000)), 38, flow.most},
			{"behind the end", join([]byte{0, 0, 0, 0}, mss(1460)), 6, 0},
			{"wrong length", []byte{2, 3, 5, 180}, 2, 0},
			{"endless", []byte{8, 0, 2, 4, 5, 180, 0, 0}, 4, 0},
			{"none", nil, 0, 0},
		} {
			t.Run(test.name, func(t *testing.T) {
				for _, clamped := range []bool{false, true} {
					change := lvs.SysctlChange{Name: "mss_clamp", Reset: !clamped, Value: 1}
					if err := p.SetSysctls(lvs.ServiceKey{}, []lvs.SysctlChange{change}); err != nil {
						t.Fatal(err)
					}
					frame := synWith(flow.client, flow.vip, test.options...)
					out := wantVerdict(t, p, frame, "forward", xdpTX)
					inner := append(frame[:14:14], out[14+flow.outer-flow.inner:]...)
					if sum := tcpSum(inner, flow.inner); sum != 0 {
						t.Errorf("clamped %v: the checksum is wrong in %x", clamped, inner)
					}
					if test.options == nil {
						continue
					}
					at := flow.inner + 20 + test.at
					want := int(binary.BigEndian.Uint16(frame[at:]))
					if clamped && test.want != 0 {
						want = test.want
					}
					if got := int(binary.BigEndian.Uint16(inner[at:])); got != want {
						t.Errorf("clamped %v: MSS %d, want %d", clamped, got, want)
					}
					if packet := gopacket.NewPacket(inner, layers.LayerTypeEthernet, gopacket.Default); test.want != 0 && packet.ErrorLayer() != nil {
						t.Errorf("what is sent can't be read: %v", packet.ErrorLayer().Error())
					}
				}
			})
		}
	}
}

// make35 is an option of 35 bytes that nobody knows.
func make35() []byte {
	option := make([]byte, 35)
	option[0], option[1] = 253, 35
	return option
}
