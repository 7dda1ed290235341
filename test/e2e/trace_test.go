package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A tracing is a `fairlead trace -o json` on a lab's director.
type tracing struct {
	t       *testing.T
	command *command
	out     io.Reader
	lines   *bufio.Scanner
}

// A traceLine is what these tests read of a line.
type traceLine struct {
	Event    string `json:"event"`
	Client   string `json:"client"`
	Virtual  string `json:"virtual"`
	TCPFlags string `json:"tcp_flags"`
	Verdict  string `json:"verdict"`
	Packets  int    `json:"packets"`
	Lost     uint64 `json:"lost"`
	In, Out  struct {
		Interface      string `json:"interface"`
		SourceMAC      string `json:"source_mac"`
		DestinationMAC string `json:"destination_mac"`
		SourceIP       string `json:"source_ip"`
		DestinationIP  string `json:"destination_ip"`
	}
	Service struct {
		Scheduler string `json:"scheduler"`
	}
	Candidates []struct {
		Server string `json:"server"`
		Weight uint32 `json:"weight"`
		Chosen bool   `json:"chosen"`
	}
	Choice struct {
		By     string `json:"by"`
		Server string `json:"server"`
		Why    string `json:"why"`
	}
	Before, After struct {
		State   string `json:"state"`
		Packets uint32 `json:"packets"`
	}
}

// mustTrace begins a trace, and returns once packets are picked.
func mustTrace(t *testing.T, directory, name string, args ...string) *tracing {
	t.Helper()
	args = append([]string{"lab", "exec", "--name", name, lab.Director, "fairlead", "trace", "-o", "json"}, args...)
	c := newCommand(t, directory, args...)
	c.Stdout = nil
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	tr := &tracing{t: t, command: c, out: out, lines: bufio.NewScanner(out)}
	if line := tr.next(); line.Event != "begin" {
		t.Fatalf("the trace begins with %+v", line)
	}
	return tr
}

func (tr *tracing) next() (line traceLine) {
	tr.t.Helper()
	if !tr.lines.Scan() {
		tr.t.Fatalf("the trace ended: %v, %v\n%s", tr.lines.Err(), tr.command.Wait(), &tr.command.stderr)
	}
	if err := json.Unmarshal(tr.lines.Bytes(), &line); err != nil {
		tr.t.Fatalf("%v: %s", err, tr.lines.Bytes())
	}
	return line
}

// end interrupts the trace, and returns its last line.
func (tr *tracing) end() traceLine {
	tr.t.Helper()
	if err := tr.command.Process.Signal(os.Interrupt); err != nil {
		tr.t.Fatal(err)
	}
	return tr.last()
}

// last waits for the end, and returns the last line.
func (tr *tracing) last() traceLine {
	tr.t.Helper()
	line := tr.next()
	for line.Event != "end" {
		line = tr.next()
	}
	if err := tr.command.Wait(); err != nil {
		tr.t.Errorf("%v: %s", err, &tr.command.stderr)
	}
	return line
}

// programOn is the number of the program on the director's interface.
func programOn(t *testing.T, l *lab.Lab) (id uint32) {
	t.Helper()
	err := l.Within(lab.Director, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if xdp := link.Attrs().Xdp; xdp != nil && xdp.Attached {
			id = xdp.ProgId
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if id == 0 {
		t.Fatal("no program is on the director's interface")
	}
	return id
}

// A request is traced packet by packet, and the frames are those that pass on the
// director's wire; the director's own stack sees none of them.
func TestTraceTellsOfARequest(t *testing.T) {
	directory := labDirectory(t)
	l := mustUp(t, directory, "trace")
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			address := service(family, lab.HTTPPort)
			mustAddService(t, l, "-t", address, lvs.WeightedLeastConnection)
			file := filepath.Join(t.TempDir(), "trace.pcapng")
			traceOneRequest(t, directory, l, address, file)
		})
	}
}

