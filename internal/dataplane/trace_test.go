package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// A testTrace is a trace that goes on while a test runs packets.
type testTrace struct {
	t       testing.TB
	program *ebpf.Program // a reference of the test's own: the trace may end meanwhile
	packets chan *lvs.TracedPacket
	lost    chan uint64
	ended   chan error
	cancel  context.CancelFunc
}

// mustTrace begins a trace, without a limit to what is told.
func mustTrace(t testing.TB, p *Plane, filter lvs.TraceFilter) *testTrace {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &testTrace{
		t: t, cancel: cancel,
		packets: make(chan *lvs.TracedPacket, 4*traceBacklog), lost: make(chan uint64, 100), ended: make(chan error, 1),
	}
	begun := make(chan struct{})
	go func() {
		tr.ended <- p.Trace(ctx, filter, func(r lvs.TraceReport) (err error) {
			switch {
			case r.Packet != nil:
				tr.packets <- r.Packet
			case tr.program == nil: // it begins
				p.tracer.limit(0, 0)
				tr.program, err = p.tracer.objects.Program.Clone()
				close(begun)
			default:
				tr.lost <- r.Lost
			}
			return err
		})
	}()
	t.Cleanup(cancel)
	select {
	case <-begun:
	case err := <-tr.ended:
		t.Fatalf("trace: %+v", err)
	}
	t.Cleanup(func() { tr.program.Close() })
	return tr
}

// send runs a frame through the tracing program.
func (tr *testTrace) send(frame []byte) (action uint32, out []byte) {
	tr.t.Helper()
	action, out, err := runProgram(tr.program, frame, testIfindex)
	if err != nil {
		tr.t.Fatal(err)
	}
	return action, out
}

// run sends a frame, and returns what the trace tells of it.
func (tr *testTrace) run(frame []byte) (action uint32, out []byte, told *lvs.TracedPacket) {
	tr.t.Helper()
	action, out = tr.send(frame)
	return action, out, tr.next()
}

// next waits for the next packet.
func (tr *testTrace) next() *lvs.TracedPacket {
	tr.t.Helper()
	select {
	case told := <-tr.packets:
		return told
	case err := <-tr.ended:
		tr.t.Fatalf("the trace ended: %v", err)
	case <-time.After(10 * time.Second):
		tr.t.Fatal("nothing was told in 10 s")
	}
	return nil
}

// stop ends the trace as one does who goes away.
func (tr *testTrace) stop() {
	tr.t.Helper()
	tr.cancel()
	if err := <-tr.ended; !errors.Is(err, context.Canceled) {
		tr.t.Errorf("the trace ended with %v", err)
	}
}

// What a trace tells is what happened, in the words of Explain: in a thousand
// random situations.
func TestTraceAgreesWithTheProgram(t *testing.T) {
	r := &explainRun{
		t: t, random: random(t), plane: openPlane(t, testhost.MountBPF(t), 1),
		verdicts: map[string]int{}, chosen: map[string]int{},
	}
	for _, key := range modelServices {
		r.configure(key)
	}
	tr := mustTrace(t, r.plane, lvs.TraceFilter{})
	for range explainedCases {
		for range r.random.IntN(4) {
			r.disturb()
		}
		r.oneTraced(tr)
		if t.Failed() {
			return
		}
	}
	tr.stop()
	t.Logf("verdicts %v, chosen by %v", r.verdicts, r.chosen)
	for _, by := range []lvs.ChosenBy{lvs.ChosenByNobody, lvs.ChosenByConnection, lvs.ChosenByScheduler, lvs.ChosenByHash} {
		if r.chosen[string(by)] == 0 {
			t.Errorf("no case was chosen by %q", by)
		}
	}
}

