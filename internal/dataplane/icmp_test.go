package dataplane

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The flows of services without a real server.
const idle4, idle6 = "192.0.2.10:81", "[2001:db8:2::10]:81"

// answeringPlane is a servedPlane with two more services, which have no server.
func answeringPlane(t testing.TB) *Plane {
	t.Helper()
	p := servedPlane(t)
	for _, svc := range []lvs.Service{
		tcpService(idle4, lvs.RoundRobin), udpService(idle4, lvs.RoundRobin),
		tcpService(idle6, lvs.RoundRobin), udpService(idle6, lvs.RoundRobin),
	} {
		mustAddService(t, p, svc)
	}
	return p
}

// An icmpAnswer is what an answer tells, of either family.
type icmpAnswer struct {
	kind, code byte
	mtu        int
	source     string // its IP address
	quoted     []byte
}

// readAnswer takes an answer apart and checks what all of them must have: MAC
// and IP addresses, lengths, checksums.
func readAnswer(t *testing.T, frame []byte, client string) icmpAnswer {
	t.Helper()
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth, ok := packet.LinkLayer().(*layers.Ethernet)
	if !ok || !bytes.Equal(eth.DstMAC, clientMAC[:]) || !bytes.Equal(eth.SrcMAC, directorMAC[:]) {
		t.Fatalf("Ethernet header %x", frame[:14])
	}
	if got := packet.NetworkLayer().NetworkFlow().Dst().String(); got != addrOf(client).String() {
		t.Errorf("answered to %s, want %s", got, client)
	}
	a := icmpAnswer{source: packet.NetworkLayer().NetworkFlow().Src().String()}
	var icmp []byte
	switch ip := packet.NetworkLayer().(type) {
	case *layers.IPv4:
		icmp = ip.Payload
		if int(ip.Length) != len(frame)-14 || ip.TTL != 64 || ip.Protocol != layers.IPProtocolICMPv4 || ip.TOS != 0xc0 {
			t.Errorf("IP header %+v of a frame of %d", ip, len(frame))
		}
		if internetChecksum(ip.Contents) != 0 || internetChecksum(icmp) != 0 {
			t.Errorf("checksums are wrong in %x", frame)
		}
	case *layers.IPv6:
		icmp = ip.Payload
		if int(ip.Length) != len(frame)-54 || ip.HopLimit != 64 || ip.NextHeader != layers.IPProtocolICMPv6 {
			t.Errorf("IP header %+v of a frame of %d", ip, len(frame))
		}
		pseudo := append(bytes.Clone(ip.Contents[8:40]), 0, 0, 0, 0, 0, 0, 0, protoICMPv6)
		binary.BigEndian.PutUint32(pseudo[32:], uint32(len(icmp)))
		if internetChecksum(append(pseudo, icmp...)) != 0 {
			t.Errorf("checksum is wrong in %x", frame)
		}
	}
	a.kind, a.code, a.mtu, a.quoted = icmp[0], icmp[1], int(binary.BigEndian.Uint32(icmp[4:])), icmp[8:]
	return a
}

// Kind, code and source of each answer, and all that it quotes.
func TestAnswers(t *testing.T) {
	p := answeringPlane(t)
	setHop(t, p, server4, lvs.NextHop{MTU: 1000})
	setHop(t, p, server6, lvs.NextHop{MTU: 1280})
	big := make([]byte, 1300)
	for i := range big {
		big[i] = byte(i)
	}
	short4, short6 := tcpFrame(client4, vip4, "S"), tcpFrame(client6, vip6, "S")
	for _, test := range []struct {
		name       string
		frame      []byte
		verdict    string
		kind, code byte
		mtu        int
		aged       bool // the quoted packet has lost a hop already
	}{
		{"ipv4 no server", tcpFrame(client4, idle4, "S"), "answer-no-server", 3, 3, 0, false},
		{"ipv4 no server, udp", udpFrame(client4, idle4, 1, 2, 3), "answer-no-server", 3, 3, 0, false},
		{"ipv4 no server, long", udpFrame(client4, idle4, big...), "answer-no-server", 3, 3, 0, false},
		{"ipv4 ttl", changed(short4, 22, 1), "answer-ttl", 11, 0, 0, false},
		{"ipv4 too big", changed(udpFrame(client4, vip4, big...), 20, 0x40), "answer-too-big", 3, 4, 1000, true},
		{"ipv6 no server", tcpFrame(client6, idle6, "S"), "answer-no-server", 1, 4, 0, false},
		{"ipv6 no server, udp", udpFrame(client6, idle6, 1), "answer-no-server", 1, 4, 0, false},
		{"ipv6 no server, long", udpFrame(client6, idle6, big...), "answer-no-server", 1, 4, 0, false},
		{"ipv6 ttl", changed(short6, 21, 1), "answer-ttl", 3, 0, 0, false},
		{"ipv6 too big", udpFrame(client6, vip6, big...), "answer-too-big", 2, 0, 1280, true},
		{"padding is not quoted", append(tcpFrame(client4, idle4, "S"), 1, 2, 3), "answer-no-server", 3, 3, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, vip, most := client4, vip4, 576-28
			if test.frame[14]>>4 == 6 {
				client, vip, most = client6, vip6, 1280-48
			}
			setIPv4ChecksumOf(test.frame)
			got := readAnswer(t, wantVerdict(t, p, test.frame, test.verdict, xdpTX), client)
			if got.kind != test.kind || got.code != test.code || got.mtu != test.mtu || got.source != addrOf(vip).String() {
				t.Errorf("answer %+v, want type %d code %d mtu %d from %s", got, test.kind, test.code, test.mtu, vip)
			}
			want := bytes.TrimSuffix(test.frame[14:], []byte{1, 2, 3})
			if test.name != "padding is not quoted" {
				want = test.frame[14:]
			}
			if want = bytes.Clone(want[:min(most, len(want))]); test.aged {
				age(want)
			}
			if !bytes.Equal(got.quoted, want) {
				t.Errorf("quoted\n%x, want\n%x", got.quoted, want)
			}
		})
	}
}

