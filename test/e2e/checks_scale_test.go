package e2e

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// checkedServices is how many services of ten real servers are checked; a thousand of
// them are to take less than half a core.
var checkedServices = flag.Int("checked-services", 20, "services of ten real servers that TestManyChecks checks every five seconds")

// Checks of the VIP of many servers take little of a processor.
func TestManyChecks(t *testing.T) {
	const servers, firstPort, interval = 10, 2000, 5 * time.Second
	l := mustUpAs(t, lab.Config{Name: "many", Directory: labDirectory(t), Servers: servers})
	var arrived atomic.Int64
	var text strings.Builder
	fmt.Fprintf(&text, "checks:\n  it: {type: tcp, interval: %s, timeout: 2s, rise: 1, fall: 3}\nservices:\n", interval)
	for i := range *checkedServices {
		port := firstPort + i
		fmt.Fprintf(&text, "  - address: tcp:%s:%d\n    scheduler: rr\n    checks: [it]\n    servers:\n", lab.IPv4.VIP(), port)
		for _, host := range l.Servers() {
			fmt.Fprintf(&text, "      - %s\n", host.Address(lab.IPv4))
			serve(t, l, host.Name, netip.AddrPortFrom(lab.IPv4.VIP(), uint16(port)), func(net.Conn) { arrived.Add(1) })
		}
	}
	file := filepath.Join(t.TempDir(), "many.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	mustOutput(t, l, lab.Director, "fairlead", "apply", "-f", file)
	t.Logf("%d services with %d checks applied in %s", *checkedServices, *checkedServices*servers, time.Since(begin).Round(time.Millisecond))
	// To ask the director about ten thousand servers is work: it is asked when they were.
	eventually(t, time.Minute, "all servers are asked", func() bool { return arrived.Load() >= int64(*checkedServices*servers) })
	eventually(t, time.Minute, "all servers are up", func() bool { return countHealth(t, l, lvs.HealthUp) == *checkedServices*servers })
	t.Logf("all are up after %s", time.Since(begin).Round(time.Millisecond))

	before, since := processorTime(t, l), time.Now()
	from, round := arrived.Load(), int64(*checkedServices*servers)
	eventually(t, 10*interval, "a round of checks", func() bool { return arrived.Load() >= from+round })
	share := (processorTime(t, l) - before).Seconds() / time.Since(since).Seconds()
	t.Logf("%d checks a second take %.3f of a core", *checkedServices*servers/int(interval/time.Second), share)
	if up := countHealth(t, l, lvs.HealthUp); up != *checkedServices*servers {
		t.Errorf("%d of %d servers are up", up, *checkedServices*servers)
	}
	if share > 0.5 {
		t.Errorf("%.3f of a core", share)
	}
}

func countHealth(t *testing.T, l *lab.Lab, state lvs.HealthState) (count int) {
	t.Helper()
	for _, s := range mustServices(t, l) {
		for _, r := range s.All() {
			if r.Health.State == state {
				count++
			}
		}
	}
	return count
}

// processorTime returns what the director's daemon has used so far.
func processorTime(t *testing.T, l *lab.Lab) time.Duration {
	t.Helper()
	pid, ok := l.PID(lab.Director)
	if !ok {
		t.Fatal("no director")
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name, which may hold anything, stands in parentheses.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const user, system, hz = 11, 12, 100
	var ticks int
	for _, field := range []int{user, system} {
		n, err := strconv.Atoi(fields[field])
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hz
}