func traceOneRequest(t *testing.T, directory string, l *lab.Lab, address netip.AddrPort, file string) {
	none := func(journey.Frame) {}
	wires, err := l.Capture(1000, none)
	if err != nil {
		t.Fatal(err)
	}
	var inside *journey.Capture
	err = l.Within(lab.Director, func() (err error) {
		inside, err = journey.Start([]journey.Wire{{Host: "eth0", Interface: "eth0"}}, 1000, none)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tr := mustTrace(t, directory, "trace", "--protocol", "tcp", "--service", address.String(), "--pcap", file)
	answer, err := l.Get(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	lines := []traceLine{tr.next()}
	for last := lines[0]; last.After.State != "FIN_WAIT"; {
		last = tr.next()
		lines = append(lines, last)
	}
	checkTracedRequest(t, lines, answer, address)
	// The last ACK may come behind; it is in the file as well.
	ended := tr.end()
	if ended.Packets < len(lines) || ended.Lost != 0 {
		t.Errorf("the trace ended with %+v after %d packets", ended, len(lines))
	}

	passed := mustStop(t, wires, answer.Client)
	in, out := mustReadPcapng(t, file)
	compareFrames(t, "came in", in, passed[journey.In])
	compareFrames(t, "left", out, passed[journey.Out])
	if seen := mustStop(t, inside, answer.Client); len(seen[journey.In])+len(seen[journey.Out]) != 0 {
		t.Errorf("the director's stack saw %d frames in, %d out", len(seen[journey.In]), len(seen[journey.Out]))
	}
}

func checkTracedRequest(t *testing.T, lines []traceLine, answer lab.Answer, address netip.AddrPort) {
	t.Helper()
	first := lines[0]
	if first.TCPFlags != "S" || first.Before.State != "" || first.After.State != "SYN_RECV" ||
		first.Choice.By != "scheduler" || first.Choice.Why == "" || first.Service.Scheduler != "wlc" {
		t.Errorf("the first packet: %+v", first)
	}
	if len(first.Candidates) != 2 || first.Candidates[0].Chosen == first.Candidates[1].Chosen {
		t.Errorf("candidates of the first packet: %+v", first.Candidates)
	}
	for i, line := range lines {
		if line.Verdict != "forward" || line.Client != answer.Client.String() || line.Virtual != address.String() {
			t.Errorf("packet %d: %+v", i, line)
		}
		if line.In.Interface != "eth0" || line.Out.Interface != "eth0" || line.Out.SourceMAC != line.In.DestinationMAC ||
			line.Out.DestinationMAC == line.In.DestinationMAC || line.Out.SourceIP != line.In.SourceIP || line.Out.DestinationIP != line.In.DestinationIP {
			t.Errorf("packet %d: in %+v, out %+v", i, line.In, line.Out)
		}
		if i > 0 && (line.Choice.By != "connection" || line.Before.State != lines[i-1].After.State || line.Choice.Server != first.Choice.Server) {
			t.Errorf("packet %d: %+v, after one that left the connection in %s", i, line, lines[i-1].After.State)
		}
		if line.After.Packets != uint32(i+1) {
			t.Errorf("packet %d is the connection's packet %d", i, line.After.Packets)
		}
	}
}

// mustStop returns the frames from that client on the director's wire.
func mustStop(t *testing.T, c *journey.Capture, client netip.AddrPort) map[journey.Direction][][]byte {
	t.Helper()
	frames, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	passed := map[journey.Direction][][]byte{}
	for _, frame := range frames {
		if packet := journey.Decode(frame.Data); packet.Kind == journey.TCP && netip.AddrPortFrom(packet.Source, packet.SourcePort) == client &&
			(frame.Host == lab.Director || frame.Host == "eth0") {
			passed[frame.Direction] = append(passed[frame.Direction], frame.Data)
		}
	}
	return passed
}

// mustReadPcapng returns the frames that came in and that left.
func mustReadPcapng(t *testing.T, path string) (in, out [][]byte) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ng, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, options, err := ng.ReadPacketDataWithOptions()
		if err == io.EOF {
			return in, out
		}
		if err != nil {
			t.Fatal(err)
		}
		if device, err := ng.Interface(info.InterfaceIndex); err != nil || device.Name != "eth0" || len(options.Comments) != 1 {
			t.Errorf("a frame of %+v, %v, with %q", device, err, options.Comments)
		}
		if options.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound {
			out = append(out, data)
		} else {
			in = append(in, data)
		}
	}
}

// compareFrames wants the recorded frames to be the first of those that passed.
func compareFrames(t *testing.T, what string, recorded, passed [][]byte) {
	t.Helper()
	if len(recorded) < 5 || len(recorded) > len(passed) {
		t.Fatalf("%d frames that %s are recorded, %d passed", len(recorded), what, len(passed))
	}
	for i := range recorded {
		if !bytes.Equal(recorded[i], passed[i]) {
			t.Errorf("frame %d that %s is recorded as\n%x, was\n%x", i, what, recorded[i], passed[i])
		}
	}
}

// Traces begin and end, one who traces is killed, and the director is killed
// while a trace goes on: not one datagram is lost, and the plain program is back
// each time. If one is, the counters of all hosts tell where.
func TestTraceLeavesForwardingAlone(t *testing.T) {
	directory := labDirectory(t)
	l := mustUp(t, directory, "swaps")
	address := service(lab.IPv4, lab.EchoPort)
	mustAddService(t, l, "-u", address, lvs.RoundRobin)
	before := lossesOf(t, l)
	echoes := newEchoes(t, l, address)
	defer func() {
		echoes.finish()
		if t.Failed() {
			t.Logf("lost meanwhile:\n%s", lossesOf(t, l).since(before))
		}
	}()
	plain := programOn(t, l)
	isBack := func() bool { return programOn(t, l) == plain }

	for range 5 {
		tr := mustTrace(t, directory, "swaps", "--service", address.String())
		if now := programOn(t, l); now == plain {
			t.Errorf("program %d is there while a trace goes on", now)
		}
		echoes.awaitProgress()
		tr.end()
		eventually(t, 10*time.Second, "the plain program is back after a trace", isBack)
		echoes.awaitProgress()
	}

	// One who goes away without a word.
	gone := mustTrace(t, directory, "swaps")
	if err := gone.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = gone.command.Wait() // killed
	eventually(t, 10*time.Second, "the plain program is back after one who traced was killed", isBack)

	// A director that is killed leaves the tracing program; the next one does not.
	orphan := mustTrace(t, directory, "swaps", "--service", address.String())
	left := programOn(t, l)
	if err := l.Kill(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, orphan.out); err != nil {
		t.Fatal(err)
	}
	if status := exitStatus(t, orphan.command.Wait()); status != 1 {
		t.Errorf("the trace of a director that was killed: exit status %d\n%s", status, &orphan.command.stderr)
	}
	if now := programOn(t, l); now != left {
		t.Errorf("program %d is there after the director was killed, want %d", now, left)
	}
	echoes.awaitProgress()
	if err := l.Start(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if plain = programOn(t, l); plain == left {
		t.Error("the next director left the tracing program there")
	}
	mustTrace(t, directory, "swaps", "--for", "1ms").last()
	eventually(t, 10*time.Second, "the next director's plain program is back after a trace", isBack)
	echoes.awaitProgress()
}

// echoes send datagrams without a pause, each once the one before is answered.
type echoes struct {
	t        *testing.T
	answered atomic.Int64
	stop     chan struct{}
	senders  sync.WaitGroup
	finish   func() // waits for the last answers
}

func newEchoes(t *testing.T, l *lab.Lab, address netip.AddrPort) *echoes {
	e := &echoes{t: t, stop: make(chan struct{})}
	e.finish = sync.OnceFunc(func() {
		close(e.stop)
		e.senders.Wait()
		t.Logf("%d datagrams answered", e.answered.Load())
	})
	t.Cleanup(e.finish)
	const sockets = 4
	for i := range sockets {
		conn, err := l.Dial(t.Context(), lab.Client, "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		e.senders.Go(func() {
			buffer := make([]byte, 128)
			for n := 0; ; n++ {
				select {
				case <-e.stop:
					return
				default:
				}
				err := conn.SetDeadline(time.Now().Add(10 * time.Second))
				if err == nil {
					_, err = fmt.Fprintf(conn, "datagram %d of %d", n, i)
				}
				if err == nil {
					_, err = conn.Read(buffer)
				}
				if err != nil {
					t.Errorf("datagram %d of socket %d: %v", n, i, err)
					return
				}
				e.answered.Add(1)
			}
		})
	}
	return e
}

// awaitProgress waits for a thousand more answers.
func (e *echoes) awaitProgress() {
	e.t.Helper()
	start := e.answered.Load()
	eventually(e.t, 30*time.Second, "a thousand more datagrams are answered", func() bool { return e.answered.Load() >= start+1000 })
}