// oneTraced sends a packet through the tracing program, and compares what it
// tells with what was foreseen and what happened.
func (r *explainRun) oneTraced(tr *testTrace) {
	r.t.Helper()
	frame, flow := r.frame()
	before := r.snapshot()
	foreseen, err := r.plane.Explain(frame, testIfindex)
	r.check(err)
	var action uint32
	var out []byte
	var told *lvs.TracedPacket
	counted := verdictDelta(r.t, r.plane, func() { action, out, told = tr.run(frame) })
	e := told.Explanation
	if len(counted) != 1 || counted[e.Verdict] != 1 || xdpActions[action] != e.Action {
		r.t.Errorf("told %s by %s, the packet did %v by %s", e.Verdict, e.Action, counted, xdpActions[action])
	}
	if diff := cmp.Diff(foreseen, e, compareTold...); diff != "" {
		r.t.Errorf("-foreseen +told:\n%s", diff)
	}
	r.compareFrame(e, out)
	r.compareServer(e, before)
	r.compareConnection(e, flow)
	if !bytes.Equal(told.InData, frame) || e.Out != nil && !bytes.Equal(told.OutData, out) || e.Out == nil && told.OutData != nil {
		r.t.Errorf("told frames %x and %x, they are %x and %x", told.InData, told.OutData, frame, out)
	}
	if told.Protocol != 0 && (modelFlow{told.Protocol, told.Client, told.Virtual}) != flow {
		r.t.Errorf("told a packet of %s %s %s, it is %v", told.Protocol, told.Client, told.Virtual, flow)
	}
	r.verdicts[e.Verdict]++
	r.chosen[string(e.Choice.By)]++
	if r.t.Failed() {
		r.t.Logf("told %+v", told)
	}
}

// compareTold takes a connection's end as equal within a second.
var compareTold = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= time.Second }),
	cmpopts.EquateEmpty(),
}

