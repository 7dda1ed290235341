package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// What tc makes of a packet (linux/pkt_cls.h).
const (
	tcNext     = ^uint32(0)
	tcDrop     = 2
	tcRedirect = 7
)

// skbContext is the kernel's struct __sk_buff.
type skbContext struct {
	Length, PacketType, Mark, QueueMapping, Protocol uint32
	VLANPresent, VLANTCI, VLANProtocol, Priority     uint32
	IngressIfindex, Ifindex, TCIndex                 uint32
	CB                                               [5]uint32
	Hash, TCClassID, Data, DataEnd, NAPI, Family     uint32
	RemoteIP4, LocalIP4                              uint32
	RemoteIP6, LocalIP6                              [4]uint32
	RemotePort, LocalPort, DataMeta                  uint32
	FlowKeys, Timestamp                              uint64
	WireLength, GSOSegments                          uint32
	Socket                                           uint64
	GSOSize, TimestampType                           uint32
	HardwareTimestamp                                uint64
}

// tcPlane is a plane with its program for tc.
func tcPlane(t *testing.T, p *Plane) *ebpf.Program {
	t.Helper()
	program, err := p.programOf(ModeTC)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return program
}

// wantInTC runs one frame through the program for tc, and checks what became of it.
func wantInTC(t *testing.T, p *Plane, frame []byte, ctx skbContext, verdict string, action uint32) []byte {
	t.Helper()
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: ctx, ContextOut: &skbContext{}}
	var got uint32
	counted := verdictDelta(t, p, func() {
		var err error
		if got, err = tcPlane(t, p).Run(&opts); err != nil {
			t.Fatal(err)
		}
	})
	if len(counted) != 1 || counted[verdict] != 1 {
		t.Errorf("counted %v, want one %s", counted, verdict)
	}
	if got != action {
		t.Errorf("tc action %d, want %d", int32(got), int32(action))
	}
	return opts.DataOut
}

// The program for tc does to a frame what that for XDP does.
func TestTCDoesAsXDP(t *testing.T) {
	p := answeringPlane(t)
	about := answered(client4, vip4, protoTCP, tcp(vip4, client4, "A"))
	actions := map[uint32]uint32{xdpPass: tcNext, xdpDrop: tcDrop, xdpTX: tcRedirect}
	for _, test := range []struct {
		name    string
		frame   []byte
		verdict string
		action  uint32 // of XDP
	}{
		{"ipv4 syn", tcpFrame(client4, vip4, "S"), "forward", xdpTX},
		{"ipv4 steady", tcpFrame(client4, vip4, "A"), "forward", xdpTX},
		{"ipv4 steady, again", tcpFrame(client4, vip4, "A"), "forward", xdpTX},
		{"ipv6 udp", udpFrame(client6, vip6, 1), "forward", xdpTX},
		{"ipv6 steady", udpFrame(client6, vip6, 1), "forward", xdpTX},
		{"ipv4 large", udpFrame(client4, vip4, make([]byte, 1400)...), "forward", xdpTX},
		{"no server", tcpFrame(client4, idle4, "S"), "answer-no-server", xdpTX},
		{"no server, long", udpFrame(client6, idle6, make([]byte, 1400)...), "answer-no-server", xdpTX},
		{"ttl", changed(tcpFrame(client6, vip6, "S"), 21, 1), "answer-ttl", xdpTX},
		{"icmp error", errorFrame(3, 4, 1400, about), "forward-icmp", xdpTX},
		{"icmp error, wrong", changed(errorFrame(3, 4, 1400, about), 36, 0xff), "drop-icmp-checksum", xdpDrop},
		{"no service", tcpFrame(client4, "192.0.2.99:99", "S"), "pass-no-service", xdpPass},
		{"arp", ethernet(etherARP, make([]byte, 28)), "pass-not-ip", xdpPass},
	} {
		t.Run(test.name, func(t *testing.T) {
			byXDP := wantVerdict(t, p, test.frame, test.verdict, test.action)
			byTC := wantInTC(t, p, test.frame, skbContext{}, test.verdict, actions[test.action])
			if test.frame[14]>>4 == 4 && test.verdict[0] == 'a' { // the id is drawn
				byXDP[18], byXDP[19], byXDP[24], byXDP[25] = byTC[18], byTC[19], byTC[24], byTC[25]
			}
			if !bytes.Equal(byXDP, byTC) {
				t.Errorf("XDP made\n%x, tc\n%x", byXDP, byTC)
			}
		})
	}
}