// setIPv4ChecksumOf mends a frame whose IPv4 header a test changed.
func setIPv4ChecksumOf(frame []byte) {
	if frame[14]>>4 == 4 {
		setIPv4Checksum(frame[14:])
	}
}

// Every length, odd ones too: the checksum is over all of them.
func TestAnswersOfEveryLength(t *testing.T) {
	p := answeringPlane(t)
	for _, flow := range []struct {
		client, vip string
		most        int
	}{{client4, idle4, 576}, {client6, idle6, 1280}} {
		for length := range 1400 {
			payload := bytes.Repeat([]byte{0xff, 0x5a, 0x81}, length/3+1)[:length]
			frame := udpFrame(flow.client, flow.vip, payload...)
			action, out := mustRun(t, p, frame)
			if action != xdpTX {
				t.Fatalf("payload of %d: XDP action %d", length, action)
			}
			if got := readAnswer(t, out, flow.client); !bytes.HasPrefix(frame[14:], got.quoted) {
				t.Errorf("payload of %d: quoted %x", length, got.quoted)
			}
			headers := 28
			if flow.most == 1280 {
				headers = 48
			}
			if want := min(headers+len(frame)-14, flow.most); len(out)-14 != want {
				t.Errorf("payload of %d: answer of %d bytes, want %d", length, len(out)-14, want)
			}
		}
	}
}

// About hops and sizes of IPv6, the director answers as itself if it has an
// address; about a port, as the VIP.
func TestAnswersFromTheDirector(t *testing.T) {
	p := answeringPlane(t)
	own := "2001:db8:9::1"
	testInterface(p).Address6 = toAddress(addrOf("[" + own + "]:0"))
	setHop(t, p, server6, lvs.NextHop{MTU: 1280})
	for _, test := range []struct {
		frame   []byte
		verdict string
		source  string
	}{
		{changed(tcpFrame(client6, vip6, "S"), 21, 1), "answer-ttl", own},
		{udpFrame(client6, vip6, make([]byte, 1300)...), "answer-too-big", own},
		{tcpFrame(client6, idle6, "S"), "answer-no-server", addrOf(idle6).String()},
	} {
		if got := readAnswer(t, wantVerdict(t, p, test.frame, test.verdict, xdpTX), client6); got.source != test.source {
			t.Errorf("%s came from %s, want %s", test.verdict, got.source, test.source)
		}
	}
}

func TestAnswersByRedirect(t *testing.T) {
	p := answeringPlane(t)
	testInterface(p).TxIfindex = 0
	wantVerdict(t, p, tcpFrame(client4, idle4, "S"), "answer-no-server", xdpRedirect)
}

func TestNoAnswer(t *testing.T) {
	p := answeringPlane(t)
	for _, client := range []string{
		"0.0.0.0:1", "0.1.2.3:1", "127.0.0.1:1", "127.255.255.255:1", "224.0.0.1:1", "239.1.2.3:1", "240.0.0.1:1", "255.255.255.255:1",
		"[::]:1", "[::1]:1", "[ff02::1]:1", "[ff0e::5]:1",
	} {
		vip := idle4
		if addrOf(client).Is6() {
			vip = idle6
		}
		wantVerdict(t, p, tcpFrame(client, vip, "S"), "drop-rate-limit", xdpDrop)
	}
	for _, client := range []string{"1.0.0.1:1", "126.0.0.1:1", "128.0.0.1:1", "223.255.255.255:1", "[::2]:1", "[fe80::1]:1", "[2001:db8::1]:1"} {
		vip := idle4
		if addrOf(client).Is6() {
			vip = idle6
		}
		wantVerdict(t, p, tcpFrame(client, vip, "S"), "answer-no-server", xdpTX)
	}
}

// A burst at once, and then one an interval: the debt is paid by the clock.
func TestAnswersAreRateLimited(t *testing.T) {
	p := answeringPlane(t)
	set := p.settings()
	set.IcmpInterval, set.IcmpBurst = uint32(4*time.Second), 5
	frame := tcpFrame(client4, idle4, "S")
	for i := range 5 {
		wantVerdict(t, p, frame, "answer-no-server", xdpTX)
		if i == 0 && set.IcmpDebt == 0 {
			t.Fatal("an answer made no debt")
		}
	}
	wantVerdict(t, p, frame, "drop-rate-limit", xdpDrop)
	// Three intervals later.
	set.IcmpDebt -= uint64(12 * time.Second)
	for range 3 {
		wantVerdict(t, p, frame, "answer-no-server", xdpTX)
	}
	wantVerdict(t, p, frame, "drop-rate-limit", xdpDrop)
	// Long silence earns no more than the burst.
	set.IcmpDebt -= uint64(time.Hour)
	for range 5 {
		wantVerdict(t, p, frame, "answer-no-server", xdpTX)
	}
	wantVerdict(t, p, frame, "drop-rate-limit", xdpDrop)
	// A debt from before the machine's clock began anew is forgotten.
	set.IcmpDebt += uint64(24 * time.Hour)
	wantVerdict(t, p, frame, "answer-no-server", xdpTX)
	// Forwarding has nothing to do with it.
	set.IcmpBurst = 0
	wantVerdict(t, p, frame, "drop-rate-limit", xdpDrop)
	wantVerdict(t, p, tcpFrame(client4, vip4, "S"), "forward", xdpTX)
	set.IcmpInterval = 0
	wantVerdict(t, p, frame, "answer-no-server", xdpTX)
}
