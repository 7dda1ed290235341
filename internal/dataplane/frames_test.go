package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Frames built byte by byte: the tests of the parser need those that no library
// would build.

// Ethertypes and IP protocol numbers.
const (
	etherIPv4    = 0x0800
	etherARP     = 0x0806
	etherIPv6    = 0x86dd
	etherVLAN    = 0x8100
	etherService = 0x88a8

	protoHopByHop    = 0
	protoICMP        = 1
	protoTCP         = 6
	protoUDP         = 17
	protoRouting     = 43
	protoFragment    = 44
	protoESP         = 50
	protoAH          = 51
	protoICMPv6      = 58
	protoNone        = 59
	protoDestination = 60
	protoSCTP        = 132
)

// A vlanTag is one VLAN tag of a frame.
type vlanTag struct{ protocol, tci uint16 }

// ethernet puts a packet into a frame from the client to the director.
func ethernet(ethertype uint16, packet []byte, tags ...vlanTag) []byte {
	frame := append(append([]byte{}, directorMAC[:]...), clientMAC[:]...)
	for _, tag := range tags {
		frame = binary.BigEndian.AppendUint16(frame, tag.protocol)
		frame = binary.BigEndian.AppendUint16(frame, tag.tci)
	}
	frame = binary.BigEndian.AppendUint16(frame, ethertype)
	return append(frame, packet...)
}

// ip puts an upper layer into a packet and a frame, of the family of the client.
func ip(client, vip string, protocol byte, upper []byte) []byte {
	from, to := netip.MustParseAddrPort(client).Addr(), netip.MustParseAddrPort(vip).Addr()
	if from.Is4() {
		return ethernet(etherIPv4, ipv4Packet(from, to, protocol, nil, upper))
	}
	return ethernet(etherIPv6, ipv6Packet(from, to, protocol, upper))
}

func ipv4Packet(from, to netip.Addr, protocol byte, options, upper []byte) []byte {
	header := make([]byte, 20, 20+len(options)+len(upper))
	header = append(header, options...)
	header[0] = 4<<4 | byte(len(header)/4)
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(upper)))
	header[8], header[9] = 64, protocol
	copy(header[12:], from.AsSlice())
	copy(header[16:], to.AsSlice())
	setIPv4Checksum(header)
	return append(header, upper...)
}

// setIPv4Checksum mends the checksum of an IPv4 packet whose header was changed.
func setIPv4Checksum(packet []byte) {
	packet[10], packet[11] = 0, 0
	binary.BigEndian.PutUint16(packet[10:], internetChecksum(packet[:int(packet[0]&15)*4]))
}

// internetChecksum is that of RFC 1071.
func internetChecksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		sum += uint32(data[i]) << 8
		if i+1 < len(data) {
			sum += uint32(data[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func ipv6Packet(from, to netip.Addr, next byte, payload []byte) []byte {
	header := make([]byte, 40, 40+len(payload))
	header[0], header[6], header[7] = 6<<4, next, 64
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	copy(header[8:], from.AsSlice())
	copy(header[24:], to.AsSlice())
	return append(header, payload...)
}

// An extension is an IPv6 extension header: its protocol number, its length
// field and its length in bytes.
type extension struct {
	protocol byte
	length   byte
	bytes    int
}

// extend puts extension headers before an upper layer, and returns the first
// one's protocol number.
func extend(extensions []extension, protocol byte, upper []byte) (byte, []byte) {
	first, payload := protocol, []byte{}
	for i, e := range extensions {
		next := protocol
		if i+1 < len(extensions) {
			next = extensions[i+1].protocol
		}
		header := make([]byte, e.bytes)
		header[0], header[1] = next, e.length
		payload = append(payload, header...)
	}
	if len(extensions) > 0 {
		first = extensions[0].protocol
	}
	return first, append(payload, upper...)
}

// tcp returns a segment with these flags (letters of F S R P A U E C).
func tcp(client, vip, flags string, payload ...byte) []byte {
	segment := make([]byte, 20, 20+len(payload))
	putPorts(segment, client, vip)
	segment[12], segment[13] = 5<<4, tcpFlags(flags)
	return append(segment, payload...)
}

func tcpFlags(letters string) (flags byte) {
	for i, letter := range "FSRPAUEC" {
		for _, f := range letters {
			if f == letter {
				flags |= 1 << i
			}
		}
	}
	return flags
}

func udp(client, vip string, payload ...byte) []byte {
	datagram := make([]byte, 8, 8+len(payload))
	putPorts(datagram, client, vip)
	binary.BigEndian.PutUint16(datagram[4:], uint16(8+len(payload)))
	return append(datagram, payload...)
}

func putPorts(upper []byte, client, vip string) {
	binary.BigEndian.PutUint16(upper, netip.MustParseAddrPort(client).Port())
	binary.BigEndian.PutUint16(upper[2:], netip.MustParseAddrPort(vip).Port())
}

// tcpFrame is a whole frame with a segment.
func tcpFrame(client, vip, flags string, payload ...byte) []byte {
	return ip(client, vip, protoTCP, tcp(client, vip, flags, payload...))
}

func udpFrame(client, vip string, payload ...byte) []byte {
	return ip(client, vip, protoUDP, udp(client, vip, payload...))
}

func udpService(addr string, scheduler lvs.Scheduler) lvs.Service {
	svc := tcpService(addr, scheduler)
	svc.Protocol = lvs.UDP
	return svc
}

// wantVerdict runs one frame and checks what became of it: the only verdict that
// was counted, and the XDP action. It returns the frame that came out.
func wantVerdict(t testing.TB, p *Plane, frame []byte, verdict string, action uint32) []byte {
	t.Helper()
	var got uint32
	var out []byte
	counted := verdictDelta(t, p, func() { got, out = mustRun(t, p, frame) })
	if len(counted) != 1 || counted[verdict] != 1 {
		t.Errorf("counted %v, want one %s", counted, verdict)
	}
	if got != action {
		t.Errorf("XDP action %d, want %d", got, action)
	}
	return out
}

// random returns a source of numbers whose seed is printed; the environment's
// FAIRLEAD_SEED repeats a run.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FAIRLEAD_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("FAIRLEAD_SEED: %v", err)
		}
	}
	t.Logf("repeat with FAIRLEAD_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Types of SCTP chunks.
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkError            = 9
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
)

// sctp returns a packet with these chunks, each with six bytes in it.
func sctp(client, vip string, chunks ...byte) []byte {
	packet := make([]byte, 12, 12+12*len(chunks))
	putPorts(packet, client, vip)
	for _, chunk := range chunks {
		packet = append(packet, chunk, 0, 0, 10, 1, 2, 3, 4, 5, 6, 0, 0)
	}
	return packet
}

func sctpFrame(client, vip string, chunks ...byte) []byte {
	return ip(client, vip, protoSCTP, sctp(client, vip, chunks...))
}

func sctpService(addr string, scheduler lvs.Scheduler) lvs.Service {
	svc := tcpService(addr, scheduler)
	svc.Protocol = lvs.SCTP
	return svc
}
