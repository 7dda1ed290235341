package ipvsadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A genuine is the ipvsadm of the system, with a kernelSide in the kernel's
// place.
type genuine struct {
	path    string // of ipvsadm
	preload string // testdata/kernel.c, compiled
	socket  string // where a run finds its kernelSide
	hosts   string // "ADDRESS NAME" lines
	// connections is the file in the place of /proc/net/ip_vs_conn.
	connections string
}

// mustGenuine finds ipvsadm 1.31 and compiles what it needs.
func mustGenuine(tb testing.TB) genuine {
	tb.Helper()
	missing := func(what, command string) {
		if os.Getenv("CI") != "" {
			tb.Fatalf("%s is not installed: %s", what, command)
		}
		tb.Skipf("%s is not installed: %s", what, command)
	}
	path, err := exec.LookPath("ipvsadm")
	if err != nil {
		missing("ipvsadm", "apt-get install ipvsadm")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		missing("a C compiler", "apt-get install gcc libc6-dev")
	}
	dir := tb.TempDir()
	connections, preload := filepath.Join(dir, "ip_vs_conn"), filepath.Join(dir, "kernel.so")
	if err := os.WriteFile(connections, []byte(procTitle), 0o600); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-Wall", "-Wextra", "-o", preload, "testdata/kernel.c").CombinedOutput(); err != nil {
		tb.Fatalf("compile testdata/kernel.c: %v\n%s", err, out)
	}
	return genuine{
		path: path, preload: preload, socket: filepath.Join(dir, "kernel"), hosts: hostsTable(), connections: connections,
	}
}

