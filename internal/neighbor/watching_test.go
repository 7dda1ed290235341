package neighbor

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// patience is how long a test waits for what has to come. Contracts on time are
// checked apart, against the second in which a change has to be told.
const patience = 20 * time.Second

// A watching is a Watcher at work in a namespace, and what it told.
type watching struct {
	t      *testing.T
	w      *Watcher
	log    *lockedBuffer
	latest map[netip.Addr]lvs.NextHop
	told   map[netip.Addr]int
}

// startWatching runs a Watcher until the test ends. Each of prepare is done to it
// before.
func startWatching(t *testing.T, n *namespace, prepare ...func(*Watcher)) *watching {
	t.Helper()
	log := &lockedBuffer{}
	var w *Watcher
	n.do(func() (err error) {
		w, err = New(slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil)))
		return err
	})
	for _, f := range prepare {
		f(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range w.Updates() {
		}
		mustDo(t, "run", <-ended)
	})
	return &watching{t, w, log, make(map[netip.Addr]lvs.NextHop), make(map[netip.Addr]int)}
}

// await reads updates until the latest of addr is as wanted, and returns that.
func (w *watching) await(addr, what string, wanted func(lvs.NextHop) bool) lvs.NextHop {
	w.t.Helper()
	return w.awaitAddr(netip.MustParseAddr(addr), what, wanted)
}

func (w *watching) awaitAddr(addr netip.Addr, what string, wanted func(lvs.NextHop) bool) lvs.NextHop {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		if hop, ok := w.latest[addr]; ok && wanted(hop) {
			return hop
		}
		select {
		case u := <-w.w.Updates():
			w.take(u)
		case <-deadline:
			w.t.Fatalf("%s: not told %s in %v; last %+v", addr, what, patience, w.latest[addr])
		}
	}
}

func (w *watching) take(u Update) {
	w.t.Helper()
	if last, ok := w.latest[u.Address]; ok && last == u.NextHop {
		w.t.Errorf("%s: %+v told twice running", u.Address, u.NextHop)
	}
	w.latest[u.Address] = u.NextHop
	w.told[u.Address]++
}

// awaitMAC waits until packets to addr go to mac.
func (w *watching) awaitMAC(addr string, mac lvs.MAC) lvs.NextHop {
	w.t.Helper()
	return w.await(addr, "MAC "+mac.String(), func(h lvs.NextHop) bool { return h.Usable() && h.Destination == mac })
}

// awaitProblem waits until packets to addr can't go for that reason.
func (w *watching) awaitProblem(addr, problem string) {
	w.t.Helper()
	w.await(addr, problem, func(h lvs.NextHop) bool { return h.Problem == problem })
}

// awaitLocal waits until addr is known as one of the host's own.
func (w *watching) awaitLocal(addr string) {
	w.t.Helper()
	w.await(addr, "own address", func(h lvs.NextHop) bool { return h == lvs.NextHop{Local: true} })
}

// within fails the test if do, which waits for a change to be told, takes longer
// than a change may.
func (w *watching) within(limit time.Duration, do func()) {
	w.t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > limit {
		w.t.Errorf("told after %v, want within %v", took, limit)
	} else {
		w.t.Logf("told after %v", took.Round(10*time.Microsecond))
	}
}

// settled returns when the Watcher has done everything asked of it so far.
func (w *watching) settled() {
	w.t.Helper()
	const own = "127.0.0.77"
	w.w.Forget(netip.MustParseAddr(own))
	delete(w.latest, netip.MustParseAddr(own))
	w.w.Watch(netip.MustParseAddr(own))
	w.awaitLocal(own)
}

// eventually waits until the kernel's state is as wanted.
func eventually(t *testing.T, what string, wanted func() bool) {
	t.Helper()
	deadline := time.After(patience)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !wanted() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("%s: not so after %v", what, patience)
		}
	}
}

// A lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.b.Bytes(), []byte(s))
}