func TestTraceTellsEveryWayOut(t *testing.T) {
	const (
		vip, server, client    = "192.0.2.10:80", "198.51.100.11:80", "203.0.113.5:1024"
		vip6, server6, client6 = "[2001:db8:2::10]:80", "[2001:db8:1::b]:80", "[2001:db8:3::5]:1024"
		tagged                 = "198.51.100.12:80"
	)
	p := newTestPlane(t)
	for _, at := range []struct{ vip, server string }{{vip, server}, {vip6, server6}} {
		svc := tcpService(at.vip, lvs.RoundRobin)
		mustAddService(t, p, svc)
		mustAddServer(t, p, svc, at.server, 1)
	}
	vlan := tcpService("192.0.2.11:80", lvs.RoundRobin)
	mustAddService(t, p, vlan)
	mustAddServer(t, p, vlan, tagged, 1)
	setHop(t, p, tagged, lvs.NextHop{VLAN: 7, MTU: 1500})
	lost := tcpService("192.0.2.12:80", lvs.RoundRobin)
	mustAddService(t, p, lost)
	mustAddServer(t, p, lost, "198.51.100.13:80", 1)
	setHop(t, p, "198.51.100.13:80", lvs.NextHop{Problem: "nobody answers"})
	mustAddService(t, p, tcpService("192.0.2.13:80", lvs.RoundRobin)) // without servers
	association := sctpService("192.0.2.14:80", lvs.RoundRobin)
	mustAddService(t, p, association)
	mustAddServer(t, p, association, "198.51.100.14:80", 1)
	own := tcpService("192.0.2.15:80", lvs.RoundRobin)
	mustAddService(t, p, own)
	mustAddServer(t, p, own, "198.51.100.15:80", 1)
	peer := lvs.MAC{2, 0, 0, 0, 3, 1}
	err := errors.Join(p.SetNextHop(addrOf("198.51.100.15:80"), lvs.NextHop{Local: true}), p.AddPeerMAC(peer))
	if err != nil {
		t.Fatal(err)
	}
	again := tcpFrame(client, vip, "S")
	copy(again[6:], peer[:])

	other := tcpFrame(client, vip, "S")
	other[5] = 9
	arp := ethernet(etherARP, make([]byte, 28))
	fragment := fragments(udpFrame(client, vip, make([]byte, 100)...), 1, 64)[1]
	tr := mustTrace(t, p, lvs.TraceFilter{})
	for _, test := range []struct {
		name, verdict string
		frame         []byte
		by            lvs.ChosenBy
		server        string
		flags         lvs.TCPFlags
		state         lvs.ConnectionState // after; StateNone: no connection
		service       bool
		vlan          uint16 // of the frame that left
	}{
		{"first packet", "forward", tcpFrame(client, vip, "S"), lvs.ChosenByScheduler, server, lvs.TCPSyn, lvs.StateSynRecv, true, 0},
		{"second packet", "forward", tcpFrame(client, vip, "AP"), lvs.ChosenByConnection, server, lvs.TCPAck | lvs.TCPPsh, lvs.StateEstablished, true, 0},
		{"last packet", "forward", tcpFrame(client, vip, "FA"), lvs.ChosenByConnection, server, lvs.TCPAck | lvs.TCPFin, lvs.StateFinWait, true, 0},
		{"first packet of IPv6", "forward", tcpFrame(client6, vip6, "S"), lvs.ChosenByScheduler, server6, lvs.TCPSyn, lvs.StateSynRecv, true, 0},
		{"into a VLAN", "forward", tcpFrame(client, "192.0.2.11:80", "S"), lvs.ChosenByScheduler, tagged, lvs.TCPSyn, lvs.StateSynRecv, true, 7},
		{"out of a VLAN", "forward", segment{client: client, vip: vip, flags: "A", tags: []uint16{9}}.frame(t),
			lvs.ChosenByConnection, server, lvs.TCPAck, lvs.StateFinWait, true, 0},
		{"time exceeded", "answer-ttl", segment{client: client, vip: vip, flags: "A", ttl: 1}.frame(t),
			lvs.ChosenByConnection, server, lvs.TCPAck, lvs.StateFinWait, true, 0},
		{"hop limit exceeded", "answer-ttl", segment{client: client6, vip: vip6, flags: "A", ttl: 1}.frame(t),
			lvs.ChosenByConnection, server6, lvs.TCPAck, lvs.StateEstablished, true, 0},
		{"too big", "answer-too-big", segment{client: client, vip: vip, flags: "A", dontFrag: true, payload: make([]byte, 1800)}.frame(t),
			lvs.ChosenByConnection, server, lvs.TCPAck, lvs.StateFinWait, true, 0},
		{"no server", "answer-no-server", tcpFrame(client, "192.0.2.13:80", "S"), lvs.ChosenByScheduler, "", lvs.TCPSyn, 0, true, 0},
		{"no next hop", "drop-no-next-hop", tcpFrame(client, "192.0.2.12:80", "S"), lvs.ChosenByScheduler, "198.51.100.13:80", lvs.TCPSyn, lvs.StateSynRecv, true, 0},
		{"association", "forward", sctpFrame(client, "192.0.2.14:80", chunkInit), lvs.ChosenByScheduler, "198.51.100.14:80", 0, lvs.StateSCTPInit1, true, 0},
		{"to this host", "pass-local", tcpFrame(client, "192.0.2.15:80", "S"), lvs.ChosenByScheduler, "198.51.100.15:80", lvs.TCPSyn, lvs.StateSynRecv, true, 0},
		{"forwarded by a peer", "pass-peer", again, lvs.ChosenByNobody, "", lvs.TCPSyn, lvs.StateFinWait, true, 0},
		{"unknown connection", "pass-no-connection", tcpFrame("203.0.113.6:1", vip, "A"), lvs.ChosenByNobody, "", lvs.TCPAck, 0, true, 0},
		{"no service", "pass-no-service", udpFrame(client, vip), lvs.ChosenByNobody, "", 0, 0, false, 0},
		{"another host's", "pass-other-host", other, lvs.ChosenByNobody, "", 0, 0, false, 0},
		{"ARP", "pass-not-ip", arp, lvs.ChosenByNobody, "", 0, 0, false, 0},
		{"fragment", "hold-fragment", fragment, lvs.ChosenByNobody, "", 0, 0, false, 0},
	} {
		_, out, told := tr.run(test.frame)
		if told.Verdict != test.verdict || told.Flags != test.flags || (told.Service != nil) != test.service {
			t.Errorf("%s: %s, flags %s, service %v", test.name, told.Verdict, told.Flags, told.Service)
		}
		want := lvs.RealServerKey{}
		if test.server != "" {
			want = lvs.RealServerKey{Address: addrOf(test.server), Port: 80}
		}
		if told.Choice.By != test.by || told.Choice.Server != want {
			t.Errorf("%s: chosen %+v, want %s by %q", test.name, told.Choice, test.server, test.by)
		}
		if (told.After != nil) != (test.state != 0) || told.After != nil && told.After.State != test.state {
			t.Errorf("%s: connection %+v, want state %s", test.name, told.After, test.state)
		}
		if told.Out != nil && (told.Out.VLAN != test.vlan || !bytes.Equal(told.OutData, out)) {
			t.Errorf("%s: left as %+v, %x, want %x", test.name, told.Out, told.OutData, out)
		}
		if sent := told.Action == "XDP_TX" || told.Action == "XDP_REDIRECT"; (told.Out != nil) != sent {
			t.Errorf("%s: %s, left as %+v", test.name, told.Action, told.Out)
		}
		if !bytes.Equal(told.InData, test.frame) || told.In.Length != len(test.frame) {
			t.Errorf("%s: came in as %x, %d bytes, want %x", test.name, told.InData, told.In.Length, test.frame)
		}
	}

	// Of a long frame, the first bytes are told.
	long := segment{client: client, vip: vip, flags: "A", payload: make([]byte, 3000)}.frame(t)
	if _, _, told := tr.run(long); !bytes.Equal(told.InData, long[:MaxTracedFrame]) || told.In.Length != len(long) {
		t.Errorf("of a frame of %d bytes, %d were told, as one of %d", len(long), len(told.InData), told.In.Length)
	}
	tr.stop()
}

