package e2e

import (
	"bytes"
	bigendian "encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// fragmented is how many datagrams TestFragments sends of each family, of as many
// sizes from 1 to largestFragmented bytes.
var fragmented = flag.Int("fragmented", 24, "datagrams that are sent in shuffled fragments")

const (
	largestFragmented = 60_000
	// largestPiece fits every tunnel, with its IPv6 headers.
	largestPiece = 1352
)

// A rawSender sends UDP datagrams from the lab's client in fragments of its own
// making. Answers come to the client's kernel.
type rawSender struct {
	t      *testing.T
	socket int
	from   netip.AddrPort
	to     netip.AddrPort
	id     uint32
	random *rand.Rand
}

func newRawSender(t *testing.T, l *lab.Lab, from, to netip.AddrPort) *rawSender {
	t.Helper()
	s := &rawSender{t: t, from: from, to: to, random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))}
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	err := l.Within(lab.Client, func() (err error) {
		s.socket, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.socket) })
	return s
}

// fragments are the packets of a datagram with that payload, in order: of random
// sizes, two at least.
func (s *rawSender) fragments(payload []byte) [][]byte {
	s.id++
	datagram := make([]byte, 8, 8+len(payload))
	bigendian.BigEndian.PutUint16(datagram, s.from.Port())
	bigendian.BigEndian.PutUint16(datagram[2:], s.to.Port())
	bigendian.BigEndian.PutUint16(datagram[4:], uint16(8+len(payload)))
	datagram = append(datagram, payload...)
	bigendian.BigEndian.PutUint16(datagram[6:], s.checksum(datagram))
	least := max(1, len(datagram)/8/200)
	var packets [][]byte
	for at := 0; at < len(datagram); {
		size := 8 * (least + s.random.IntN(largestPiece/8+1-least))
		if at == 0 {
			size = min(size, (len(datagram)-1)/8*8)
		}
		end := min(at+size, len(datagram))
		packets = append(packets, s.packet(datagram[at:end], at, end < len(datagram)))
		at = end
	}
	return packets
}

