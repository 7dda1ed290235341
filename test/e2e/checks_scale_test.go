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

// The proof is made with a thousand services, for half a minute: -checked-services 1000
// -checked-for 30s.
var (
	checkedServices = flag.Int("checked-services", 20, "`services` of ten real servers that TestManyChecks checks every five seconds")
	checkedFor      = flag.Duration("checked-for", 5*time.Second, "for `how long` it looks what that takes")
)

// What applying, and reading while checks go on, may take of a thousand services.
const (
	applyLimit  = 2 * time.Second
	statusLimit = time.Second
)

// Checks of the VIP of many servers take little of a processor, and hold nobody up.
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
	mustOutputWithin(t, l, applyLimit, "fairlead", "apply", "-f", file)
	mustOutputWithin(t, l, statusLimit, "fairlead", "status", "-o", "json")
	// To ask the director about ten thousand servers is work: it is asked when they were.
	eventually(t, time.Minute, "all servers are asked", func() bool { return arrived.Load() >= int64(*checkedServices*servers) })
	eventually(t, time.Minute, "all servers are up", func() bool { return countHealth(t, l, lvs.HealthUp) == *checkedServices*servers })
	t.Logf("all are up after %s", time.Since(begin).Round(time.Millisecond))

	before, since := processorTime(t, l), time.Now()
	from, wanted := arrived.Load(), int64(*checkedServices*servers)*int64(*checkedFor)/int64(interval)
	eventually(t, 10*interval+2**checkedFor, "rounds of checks", func() bool { return arrived.Load() >= from+wanted })
	took := time.Since(since).Seconds()
	share := (processorTime(t, l) - before).Seconds() / took
	t.Logf("%.0f checks a second take %.3f of a core", float64(arrived.Load()-from)/took, share)
	mustOutputWithin(t, l, statusLimit, "fairlead", "status", "-o", "json")
	if up := countHealth(t, l, lvs.HealthUp); up != *checkedServices*servers {
		t.Errorf("%d of %d servers are up", up, *checkedServices*servers)
	}
	if share > 0.5 {
		t.Errorf("%.3f of a core", share)
	}
}

// mustOutputWithin runs a command on the director, which may take so long.
func mustOutputWithin(t *testing.T, l *lab.Lab, limit time.Duration, args ...string) {
	t.Helper()
	begin := time.Now()
	mustOutput(t, l, lab.Director, args[0], args[1:]...)
	took := time.Since(begin)
	t.Logf("%s: %s", strings.Join(args[:2], " "), took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("%s takes %s, more than %s", strings.Join(args[:2], " "), took.Round(time.Millisecond), limit)
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
