package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// Ten million malformed frames through the real program. What must hold:
//
//   - the program is never aborted, and its action is the one of the verdict;
//   - each frame is counted once, and never as a bug;
//   - what goes to the host is byte for byte what came in;
//   - what is forwarded keeps all that lies behind the addresses of IP;
//   - no frame grows by more than the headers of an answer;
//   - connections of others go on.

// fuzzFrames is how many frames TestMalformedFrames makes; the environment's
// FAIRLEAD_FUZZ_FRAMES changes it.
const fuzzFrames = 10_000_000

const (
	fuzzThreads = 2
	fuzzBatch   = 200_000 // of all threads together
	fuzzMost    = 2000    // bytes of the longest frame
	fuzzRoom    = 128     // what a frame could grow by
	// The clock moves that far between batches, so that entries run out; those
	// of the connections that must go on have fifteen minutes.
	fuzzClockStep = 5 * time.Minute
)

// fuzzConnections make a table that each batch fills.
const fuzzConnections = 1000

// The least and the most that XDP's test run takes and a frame may grow by: an
// answer's IPv6 and ICMP headers.
const (
	leastFrame = 14
	mostGrowth = 48
)

// fuzzSteady is a client whose connections must go on.
const fuzzSteady = "203.0.113.7:%d"

func TestMalformedFrames(t *testing.T) {
	p := openPlane(t, testhost.MountBPF(t), fuzzConnections)
	r := random(t)
	templates := configureFuzz(t, p)
	steady := establishSteady(t, p)

	frames, batch := fuzzFrameCount(t), 0
	start := time.Now()
	for done := 0; done < frames; done += fuzzBatch {
		runFuzzBatch(t, p, r, templates, batch)
		for i, frame := range steady {
			checkSteady(t, p, i, frame)
		}
		if t.Failed() {
			t.Fatalf("in batch %d", batch)
		}
		batch++
		p.SetClockOffset(time.Duration(batch) * fuzzClockStep)
		if _, err := p.Sweep(); err != nil {
			t.Fatal(err)
		}
		// The sweep left the table to those that are in time.
		for i, frame := range steady {
			checkSteady(t, p, i, frame)
		}
	}
	t.Logf("%d frames in %v", batch*fuzzBatch, time.Since(start).Round(time.Millisecond))
	logVerdicts(t, p)
}

func fuzzFrameCount(t *testing.T) int {
	text := os.Getenv("FAIRLEAD_FUZZ_FRAMES")
	if text == "" {
		return fuzzFrames
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("FAIRLEAD_FUZZ_FRAMES: %v", err)
	}
	return n
}

func logVerdicts(t *testing.T, p *Plane) {
	t.Helper()
	counts, err := p.Verdicts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Packets > 0 {
			t.Logf("%-20s %9d", c.Name, c.Packets)
		}
	}
}

// establishSteady sets up connections that malformed frames must not touch, and
// returns a frame of each.
func establishSteady(t *testing.T, p *Plane) [][]byte {
	t.Helper()
	var frames [][]byte
	svc := tcpService("192.0.2.20:443", lvs.RoundRobin)
	mustAddService(t, p, svc)
	for i := range 8 {
		mustAddServer(t, p, svc, fmt.Sprintf("198.51.100.%d:443", 200+i), 1)
	}
	for i := range 64 {
		client := fmt.Sprintf(fuzzSteady, 1024+i)
		mustRun(t, p, tcpFrame(client, "192.0.2.20:443", "S"))
		frames = append(frames, tcpFrame(client, "192.0.2.20:443", "A"))
		checkSteady(t, p, i, frames[i])
	}
	return frames
}

// checkSteady sees one more packet of such a connection to its server: they were
// set up in turn.
func checkSteady(t *testing.T, p *Plane, i int, frame []byte) {
	t.Helper()
	action, out := mustRun(t, p, frame)
	if want := lvs.MAC([]byte{2, 0, 0, 0, 1, byte(207 - i%8)}); action != xdpTX || lvs.MAC(out[:6]) != want {
		t.Errorf("connection %d: XDP action %d to %s, want %d to %s", i, action, lvs.MAC(out[:6]), xdpTX, want)
	}
}