// checksum is that of UDP.
func (s *rawSender) checksum(datagram []byte) uint16 {
	pseudo := slices.Concat(s.from.Addr().AsSlice(), s.to.Addr().AsSlice(), []byte{0, unix.IPPROTO_UDP})
	pseudo = bigendian.BigEndian.AppendUint16(pseudo, uint16(len(datagram)))
	var sum uint32
	for _, part := range [][]byte{pseudo, datagram} {
		for i, b := range part {
			sum += uint32(b) << (8 * (1 - i&1))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if sum == 0xffff {
		return 0xffff
	}
	return ^uint16(sum)
}

func (s *rawSender) packet(piece []byte, offset int, more bool) []byte {
	if s.to.Addr().Is4() {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 0x45, 64, unix.IPPROTO_UDP
		bigendian.BigEndian.PutUint16(header[2:], uint16(20+len(piece)))
		bigendian.BigEndian.PutUint16(header[4:], uint16(s.id))
		word := uint16(offset / 8)
		if more {
			word |= 0x2000
		}
		bigendian.BigEndian.PutUint16(header[6:], word)
		copy(header[12:], s.from.Addr().AsSlice())
		copy(header[16:], s.to.Addr().AsSlice())
		return append(header, piece...)
	}
	header := make([]byte, 48)
	header[0], header[6], header[7] = 0x60, unix.IPPROTO_FRAGMENT, 64
	bigendian.BigEndian.PutUint16(header[4:], uint16(8+len(piece)))
	copy(header[8:], s.from.Addr().AsSlice())
	copy(header[24:], s.to.Addr().AsSlice())
	header[40] = unix.IPPROTO_UDP
	word := uint16(offset)
	if more {
		word |= 1
	}
	bigendian.BigEndian.PutUint16(header[42:], word)
	bigendian.BigEndian.PutUint32(header[44:], s.id)
	return append(header, piece...)
}

func (s *rawSender) send(packets [][]byte) {
	s.t.Helper()
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: s.to.Addr().As16()}
	if s.to.Addr().Is4() {
		to = &unix.SockaddrInet4{Addr: s.to.Addr().As4()}
	}
	for _, packet := range packets {
		if err := unix.Sendto(s.socket, packet, 0, to); err != nil {
			s.t.Fatal(err)
		}
	}
}

// clientSocket is a UDP socket of the lab's client, for answers.
func clientSocket(t *testing.T, l *lab.Lab, family lab.Family) (net.PacketConn, netip.AddrPort) {
	t.Helper()
	var socket net.PacketConn
	client := l.Hosts()[slices.IndexFunc(l.Hosts(), func(h lab.Host) bool { return h.Name == lab.Client })]
	err := l.Within(lab.Client, func() (err error) {
		socket, err = net.ListenPacket("udp", netip.AddrPortFrom(client.Address(family), 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return socket, socket.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Datagrams of all sizes, in fragments that come in any order, reach one real
// server each, whole, by every method: it sends them back.
func TestFragments(t *testing.T) {
	for _, method := range lab.Methods() {
		t.Run(string(method), func(t *testing.T) { testFragments(t, method) })
	}
}

func testFragments(t *testing.T, method lab.Method) {
	l := mustUpAs(t, lab.Config{Name: "fragments", Directory: labDirectory(t), Servers: 2, Method: method})
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		address := service(family, lab.EchoPort)
		mustAddService(t, l, "-u", address, lvs.RoundRobin)
		began := time.Now()
		var frames, bytesSent int
		for i := range *fragmented {
			socket, from := clientSocket(t, l, family)
			s := newRawSender(t, l, from, address)
			s.id = uint32(i)
			payload := make([]byte, 1+i*(largestFragmented-1)/max(*fragmented-1, 1))
			for at := range payload {
				payload[at] = byte(s.random.Uint32())
			}
			packets := s.fragments(payload)
			s.random.Shuffle(len(packets), func(a, b int) { packets[a], packets[b] = packets[b], packets[a] })
			s.send(packets)
			frames, bytesSent = frames+len(packets), bytesSent+len(payload)
			wantEchoed(t, socket, payload)
			socket.Close()
			unix.Close(s.socket)
			if t.Failed() {
				t.Logf("%s", mustOutput(t, l, lab.Director, "fairlead", "status"))
				return
			}
		}
		t.Logf("%s, IPv%d: %d datagrams of 1 to %d bytes, %d bytes in %d fragments, in %v",
			method, family, *fragmented, largestFragmented, bytesSent, frames, time.Since(began).Round(time.Millisecond))
	}
	testOversized(t, l)
}

// testOversized narrows the director's way, and sends what is too large for it and may
// be fragmented: whole packets, and fragments of the client's kernel.
func testOversized(t *testing.T, l *lab.Lab) {
	t.Helper()
	mustOutput(t, l, lab.Director, "ip", "-4", "route", "change", "192.0.2.0/24", "dev", "eth0", "src", "192.0.2.10", "mtu", "lock", fmt.Sprint(narrowMTU))
	address := service(lab.IPv4, lab.EchoPort)
	socket, _ := clientSocket(t, l, lab.IPv4)
	allowFragments(t, socket.(*net.UDPConn))
	echo := func(bytes int) {
		payload := make([]byte, bytes)
		for i := range payload {
			payload[i] = byte(rand.Uint32())
		}
		if _, err := socket.WriteTo(payload, net.UDPAddrFromAddrPort(address)); err != nil {
			t.Fatal(err)
		}
		wantEchoed(t, socket, payload)
	}
	const wholePacket = 1472
	for echo(wholePacket); !t.Failed() && verdictOf(t, l, "forward-in-fragments") == 0; {
		echo(wholePacket) // until the director has heard of the route
	}
	for _, bytes := range []int{1470, 2000, 30_000, largestFragmented} {
		echo(bytes)
	}
	for _, dropped := range []string{"drop-too-big", "bug-adjust", "bug-map"} {
		if n := verdictOf(t, l, dropped); n != 0 {
			t.Errorf("%s: %d", dropped, n)
		}
	}
	t.Logf("%d packets were larger than %d bytes, and fragmented", verdictOf(t, l, "forward-in-fragments"), narrowMTU)
}

// allowFragments has a socket send packets without DF.
func allowFragments(t *testing.T, socket *net.UDPConn) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

// wantEchoed waits for the answer to a datagram.
func wantEchoed(t *testing.T, socket net.PacketConn, payload []byte) {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1<<16)
	n, _, err := socket.ReadFrom(buffer)
	if err != nil {
		t.Errorf("a datagram of %d bytes: %v", len(payload), err)
		return
	}
	if _, echoed, _ := bytes.Cut(buffer[:n], []byte(" ")); !bytes.Equal(echoed, payload) {
		t.Errorf("a datagram of %d bytes came back with %d, or changed", len(payload), len(echoed))
	}
}
