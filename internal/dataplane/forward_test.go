package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// aged is what must come out: the frame with other MAC addresses, one hop less
// to live, and of IPv4 a checksum computed anew.
func aged(in []byte, destination lvs.MAC) []byte {
	out := bytes.Clone(in)
	copy(out, destination[:])
	copy(out[6:], directorMAC[:])
	age(out[14:])
	return out
}

// age takes one hop off a packet's life.
func age(packet []byte) {
	if packet[0]>>4 == 6 {
		packet[7]--
		return
	}
	packet[8]--
	setIPv4Checksum(packet)
}

func TestForwardChangesNothingElse(t *testing.T) {
	p := servedPlane(t)
	payload := make([]byte, 777)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	options := ipv4Packet(addrOf(client4), addrOf(vip4), protoTCP, []byte{7, 7, 4, 0, 0, 0, 0, 0}, tcp(client4, vip4, "S", payload...))
	for _, test := range []struct {
		name   string
		frame  []byte
		server string
	}{
		{"ipv4 tcp", tcpFrame(client4, vip4, "S", payload...), server4},
		{"ipv4 udp", udpFrame(client4, vip4, payload...), server4},
		{"ipv4 options", ethernet(etherIPv4, options), server4},
		{"ipv4 padding", append(tcpFrame(client4, vip4, "S"), 1, 2, 3, 4, 5, 6), server4},
		{"ipv4 odd", udpFrame(client4, vip4, 1), server4},
		{"ipv6 tcp", tcpFrame(client6, vip6, "S", payload...), server6},
		{"ipv6 udp", udpFrame(client6, vip6, payload...), server6},
		{"ipv6 extension headers", frame6(protoTCP, tcp(client6, vip6, "S"), extension{protoHopByHop, 0, 8}), server6},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := wantVerdict(t, p, test.frame, "forward", xdpTX)
			if diff := cmp.Diff(aged(test.frame, serverMAC(addrOf(test.server))), out); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

// Datagrams of few bytes, in frames that are shorter than a wire's, go as all others do, also once
// their connection is there: the short way (bpf/steady.h) begins at 54 bytes.
func TestForwardShortDatagrams(t *testing.T) {
	p := servedPlane(t)
	for _, test := range []struct{ client, vip, server string }{{client4, vip4, server4}, {client6, vip6, server6}} {
		for length := range 24 {
			frame := udpFrame(test.client, test.vip, make([]byte, length)...)
			for range 2 {
				out := wantVerdict(t, p, frame, "forward", xdpTX)
				if diff := cmp.Diff(aged(frame, serverMAC(addrOf(test.server))), out); diff != "" {
					t.Errorf("%s, %d bytes (-want +got):\n%s", test.vip, length, diff)
				}
			}
		}
	}
}

// Every checksum that a header can have, which includes the corner cases of
// RFC 1624: each identification gives another one.
func TestForwardKeepsChecksums(t *testing.T) {
	p := servedPlane(t)
	frame := tcpFrame(client4, vip4, "S")
	packet := frame[14:]
	for id := range 1 << 16 {
		binary.BigEndian.PutUint16(packet[4:], uint16(id))
		setIPv4Checksum(packet)
		action, out := mustRun(t, p, frame)
		if action != xdpTX {
			t.Fatalf("XDP action %d", action)
		}
		if want := aged(frame, serverMAC(addrOf(server4))); !bytes.Equal(out, want) {
			t.Fatalf("checksum %x became %x, want %x", packet[10:12], out[24:26], want[24:26])
		}
	}
}

func TestTTL(t *testing.T) {
	p := servedPlane(t)
	for _, family := range []struct {
		name        string
		client, vip string
		ttl         int // its offset in the frame
	}{{"ipv4", client4, vip4, 22}, {"ipv6", client6, vip6, 21}} {
		for _, test := range []struct {
			ttl     byte
			verdict string
		}{{0, "answer-ttl"}, {1, "answer-ttl"}, {2, "forward"}, {255, "forward"}} {
			t.Run(fmt.Sprintf("%s/%d", family.name, test.ttl), func(t *testing.T) {
				frame := changed(tcpFrame(family.client, family.vip, "S"), family.ttl, test.ttl)
				out := wantVerdict(t, p, frame, test.verdict, xdpTX)
				if test.verdict == "forward" && out[family.ttl] != test.ttl-1 {
					t.Errorf("TTL %d became %d", test.ttl, out[family.ttl])
				}
			})
		}
	}
}

func TestMTU(t *testing.T) {
	p := servedPlane(t)
	setHop(t, p, server4, lvs.NextHop{MTU: 1400})
	setHop(t, p, server6, lvs.NextHop{MTU: 1400})
	for _, test := range []struct {
		name        string
		client, vip string
		size        int // of the IP packet
		fragment    byte
		verdict     string
		action      uint32
	}{
		{"ipv4 fits", client4, vip4, 1400, 0x40, "forward", xdpTX},
		{"ipv4 too big", client4, vip4, 1401, 0x40, "answer-too-big", xdpTX},
		{"ipv4 may be fragmented", client4, vip4, 1401, 0, "forward-in-fragments", xdpDrop},
		{"ipv6 fits", client6, vip6, 1400, 0, "forward", xdpTX},
		{"ipv6 too big", client6, vip6, 1401, 0, "answer-too-big", xdpTX},
	} {
		t.Run(test.name, func(t *testing.T) {
			frame := udpFrame(test.client, test.vip)
			frame = udpFrame(test.client, test.vip, make([]byte, test.size-(len(frame)-14))...)
			if test.fragment != 0 {
				frame = changed(frame, 20, test.fragment)
			}
			// Padding counts for nothing.
			frame = append(frame, make([]byte, 40)...)
			wantVerdict(t, p, frame, test.verdict, test.action)
		})
	}
}

// setHop changes the next hop of a real server: what the test leaves out is as
// with every other.
func setHop(t testing.TB, p *Plane, server string, hop lvs.NextHop) {
	t.Helper()
	addr := addrOf(server)
	if hop.InterfaceIndex == 0 && hop.Problem == "" {
		hop.InterfaceIndex = testIfindex
	}
	if hop.MTU == 0 {
		hop.MTU = 1500
	}
	hop.Source, hop.Destination = directorMAC, serverMAC(addr)
	if err := p.SetNextHop(addr, hop); err != nil {
		t.Fatal(err)
	}
}

func TestNextHops(t *testing.T) {
	p := servedPlane(t)
	for _, test := range []struct {
		name    string
		hop     lvs.NextHop
		tx      uint32
		verdict string
		action  uint32
	}{
		{"back where it came from", lvs.NextHop{}, testIfindex, "forward", xdpTX},
		{"back by redirect", lvs.NextHop{}, 0, "forward", xdpRedirect},
		{"another interface", lvs.NextHop{InterfaceIndex: 9}, testIfindex, "forward", xdpRedirect},
		{"none", lvs.NextHop{Problem: "no route"}, testIfindex, "drop-no-next-hop", xdpDrop},
	} {
		t.Run(test.name, func(t *testing.T) {
			testInterface(p).TxIfindex = test.tx
			setHop(t, p, server4, test.hop)
			wantVerdict(t, p, tcpFrame(client4, vip4, "S"), test.verdict, test.action)
			status := mustServices(t, p)
			if got := status[0].Servers[0].NextHop; got.Problem != test.hop.Problem || got.Usable() != (test.hop.Problem == "") {
				t.Errorf("next hop %+v, want problem %q", got, test.hop.Problem)
			}
		})
	}
}

// A next hop that changes again and again never tears: each packet meets one of
// those that were set.
func TestNextHopChangesAreWhole(t *testing.T) {
	p := servedPlane(t)
	frame := tcpFrame(client4, vip4, "S")
	done := make(chan error)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			hop := lvs.NextHop{InterfaceIndex: testIfindex, MTU: 1500}
			for b := range hop.Source {
				hop.Source[b], hop.Destination[b] = byte(i), byte(i)
			}
			err = p.SetNextHop(addrOf(server4), hop)
		}
		done <- err
	}()
	mustRun(t, p, frame)
	for seen := 0; ; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if seen == 0 {
				t.Error("no packet met a change")
			}
			return
		default:
		}
		_, out := mustRun(t, p, frame)
		macs := out[:12]
		if bytes.Equal(macs[6:], directorMAC[:]) {
			continue
		}
		seen++
		if want := bytes.Repeat(macs[:1], 12); !bytes.Equal(macs, want) {
			t.Fatalf("MAC addresses of two next hops: %x", macs)
		}
	}
}