// Each scheduler's choice is told with its reason.
func TestTraceOfEachScheduler(t *testing.T) {
	const vip = "192.0.2.10:80"
	p := newTestPlane(t)
	tr := mustTrace(t, p, lvs.TraceFilter{})
	for _, scheduler := range implementedSchedulers() {
		reset(t, p)
		svc := tcpService(vip, scheduler)
		mustAddService(t, p, svc)
		for i := range 3 {
			mustAddServer(t, p, svc, fmt.Sprintf("198.51.100.%d:80", 1+i), uint32(20*(1+i))) // ovf: room for all
		}
		for i := range 20 {
			_, out, told := tr.run(tcpFrame(fmt.Sprintf("203.0.113.%d:1024", 1+i), vip, "S"))
			if told.Service.Scheduler != scheduler || told.Choice.By != lvs.ChosenByScheduler || len(told.Candidates) != 3 {
				t.Fatalf("%s: %+v of %+v, by %s", scheduler, told.Choice, told.Candidates, told.Service.Scheduler)
			}
			active := uint32(0)
			for _, c := range told.Candidates {
				active += c.Active
			}
			if active != uint32(i) {
				t.Errorf("%s: %d connections at the candidates, want %d", scheduler, active, i)
			}
			if told.Choice.Why == "" || strings.Contains(told.Choice.Why, "may draw") || serverMAC(told.Choice.Server.Address) != lvs.MAC(out[:6]) {
				t.Errorf("%s: chosen %+v, sent to %s", scheduler, told.Choice, lvs.MAC(out[:6]))
			}
		}
	}
	tr.stop()
}

