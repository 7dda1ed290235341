package health

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Checks of many servers take little: half a core for 10,000 every five seconds, so
// 250 microseconds each.
func TestCost(t *testing.T) {
	const servers, rounds = 500, 8
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, last := make(chan struct{}), make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
			switch n {
			case servers:
				close(first)
			case (1 + rounds) * servers:
				close(last)
			}
		}
	}()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	changes := make(chan struct{}, servers)
	m := NewManager(Host{}, slog.New(slog.DiscardHandler), func(lvs.ServiceKey) {
		select {
		case changes <- struct{}{}:
		default: // more than what is waited for
		}
	})
	defer m.Close()
	check := lvs.Check{Type: lvs.CheckTCP, Path: lvs.PathRIP, Interval: 250 * time.Millisecond, Timeout: 200 * time.Millisecond, Rise: 1, Fall: 5, Jitter: 50 * time.Millisecond}
	var members []lvs.RealServer
	for i := range servers {
		r := member("127.0.0.1:1", 1)
		r.Address = netip.AddrFrom4([4]byte{127, 0, 1 + byte(i/250), 1 + byte(i%250)})
		r.Port = port
		members = append(members, r)
	}
	if err := m.Set([]Service{serviceOf(web, check, members...)}); err != nil {
		t.Fatal(err)
	}
	limit := time.After(waitLimit)
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-limit:
			t.Fatalf("%s: not in time", what)
		}
	}
	for range servers {
		wait("all servers are up", changes)
	}
	wait("the first checks", first)
	before := processorTime(t)
	wait("the last checks", last)
	each := (processorTime(t) - before) / (rounds * servers)
	t.Logf("a check takes %s, the server included", each)
	if each > 500*time.Microsecond { // on a busy machine, looked at for races
		t.Errorf("a check takes %s", each)
	}
}

// processorTime returns what this process has taken.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