// runFuzzBatch runs one batch on all threads and compares the actions that they
// saw with the verdicts that were counted.
func runFuzzBatch(t *testing.T, p *Plane, r *rand.Rand, templates [][]byte, batch int) {
	t.Helper()
	var actions [5]uint64
	counted := verdictDelta(t, p, func() {
		fuzzers := make([]*fuzzer, fuzzThreads)
		var threads sync.WaitGroup
		for i := range fuzzers {
			f := newFuzzer(p, r.Uint64(), templates)
			fuzzers[i] = f
			threads.Go(func() { f.run(fuzzBatch / fuzzThreads) })
		}
		threads.Wait()
		for i, f := range fuzzers {
			if f.err != nil {
				t.Errorf("batch %d, thread %d: %v", batch, i, f.err)
			}
			for action, n := range f.actions {
				actions[action] += n
			}
		}
	})
	want := map[string]uint64{}
	for verdict, n := range counted {
		kind, how, _ := strings.Cut(verdict, "-")
		switch {
		case kind == "answer":
			kind = "forward"
		case kind == "hold", how == "in-fragments": // the director has it
			kind = "drop"
		}
		want[kind] += n
	}
	got := map[string]uint64{
		"pass": actions[xdpPass], "drop": actions[xdpDrop], "forward": actions[xdpTX] + actions[xdpRedirect],
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("batch %d: actions %v, verdicts %v", batch, got, counted)
	}
}

// A fuzzer makes malformed frames and runs them, on one thread.
type fuzzer struct {
	runner    runner
	random    *rand.Rand
	templates [][]byte
	frame     []byte
	actions   [5]uint64
	err       error
}

func newFuzzer(p *Plane, seed uint64, templates [][]byte) *fuzzer {
	return &fuzzer{
		runner:    newRunner(p.progs.Director, fuzzMost+fuzzRoom),
		random:    rand.New(rand.NewPCG(seed, 1)),
		templates: templates,
		frame:     make([]byte, fuzzMost),
	}
}

func (f *fuzzer) run(frames int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range frames {
		frame := f.next()
		action, out, err := f.runner.run(frame)
		if err == nil {
			err = checkFuzzed(frame, out, action)
		}
		if err != nil {
			f.err = fmt.Errorf("frame %x: %w", frame, err)
			return
		}
		f.actions[action]++
	}
}

// checkFuzzed checks what became of one frame.
func checkFuzzed(in, out []byte, action uint32) error {
	switch action {
	case xdpDrop:
		return nil
	case xdpPass:
		if !bytes.Equal(in, out) {
			return fmt.Errorf("went to the host as %x", out)
		}
		return nil
	case xdpTX, xdpRedirect:
		return checkSent(in, out)
	}
	return fmt.Errorf("XDP action %d", action)
}

// behindTTL is how far a frame's tail begins at most: two tags, and of the IP
// header all up to the checksum.
const behindTTL = 14 + 8 + 12

func checkSent(in, out []byte) error {
	if len(out) > len(in)+mostGrowth || len(out) < leastFrame+20 {
		return fmt.Errorf("%d bytes became %d", len(in), len(out))
	}
	switch tail := in[min(behindTTL, len(in)):]; {
	case bytes.HasPrefix(out, []byte{2, 0, 0, 0, 1}):
		if !bytes.HasSuffix(out, tail) {
			return fmt.Errorf("was forwarded as %x", out)
		}
	case !bytes.Equal(out[:6], in[6:12]):
		return fmt.Errorf("was answered to %x", out[:6])
	}
	return nil
}