func TestTraceFilter(t *testing.T) {
	p := newTestPlane(t)
	mustAddService(t, p, tcpService("192.0.2.10:80", lvs.RoundRobin))
	frames := map[string][]byte{
		"tcp":    tcpFrame("203.0.113.5:1024", "192.0.2.10:80", "S"),
		"tcp 2":  tcpFrame("203.0.113.6:1025", "192.0.2.10:81", "S"),
		"udp":    udpFrame("203.0.113.5:1024", "192.0.2.10:80"),
		"sctp":   sctpFrame("203.0.113.7:1024", "192.0.2.10:80", chunkInit),
		"tcp6":   tcpFrame("[2001:db8:3::5]:1024", "[2001:db8:2::10]:80", "S"),
		"tcp6 2": tcpFrame("[2001:db8:3:1::5]:1024", "[2001:db8:2::11]:80", "S"),
		"icmp":   ip("203.0.113.5:1", "192.0.2.10:1", protoICMP, make([]byte, 8)),
		"arp":    ethernet(etherARP, make([]byte, 28)),
		"last":   tcpFrame("198.51.100.99:9", "192.0.2.99:9", "S"),
	}
	endpoint := func(text string) lvs.Endpoint {
		e, err := lvs.ParseEndpoint(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	last := mustTrace(t, p, lvs.TraceFilter{Client: endpoint("198.51.100.99")})
	for _, test := range []struct {
		filter lvs.TraceFilter
		want   []string
	}{
		{lvs.TraceFilter{}, []string{"tcp", "tcp 2", "udp", "sctp", "tcp6", "tcp6 2", "icmp", "arp", "last"}},
		{lvs.TraceFilter{Protocol: lvs.UDP}, []string{"udp"}},
		{lvs.TraceFilter{Protocol: lvs.SCTP}, []string{"sctp"}},
		{lvs.TraceFilter{Client: endpoint("203.0.113.5")}, []string{"tcp", "udp", "icmp"}},
		{lvs.TraceFilter{Client: endpoint("203.0.113.4/30:1025")}, []string{"tcp 2"}},
		{lvs.TraceFilter{Client: endpoint("0.0.0.0/0")}, []string{"tcp", "tcp 2", "udp", "sctp", "icmp", "last"}},
		{lvs.TraceFilter{Client: endpoint("::/0")}, []string{"tcp6", "tcp6 2"}},
		{lvs.TraceFilter{Client: endpoint("2001:db8:3::/64")}, []string{"tcp6"}},
		{lvs.TraceFilter{Virtual: endpoint("[2001:db8:2::11]:80")}, []string{"tcp6 2"}},
		{lvs.TraceFilter{Virtual: endpoint("192.0.2.10:80")}, []string{"tcp", "udp", "sctp"}},
		{lvs.TraceFilter{Virtual: endpoint("192.0.2.10:80"), Protocol: lvs.TCP}, []string{"tcp"}},
	} {
		tr := mustTrace(t, p, test.filter)
		got := map[string]bool{}
		for name, frame := range frames {
			if name == "last" {
				continue
			}
			tr.send(frame)
		}
		last.run(frames["last"]) // what was picked before it has been handed out
		for len(got) < len(test.want) {
			told := tr.next()
			for name, frame := range frames {
				if bytes.Equal(frame, told.InData) {
					got[name] = true
				}
			}
		}
		for _, name := range test.want {
			if !got[name] {
				t.Errorf("%+v did not pick %s", test.filter, name)
			}
		}
		tr.stop()
		if more := len(tr.packets); more > 0 {
			t.Errorf("%+v picked %d more than %v", test.filter, more, test.want)
		}
	}
}

// Of a long list the first servers are told, and how many are not.
func TestTraceOmitsCandidates(t *testing.T) {
	p := newTestPlane(t)
	svc := tcpService("192.0.2.10:80", lvs.RoundRobin)
	mustAddService(t, p, svc)
	const told, more = int(traceTraceLimitMAX_TRACED_CANDIDATES), 3
	for i := range told + more {
		mustAddServer(t, p, svc, fmt.Sprintf("198.18.%d.%d:80", i>>8, i&255), 1)
	}
	tr := mustTrace(t, p, lvs.TraceFilter{})
	for i := range told + more {
		_, _, packet := tr.run(tcpFrame(fmt.Sprintf("203.0.113.5:%d", 1024+i), "192.0.2.10:80", "S"))
		if len(packet.Candidates) != told || packet.Omitted != more {
			t.Fatalf("packet %d: %d candidates told, %d not", i, len(packet.Candidates), packet.Omitted)
		}
		if packet.Choice.Server == (lvs.RealServerKey{}) || packet.Choice.Why == "" {
			t.Errorf("packet %d: chosen %+v", i, packet.Choice)
		}
		if i < told != packet.Candidates[i%told].Chosen {
			t.Errorf("packet %d: chosen %+v, candidate %+v", i, packet.Choice, packet.Candidates[i%told])
		}
	}
	tr.stop()
}

func TestTraceRefusals(t *testing.T) {
	p := newTestPlane(t)
	both := lvs.TraceFilter{
		Client:  lvs.Endpoint{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		Virtual: lvs.Endpoint{Prefix: netip.MustParsePrefix("2001:db8::/32")},
	}
	none := func(lvs.TraceReport) error { return nil }
	if err := p.Trace(t.Context(), both, none); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("of two families: %v, want one that wraps ErrInvalid", err)
	}
	traces := make([]*testTrace, MaxTraces)
	for i := range traces {
		traces[i] = mustTrace(t, p, lvs.TraceFilter{})
	}
	if err := p.Trace(t.Context(), lvs.TraceFilter{}, none); !errors.Is(err, lvs.ErrTableFull) {
		t.Errorf("one more than can: %v, want one that wraps ErrTableFull", err)
	}
	frame := tcpFrame("203.0.113.5:1024", "192.0.2.10:80", "S")
	traces[0].run(frame)
	for _, tr := range traces[1:] {
		if told := tr.next(); !bytes.Equal(told.InData, frame) {
			t.Errorf("told %x, want %x", told.InData, frame)
		}
	}
	traces[3].stop()
	mustTrace(t, p, lvs.TraceFilter{}).stop() // in the slot that came free
	for i, tr := range traces {
		if i != 3 {
			tr.stop()
		}
	}
	if p.tracer != nil {
		t.Error("the tracing program is still there")
	}
	broken := errors.New("broken")
	if err := p.Trace(t.Context(), lvs.TraceFilter{}, func(lvs.TraceReport) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the visitor's error: got %v", err)
	}
}