// An aggregate is as large as its segments are.
func TestTCAggregates(t *testing.T) {
	p := servedPlane(t)
	setHop(t, p, server4, lvs.NextHop{MTU: 1400})
	setHop(t, p, server6, lvs.NextHop{MTU: 1400})
	for _, flow := range []struct {
		client, vip string
		headers     int
	}{{client4, vip4, 40}, {client6, vip6, 60}} {
		wantVerdict(t, p, tcpFrame(flow.client, flow.vip, "S"), "forward", xdpTX)
		frame := tcpFrame(flow.client, flow.vip, "A", make([]byte, 3000)...)
		if flow.headers == 40 {
			frame[20] = 0x40
			setIPv4Checksum(frame[14:])
		}
		fits := uint32(1400 - flow.headers)
		wantInTC(t, p, frame, skbContext{GSOSize: fits, GSOSegments: 3}, "forward", tcRedirect)
		out := wantInTC(t, p, frame, skbContext{GSOSize: fits + 1, GSOSegments: 3}, "answer-too-big", tcRedirect)
		finish(out, flow.headers-20)
		if got := readAnswer(t, out, flow.client); got.mtu != 1400 {
			t.Errorf("answer %+v, want an MTU of 1400", got)
		}
		out = wantInTC(t, p, frame, skbContext{}, "answer-too-big", tcRedirect)
		if got := readAnswer(t, out, flow.client); got.mtu != 1400 {
			t.Errorf("answer %+v, want an MTU of 1400", got)
		}
	}
}

// finish completes the checksum of the TCP segment that an answer quotes behind an IP header of
// so many bytes, as the kernel does with a segment of an aggregate.
func finish(answer []byte, header int) {
	segment := answer[14+header+8+header:]
	binary.BigEndian.PutUint16(segment[16:], internetChecksum(segment))
}

// A mark that a packet comes with is its firewall mark, before rules are asked.
func TestTCMarks(t *testing.T) {
	p := newTestPlane(t)
	svc := lvs.Service{
		ServiceKey: lvs.ServiceKey{Mark: 7}, Scheduler: lvs.RoundRobin,
		PersistenceMask: lvs.FullPersistenceMask(addrOf(vip4)),
	}
	mustAddService(t, p, svc)
	mustAddServer(t, p, svc, server4, 1)
	frame := tcpFrame(client4, vip4, "S")
	wantInTC(t, p, frame, skbContext{}, "pass-no-service", tcNext)
	wantInTC(t, p, frame, skbContext{Mark: 6}, "pass-no-service", tcNext)
	wantInTC(t, p, frame, skbContext{Mark: 7}, "forward", tcRedirect)
	rule := lvs.MarkRule{Mark: 7, SourcePorts: lvs.AllPorts, DestinationPorts: lvs.AllPorts}
	if err := p.SetMarkRules([]lvs.MarkRule{rule}); err != nil {
		t.Fatal(err)
	}
	other := tcpFrame("203.0.113.6:6", vip4, "S")
	wantInTC(t, p, other, skbContext{Mark: 6}, "pass-no-service", tcNext)
	wantInTC(t, p, other, skbContext{}, "forward", tcRedirect)
}

// The mode of an attached interface is found again by a successor, and changed by one
// that was told another.
func TestTCMode(t *testing.T) {
	enterNamespace(t)
	dir := testhost.MountBPF(t)
	p := openMode(t, dir, ModeTC)
	if got := mustAttach(t, p, "a0"); got[0].Mode != ModeTC {
		t.Fatalf("attached %+v", got)
	}
	if program, _ := attachedTo(t, "a0"); program != 0 {
		t.Error("there is an XDP program too")
	}
	err := p.Trace(t.Context(), lvs.TraceFilter{For: time.Millisecond}, func(lvs.TraceReport) error { return nil })
	if !errors.Is(err, lvs.ErrUnsupported) {
		t.Errorf("a trace of tc: %v, want it refused", err)
	}
	mustClose(t, p)

	p = openMode(t, dir, ModeAuto)
	if got := mustAttach(t, p, "a0"); got[0].Mode != ModeTC {
		t.Errorf("taken over as %+v", got)
	}
	mustClose(t, p)

	p = openMode(t, dir, ModeGeneric)
	if got := mustAttach(t, p, "a0"); got[0].Mode != ModeGeneric {
		t.Errorf("attached %+v", got)
	}
	if _, mode := attachedTo(t, "a0"); mode != attachedGeneric {
		t.Errorf("XDP mode %d", mode)
	}
	mustClose(t, p)

	p = openMode(t, dir, ModeTC)
	mustAttach(t, p, "a0")
	waitDetached(t, "a0")
}
