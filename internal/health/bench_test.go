package health

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var (
	web  = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	web6 = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("2001:db8::100"), Port: 80}
)

func member(address string, weight uint32) lvs.RealServer {
	at := netip.MustParseAddrPort(address)
	return lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: at.Addr(), Port: at.Port()}, Method: lvs.DirectRouting, Weight: weight,
	}
}

// waitLimit is for what must come.
const waitLimit = 10 * time.Second

// A fakeNetwork answers by target: nil is a connection, nobody known
// is silence. It wakes who waits at each question.
type fakeNetwork struct {
	wake    func()
	mu      sync.Mutex
	answers map[string]error
	dials   map[string]int
}

func newFakeNetwork(wake func()) *fakeNetwork {
	return &fakeNetwork{wake: wake, answers: map[string]error{}, dials: map[string]int{}}
}

// nameOfTarget returns "vip 192.0.2.100:80 by 192.0.2.11" or "rip 192.0.2.11:80".
func nameOfTarget(t Target) string {
	if t.Path == lvs.PathVIP {
		return "vip " + t.Address.String() + " by " + t.Server.Address.String()
	}
	return "rip " + t.Address.String()
}

func (n *fakeNetwork) set(name string, answer error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[name] = answer
}

func (n *fakeNetwork) silence(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.answers, name)
}

func (n *fakeNetwork) dialed(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[name]
}

func (n *fakeNetwork) Dial(ctx context.Context, _ string, target Target) (net.Conn, error) {
	name := nameOfTarget(target)
	n.mu.Lock()
	n.dials[name]++
	answer, known := n.answers[name]
	n.mu.Unlock()
	n.wake()
	if !known {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if answer != nil {
		return nil, answer
	}
	near, _ := net.Pipe()
	return near, nil
}

// A bench is a manager whose questions and changes wake who waits for what comes of
// them.
type bench struct {
	*Manager
	network *fakeNetwork
	woken   chan struct{}
}

func newBench(t *testing.T) *bench {
	b := &bench{woken: make(chan struct{}, 1)}
	b.network = newFakeNetwork(b.wake)
	b.Manager = NewManager(b.network, slog.New(slog.DiscardHandler), func(lvs.ServiceKey) { b.wake() })
	t.Cleanup(b.Close)
	return b
}

func (b *bench) wake() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

func (b *bench) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition: it looks at each change and at each question, for
// what the one before has come to.
func (b *bench) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	limit := time.After(waitLimit)
	for !is() {
		select {
		case <-b.woken:
		case <-limit:
			t.Fatalf("%s: not in time", what)
		}
	}
}

// pass lets time go by in a bubble of synctest, where it takes none, and returns when
// all that was due is done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (b *bench) becomes(t *testing.T, key lvs.ServiceKey, server lvs.RealServer, state lvs.HealthState, cause Cause) {
	t.Helper()
	var got lvs.HealthStatus
	defer func() {
		if t.Failed() {
			t.Logf("last: %+v", got)
		}
	}()
	b.until(t, string(state)+" "+string(cause), func() bool {
		got = b.Server(key, server.RealServerKey)
		return got.State == state && got.Cause == string(cause)
	})
}

func tcpCheck(path lvs.CheckPath) lvs.Check {
	return lvs.Check{
		Type: lvs.CheckTCP, Path: path, Interval: 20 * time.Millisecond, Timeout: 20 * time.Millisecond, Rise: 2, Fall: 2,
	}
}

func serviceOf(key lvs.ServiceKey, check lvs.Check, members ...lvs.RealServer) Service {
	s := Service{ServiceHealth: lvs.ServiceHealth{ServiceKey: key}, Members: members}
	for _, m := range members {
		s.Servers = append(s.Servers, lvs.ServerHealth{RealServerKey: m.RealServerKey, Checks: []lvs.Check{check}})
	}
	return s
}