// run runs one command line on d.
func (g genuine) run(tb testing.TB, d Director, args []string, stdin string) outcome {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	listener, err := net.Listen("unixpacket", g.socket)
	if err != nil {
		tb.Fatal(err)
	}
	var served errgroup.Group
	served.Go(func() error {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil // closed below
			}
			served.Go(func() error { return kernelSide{d}.serve(ctx, conn) })
		}
	})
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, g.path, args...)
	cmd.Env = []string{"LD_PRELOAD=" + g.preload, "KERNEL=" + g.socket, "HOSTS=" + g.hosts, "IP_VS_CONN=" + g.connections, "LC_ALL=C"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err = cmd.Run()
	listener.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("ipvsadm %q: %v", args, err)
	}
	if err := served.Wait(); err != nil {
		tb.Fatalf("ipvsadm %q: %v", args, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// genuineNames are the names that a genuine ipvsadm sees: the hosts of its table
// and the services of the system.
type genuineNames struct {
	testNames
	system systemNames
}

func (n *genuineNames) port(service string, protocol lvs.Protocol) (uint16, bool) {
	return n.system.port(service, protocol)
}

func (n *genuineNames) service(port uint16, protocol lvs.Protocol) (string, bool) {
	return n.system.service(port, protocol)
}

var genuineHosts = map[netip.Addr]string{
	netip.MustParseAddr("192.0.2.10"):    "www.example.com",
	netip.MustParseAddr("198.51.100.11"): "a-host-with-a-name-of-forty-characters.example.com",
	netip.MustParseAddr("2001:db8::1"):   "six.example.com",
	netip.MustParseAddr("2001:db8::2"):   "a-host-with-a-name-of-more-than-sixty-characters-in-the-domain.example.com",
}

const procTitle = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"

// procConnections writes connections as /proc/net/ip_vs_conn has them.
func procConnections(connections []lvs.Connection) []byte {
	text := procTitle
	endpoint := func(ap netip.AddrPort) string {
		if ap.Addr().Is4() {
			return fmt.Sprintf("%08X %04X", addrToUint32(ap.Addr()), ap.Port())
		}
		return fmt.Sprintf("%s %04X", ap.Addr().StringExpanded(), ap.Port())
	}
	for _, c := range connections {
		text += fmt.Sprintf("%-3s %s %s %s %-11s %7d\n",
			c.Protocol, endpoint(c.Client), endpoint(c.Virtual), endpoint(c.Server), c.State, c.Expires/time.Second)
	}
	return []byte(text)
}

func hostsTable() string {
	var b strings.Builder
	for addr, name := range genuineHosts {
		fmt.Fprintln(&b, addr, name)
	}
	return b.String()
}

// compareRuns runs one command line on both, each on a director of its own, and
// compares what they print, their exit status and what became of the director. It
// returns what ours came to.
func compareRuns(t *testing.T, g genuine, theirs, ours *fakeDirector, args []string, stdin string) outcome {
	t.Helper()
	want := g.run(t, theirs, args, stdin)
	want.Stderr = strings.ReplaceAll(want.Stderr, g.path, "ipvsadm")
	want.Stdout = strings.ReplaceAll(want.Stdout, g.path, "ipvsadm")
	got := play(t.Context(), ours, &genuineNames{testNames: testNames{genuineHosts}}, args, stdin)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ipvsadm %q, input %q (-genuine +ours):\n%s", args, stdin, diff)
	}
	if diff := cmp.Diff(theirs.services, ours.services, compareAddrs); diff != "" {
		t.Errorf("after ipvsadm %q, input %q, the services (-genuine +ours):\n%s", args, stdin, diff)
	}
	if theirs.timeouts != ours.timeouts {
		t.Errorf("after ipvsadm %q the timeouts are %v, want %v", args, ours.timeouts, theirs.timeouts)
	}
	return got
}

// oddLines are command lines that a reader of the manual would not write.
var oddLines = []string{
	"-n", "-A", "-A -A", "-LA", "-L -n -n", "-L --sort --sort", "-L --nosort --nosort", "-L -n=", "-L -n=c", "-L=", "-L=n", "-Ln=", "-L -n=c=",
	"-L --numeric=", "-L --num", "-L --", "-- -L", "-", "--", "---list", "-list", "-L-n", "-L --=", "-L -=", "-L -w=", "-L -w==4",
	"-A -p -f 1", "-A -f 1 -p5", "-A -f 2 -p=5", "-A -f 3 -p= 5", "-A -f 3 -p 5 6", "-A -f 4 --persistent=7", "-A -f 5 --persistent=",
	"-A -6 -f 1", "-A -f 6 -6 -6 -M 64", "-A -f 7 -M 64 -6 -p", "-A -t [2001:db8::1]:80 -M 64 -p", "-A -M 64 -t [2001:db8::2]:80 -p",
	"-A -b sh-port -s sh -f 8", "-A -f 9 -b sh-port", "-A -f 9 -b flag-3,,flag-1", "-L -f 9", "-A -f 10 -s sh -b flag-3,sh-port", "-L -f 10", "-D -b nosuch", "-A -b nosuch extra", "-h -q", "-v extra", "-A -h",
	"-a -r 198.51.100.11 -f 1", "-a -r 198.51.100.12:http -f 1", "-a -f 1 -r 198.51.100.12:http", "-d -f 1 -r 198.51.100.12:http",
	"--set 1 2", "--set 1 2 3 4", "--set -- 1 2 3", "--set 1 -n 2 3", "--set 0 0 2678400", "--set 0 0 2678401",
	"-R extra", "-R -n", "-R -R", "-S -c", "-Z -n", "-C -n", "-C -t 192.0.2.1:80", "-L -t 192.0.2.1:80 -c", "-L --timeout --daemon",
	"-L -c --tun-info", "-L --timeout --tun-info", "-L --daemon --tun-info", "-L --timeout --persistent-conn", "-L -c --persistent-conn", "-L --syncid 5",
	"-X", "-L -X", "-L -q", "-L -nq", "-A -t", "-A -f 1 -s", "-L --stats --rate --thresholds", "-L --rate --thresholds", "-L --thresholds --persistent-conn",
	"-L --persistent-conn --tun-info", "--start-daemon", "--start-daemon nosuch", "--start-daemon --syncid 5", "--start-daemon master extra",
	"--stop-daemon", "--stop-daemon nosuch", "--stop-daemon master --mcast-ttl 5", "--start-daemon=nosuch", "-L --start-daemon master",
}

// TestGenuineOddLines compares odd command lines with the genuine ipvsadm.
func TestGenuineOddLines(t *testing.T) {
	g := mustGenuine(t)
	theirs, ours := newFakeDirector(), newFakeDirector()
	for _, line := range oddLines {
		compareRuns(t, g, theirs, ours, strings.Fields(line), "")
	}
}

// TestGenuine compares random command lines, right and wrong, with the genuine
// ipvsadm.
func TestGenuine(t *testing.T) {
	g := mustGenuine(t)
	seed, runs := randomSeed(t), 1000
	random := rand.New(rand.NewPCG(seed, 0))
	theirs, ours := newFakeDirector(), newFakeDirector()
	changes := 0
	for range runs {
		args := randomLine(random)
		stdin := ""
		if random.IntN(12) == 0 {
			args = []string{"-R"}
			for range random.IntN(4) {
				stdin += randomRestoreLine(random)
			}
		}
		if concernsDaemon(args, stdin) {
			continue
		}
		compareRuns(t, g, theirs, ours, args, stdin)
		if t.Failed() {
			t.FailNow()
		}
		if len(theirs.services) > 12 {
			changes += theirs.changes
			theirs, ours = newFakeDirector(), newFakeDirector()
		}
	}
	if changes += theirs.changes; changes < runs/10 {
		t.Errorf("%d of %d random command lines changed something: too few to compare anything but complaints", changes, runs)
	}
}

// concernsDaemon reports whether a command line may start or stop a sync
// daemon, which is refused here in other words.
func concernsDaemon(args []string, stdin string) bool {
	return strings.Contains(strings.Join(args, " ")+stdin, "-daemon")
}

// TestGenuineListings compares the listings of random tables with the genuine
// ipvsadm, in every layout.
func TestGenuineListings(t *testing.T) {
	g := mustGenuine(t)
	random := rand.New(rand.NewPCG(randomSeed(t), 0))
	for range 12 {
		d := newFakeDirector()
		d.services = randomServices(random)
		d.connections = randomConnections(random)
		if err := os.WriteFile(g.connections, procConnections(d.connections), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, layout := range []string{"", "--stats", "--rate", "--thresholds", "--persistent-conn", "--tun-info", "-S", "-c"} {
			for _, more := range []string{"", "-n", "--exact", "--nosort", "--nosort --exact -n"} {
				args := strings.Fields("-L " + layout + " " + more)
				if layout == "-S" {
					args = strings.Fields("-S " + map[bool]string{true: "-n"}[strings.Contains(more, "-n ")])
				}
				compareRuns(t, g, d, d, args, "")
				if t.Failed() {
					t.FailNow()
				}
			}
		}
	}
}
