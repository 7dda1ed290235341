package dataplane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// Packets of several CPUs at once, into a table that is full most of the time:
// nothing is locked, and in the end all counts agree.

const (
	hammerThreads = 2
	hammerRounds  = 30
	hammerPackets = 8_000 // of a thread in a round
)

// A hammer sends segments of random flows, on one thread.
type hammer struct {
	runner runner
	random *rand.Rand
	first  uint16 // port of its first flow
	flows  int
	frame  []byte
	err    error
}

func newHammer(p *Plane, seed uint64, first uint16, flows int) *hammer {
	frame := tcpFrame(client4, vip4, "S")
	return &hammer{
		runner: newRunner(p.progs.Director, len(frame)), random: rand.New(rand.NewPCG(seed, 2)), first: first, flows: flows, frame: frame,
	}
}

func (h *hammer) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const port, flags = 34, 47
	kinds := []byte{tcpFlags("S"), tcpFlags("S"), tcpFlags("S"), tcpFlags("A"), tcpFlags("A"), tcpFlags("FA"), tcpFlags("R"), tcpFlags("FS")}
	for range hammerPackets {
		n := h.random.Uint32()
		binary.BigEndian.PutUint16(h.frame[port:], h.first+uint16(int(n>>8)%h.flows))
		h.frame[flags] = kinds[int(n)%len(kinds)]
		action, _, err := h.runner.run(h.frame)
		if err == nil && action != xdpTX && action != xdpPass {
			err = fmt.Errorf("XDP action %d", action)
		}
		if err != nil {
			h.err = err
			return
		}
	}
}

func TestManyCPUs(t *testing.T) {
	for _, test := range []struct {
		name        string
		connections int
		flows       int
		apart       uint16 // between the first flows of two threads
	}{
		{"own flows, room for all", 10_000, 2000, 20_000},
		{"own flows, full table", 1, 150, 20_000},
		{"shared flows, room for all", 10_000, 50, 0},
		{"shared flows, full table", 1, 200, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := random(t)
			p := openPlane(t, testhost.MountBPF(t), test.connections)
			svc := servedBy(t, p, lvs.RoundRobin, 4)
			for range hammerRounds {
				var threads sync.WaitGroup
				hammers := make([]*hammer, hammerThreads)
				for i := range hammers {
					h := newHammer(p, r.Uint64(), 1024+uint16(i)*test.apart, test.flows)
					hammers[i] = h
					threads.Go(h.run)
				}
				// Meanwhile time passes, and is swept.
				for range 20 {
					advance(p, 5*time.Second)
					mustSweep(t, p)
				}
				threads.Wait()
				for _, h := range hammers {
					if h.err != nil {
						t.Fatal(h.err)
					}
				}
				checkTable(t, p)
				if t.Failed() {
					return
				}
			}
			checkCounted(t, p, svc)
			reset(t, p)
			wantEmpty(t, p)
		})
	}
}

// checkCounted checks that a service counts what its servers do, and that no
// verdict was a bug.
func checkCounted(t *testing.T, p *Plane, svc lvs.Service) {
	t.Helper()
	var sum lvs.Counters
	status := tell(t, p).Services[0]
	for _, rs := range status.Servers {
		sum = sum.Add(rs.Counters)
	}
	if status.Counters != sum || status.Service != svc {
		t.Errorf("service counts %+v, its servers %+v", status.Counters, sum)
	}
	counts, err := p.Verdicts()
	if err != nil {
		t.Fatal(err)
	}
	forwarded := uint64(0)
	for _, v := range counts {
		if v.Kind == KindBug && v.Packets > 0 {
			t.Errorf("%d packets counted as %s", v.Packets, v.Name)
		}
		if slices.Contains([]string{"forward", "forward-no-entry"}, v.Name) {
			forwarded += v.Packets
		}
	}
	if forwarded != sum.InPackets {
		t.Errorf("%d packets forwarded, servers count %d", forwarded, sum.InPackets)
	}
}
