package dataplane

import (
	"bytes"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// tooBig is a router's error to the director about a packet of its tunnel.
func tooBig(outer []byte, mtu uint32) []byte {
	if outer[0]>>4 == 4 {
		from := addrOf(router4)
		return ethernet(etherIPv4, ipv4Packet(from, source4, protoICMP, nil, icmp(from, source4, 3, 4, mtu, outer)))
	}
	from := addrOf(router6)
	return ethernet(etherIPv6, ipv6Packet(from, source6, protoICMPv6, icmp(from, source6, 2, 0, mtu, outer)))
}

// What a router says about the way of a tunnel holds for ten minutes; it is believed
// if it quotes a packet of a connection.
func TestTunnelPathMTU(t *testing.T) {
	offset := time.Duration(0)
	eachTunnel(t, func(t *testing.T, p *Plane, client, vip, server string, tunnel lvs.Tunnel) {
		overhead := int(toTunnel(lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: addrOf(server)}, Tunnel: tunnel}, directorAddress{}).Overhead)
		sized := func(size int) []byte {
			empty := len(tcpFrame(client, vip, "A")) - 14
			frame := tcpFrame(client, vip, "A", make([]byte, size-empty)...)
			if addrOf(vip).Is4() {
				frame = withIPv4Checksum(changed(frame, 20, 0x40))
			}
			return frame
		}
		fits := sized(1300 - overhead)
		wantVerdict(t, p, tcpFrame(client, vip, "S"), "forward", xdpTX)
		outer := wantVerdict(t, p, fits, "forward", xdpTX)[14:]
		outer = outer[:min(len(outer), 200)]

		wrong := bytes.Clone(outer)
		wrong[overhead+9], wrong[overhead+6] = protoESP, protoESP // protocol of the packet in it, of either family
		wantVerdict(t, p, tooBig(wrong, 1299), "pass-icmp", xdpPass)
		wantVerdict(t, p, tooBig(outer[:overhead+8], 1299), "pass-icmp", xdpPass)
		wantVerdict(t, p, tooBig(outer, 0), "pass-icmp", xdpPass)
		wantVerdict(t, p, fits, "forward", xdpTX)

		wantVerdict(t, p, tooBig(outer, 1299), "pass-icmp", xdpPass)
		for range 2 {
			answer := wantVerdict(t, p, fits, "answer-too-big", xdpTX)
			if got := readAnswer(t, answer, client); got.mtu != 1299-overhead {
				t.Errorf("the client is told an MTU of %d, want %d", got.mtu, 1299-overhead)
			}
			wantVerdict(t, p, sized(1299-overhead), "forward", xdpTX)
			mustSweep(t, p)
		}
		offset += pathLifetime + time.Second
		p.SetClockOffset(offset)
		mustSweep(t, p)
		wantVerdict(t, p, tcpFrame(client, vip, "S"), "forward", xdpTX)
		wantVerdict(t, p, fits, "forward", xdpTX)

		// No way is narrower than all ways have to be.
		least := 552
		if addrOf(server).Is6() {
			least = 1280
		}
		wantVerdict(t, p, tooBig(outer, 68), "pass-icmp", xdpPass)
		wantVerdict(t, p, sized(least-overhead), "forward", xdpTX)
		wantVerdict(t, p, sized(least-overhead+1), "answer-too-big", xdpTX)
	})
}