// next makes a frame: a well-formed one, spoilt in one way or in several.
func (f *fuzzer) next() []byte {
	template := f.templates[f.random.IntN(len(f.templates))]
	frame := f.frame[:copy(f.frame, template)]
	// Different clients: the template's last byte of address, and its port.
	choice := f.random.Uint64()
	if len(frame) > 40 {
		frame[29] = byte(choice >> 40)
		frame[35] = byte(choice >> 48)
	}
	switch choice % 8 {
	case 0:
		return frame[:f.truncated(len(frame))]
	case 1:
		f.spoilLengths(frame)
	case 2:
		f.randomize(frame[f.offset(frame, 12):])
	case 3:
		frame = f.frame[:leastFrame+f.random.IntN(fuzzMost-leastFrame)]
		f.randomize(frame[12:])
		copy(frame, template[:f.offset(template, 12)])
	case 4:
		f.mutate(frame)
		return frame[:f.truncated(len(frame))]
	case 5:
		f.spoilLengths(frame)
		f.mutate(frame)
	default:
		f.mutate(frame)
	}
	return frame
}

func (f *fuzzer) truncated(length int) int { return leastFrame + f.random.IntN(length-leastFrame+1) }

// offset is one into a frame, mostly of a header, from least on.
func (f *fuzzer) offset(frame []byte, least int) int {
	return least + f.random.IntN(min(len(frame), 90)-least)
}

// mutate changes one to four bytes, to anything or to what is at some edge.
func (f *fuzzer) mutate(frame []byte) {
	for range 1 + f.random.IntN(4) {
		n := f.random.Uint32()
		at := f.offset(frame, 12)
		if n&0xf000 == 0 {
			// A MAC address; the client's never gets the prefix of a server's.
			at = f.random.IntN(10)
		}
		switch n >> 16 & 3 {
		case 0:
			frame[at] = byte(n)
		case 1:
			frame[at] ^= 1 << (n & 7)
		case 2:
			frame[at] = [...]byte{0, 1, 0x7f, 0x80, 0xfe, 0xff, 44, 51}[n&7]
		case 3:
			frame[at]++
		}
	}
}

// spoilLengths changes what headers tell of lengths and of what follows.
func (f *fuzzer) spoilLengths(frame []byte) {
	n := f.random.Uint32()
	at := [...]int{12, 13, 14, 16, 17, 18, 19, 20, 23, 46, 54, 55, 66, 74}[int(n>>8)%14]
	if at < len(frame) {
		frame[at] = byte(n)
	}
	if n&(1<<30) != 0 && len(frame) > 15 {
		frame[14] = byte(n >> 16)
	}
}

func (f *fuzzer) randomize(bytes []byte) {
	for i := 0; i+8 <= len(bytes); i += 8 {
		binary.NativeEndian.PutUint64(bytes[i:], f.random.Uint64())
	}
	for i := len(bytes) &^ 7; i < len(bytes); i++ {
		bytes[i] = byte(f.random.Uint32())
	}
}

// Every template at every length, and every value of every byte of its headers.
func TestSystematicallyMalformedFrames(t *testing.T) {
	p := newTestPlane(t)
	templates := configureFuzz(t, p)
	f := newFuzzer(p, 0, templates)
	run := func(frame []byte) {
		action, out, err := f.runner.run(frame)
		if err == nil {
			err = checkFuzzed(frame, out, action)
		}
		if err != nil {
			t.Fatalf("frame %x: %v", frame, err)
		}
	}
	var frames uint64
	counted := verdictDelta(t, p, func() {
		for _, template := range templates {
			for length := leastFrame; length <= min(len(template), 300); length++ {
				run(template[:length])
				frames++
			}
			frame := bytes.Clone(template)
			for at := 12; at < min(len(frame), 80); at++ {
				for value := range 256 {
					frame[at] = byte(value)
					run(frame)
					frames++
				}
				frame[at] = template[at]
			}
		}
	})
	var sum uint64
	for verdict, n := range counted {
		sum += n
		if verdict == "continue" || strings.HasPrefix(verdict, "bug") {
			t.Errorf("%d packets counted as %s", n, verdict)
		}
	}
	if sum != frames {
		t.Errorf("%d verdicts for %d frames", sum, frames)
	}
	t.Logf("%d frames: %v", frames, counted)
}
