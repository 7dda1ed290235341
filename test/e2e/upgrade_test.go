package e2e

import (
	"flag"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The long proofs take their size from here: -upgrades 20 -crashes 100.
var (
	upgrades = flag.Int("upgrades", 2, "how many `times` the director hands over to another binary")
	crashes  = flag.Int("crashes", 3, "how many `times` the director is killed")
)

// rebuilt is the version that mustRebuild gives the program.
const rebuilt = "v2-rebuilt"

// mustRebuild builds the program as another version.
func mustRebuild(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fairlead")
	build := exec.Command("go", "build", "-o", path,
		"-ldflags", "-X github.com/fairlead-lb/fairlead/internal/cli.version="+rebuilt, "../../cmd/fairlead")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return path
}

// counted returns how many packets to its service a director has counted.
func counted(t *testing.T, l *lab.Lab, key lvs.ServiceKey) int {
	t.Helper()
	client := l.DirectorClient()
	defer client.Close()
	service, err := client.Service(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return int(service.Counters.InPackets)
}

// mustGoOnCounting returns how many packets have been counted, no fewer than the last time.
func mustGoOnCounting(t *testing.T, l *lab.Lab, key lvs.ServiceKey, last int) int {
	t.Helper()
	now := counted(t, l, key)
	if now < last {
		t.Errorf("%d packets were counted, now %d", last, now)
	}
	return now
}

// checkCounted compares with what the kernels of the real servers have received, all
// of which came through the director.
func checkCounted(t *testing.T, load *load, key lvs.ServiceKey) {
	t.Helper()
	eventually(t, 30*time.Second, "the director has counted what the real servers have received", func() bool {
		received, counted := load.snmp(inSegs), counted(t, load.lab, key)
		t.Logf("the real servers have received %d segments, the director has counted %d", received, counted)
		return received == counted
	})
}

// The director is upgraded, to and fro, while requests come in: none fails, no
// packet is missed by the counters, and the one that was open before goes on.
func TestUpgrade(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	l := mustUp(t, labDirectory(t), "upgrade")
	address := service(lab.IPv4, lab.HTTPPort)
	key := lvs.ServiceKey{Protocol: lvs.TCP, Address: address.Addr(), Port: address.Port()}
	mustAddService(t, l, "-t", address, lvs.WeightedLeastConnection)
	binaries := []string{mustRebuild(t), binary}

	conn, err := l.Dial(t.Context(), lab.Client, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := mustAsk(t, conn)
	saved := mustOutput(t, l, lab.Director, "ipvsadm", "-Sn")

	load := newLoad(t, l, address)
	last := counted(t, l, key)
	for i := range *upgrades {
		load.awaitProgress()
		start := time.Now()
		if err := l.Upgrade(t.Context(), binaries[i%2]); err != nil {
			t.Fatal(err)
		}
		t.Logf("upgrade %d took %s", i+1, time.Since(start).Round(time.Millisecond))
		isRebuilt := strings.Contains(mustOutput(t, l, lab.Director, "fairlead", "status"), rebuilt)
		if isRebuilt != (i%2 == 0) {
			t.Fatalf("upgrade %d: the rebuilt binary runs: %t", i+1, isRebuilt)
		}
		last = mustGoOnCounting(t, l, key, last)
		load.awaitProgress()
	}
	load.finish()
	checkCounted(t, load, key)
	if diff := cmp.Diff(saved, mustOutput(t, l, lab.Director, "ipvsadm", "-Sn")); diff != "" {
		t.Errorf("the services after %d upgrades (-before +after):\n%s", *upgrades, diff)
	}
	if after := mustAsk(t, conn); after != before {
		t.Errorf("the open connection was with %s, and is with %s", before, after)
	}
}

// A director that is not asked to take over leaves the one that runs alone, and says
// what can be done.
func TestTwoDirectors(t *testing.T) {
	l := mustUp(t, labDirectory(t), "two")
	_, err := l.Output(t.Context(), lab.Director, "fairlead", "director", "--interface", "eth0")
	if err == nil || !strings.Contains(err.Error(), "a director runs already (pid ") || !strings.Contains(err.Error(), "--take-over") {
		t.Errorf("a second director: %v", err)
	}
	mustOutput(t, l, lab.Director, "fairlead", "status")
}

// randomly waits for a moment that nobody can foresee, at most a quarter of a second.
func randomly() { <-time.After(time.Duration(rand.Int64N(int64(250 * time.Millisecond)))) }

// The director is killed at any moment, also while it starts: no request fails, and
// no packet is missed by the counters.
func TestKilledAtRandom(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	l := mustUp(t, labDirectory(t), "killed")
	address := service(lab.IPv4, lab.HTTPPort)
	key := lvs.ServiceKey{Protocol: lvs.TCP, Address: address.Addr(), Port: address.Port()}
	mustAddService(t, l, "-t", address, lvs.RoundRobin)
	load := newLoad(t, l, address)
	last := 0
	for range *crashes {
		randomly()
		if err := l.Kill(t.Context(), lab.Director); err != nil {
			t.Fatal(err)
		}
		halfway, err := l.Command(t.Context(), lab.Director, "fairlead", "director", "--interface", "eth0")
		if err == nil {
			err = l.Begin(lab.Director, halfway)
		}
		if err != nil {
			t.Fatal(err)
		}
		randomly()
		if err := halfway.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := halfway.Wait(); err == nil {
			t.Error("the director that was killed while it started ended well")
		}
		if err := l.Start(t.Context(), lab.Director); err != nil {
			t.Fatal(err)
		}
		last = mustGoOnCounting(t, l, key, last)
	}
	load.awaitProgress()
	load.finish()
	checkCounted(t, load, key)
}
