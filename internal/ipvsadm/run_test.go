package ipvsadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// compareAddrs lets cmp compare addresses, which it can't look into.
var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func mustRun(tb testing.TB, d Director, args ...string) outcome {
	tb.Helper()
	out := play(tb.Context(), d, testNames{}, args, "")
	if out.Status != statusOK {
		tb.Fatalf("ipvsadm %q: %+v", args, out)
	}
	return out
}

// TestRequests checks what the director is asked for: the options that no
// listing shows, and the defaults.
func TestRequests(t *testing.T) {
	key := lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.10"), Port: 80}
	server := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr("198.51.100.11"), Port: 80},
		Method:        lvs.DirectRouting,
		Weight:        1,
	}
	d := newFakeDirector()
	mustRun(t, d, "-A", "-t", "192.0.2.10:80", "-M", "255.255.255.0")
	mustRun(t, d, "-a", "-t", "192.0.2.10:80", "-r", "198.51.100.11:8080", "-x", "9", "-y", "3")
	server.UpperThreshold, server.LowerThreshold = 9, 3
	want := []lvs.ServiceStatus{{
		Service: lvs.Service{ServiceKey: key, Scheduler: lvs.WeightedLeastConnection},
		Servers: []lvs.RealServerStatus{{RealServer: server}},
	}}
	if diff := cmp.Diff(want, d.services, compareAddrs); diff != "" {
		t.Errorf("after -A and -a (-want +got):\n%s", diff)
	}

	mustRun(t, d, "-E", "-t", "192.0.2.10:80", "-s", "sh", "-b", "sh-port", "-p", "-M", "255.255.255.0", "--pe", "sip")
	mustRun(t, d, "-e", "-t", "192.0.2.10:80", "-r", "198.51.100.11", "-i", "--tun-type", "gue", "--tun-port", "6080", "--tun-remcsum", "-w", "0")
	server.UpperThreshold, server.LowerThreshold, server.Weight, server.Method = 0, 0, 0, lvs.Tunnelling
	server.Tunnel = lvs.Tunnel{Type: lvs.GUE, Port: 6080, Checksum: lvs.RemoteChecksum}
	want = []lvs.ServiceStatus{{
		Service: lvs.Service{
			ServiceKey: key, Scheduler: lvs.SourceHashing, SchedulerFlags: lvs.SHPort,
			PersistenceTimeout: 360 * time.Second, PersistenceMask: 0xffffff00, PersistenceEngine: "sip",
		},
		Servers: []lvs.RealServerStatus{{RealServer: server}},
	}}
	if diff := cmp.Diff(want, d.services, compareAddrs); diff != "" {
		t.Errorf("after -E and -e (-want +got):\n%s", diff)
	}
}

// TestRefusals checks how each refusal of a director ends, by itself and in -R.
func TestRefusals(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("add service TCP 192.0.2.10:80: %w", err) }
	for _, test := range []struct {
		err    error
		args   string
		status int
		stderr string
	}{
		{wrap(lvs.ErrUnsupported), "-A -t 192.0.2.10:80", 1, "ipvsadm: add service TCP 192.0.2.10:80: not supported yet\n"},
		{wrap(lvs.ErrTableFull), "-A -t 192.0.2.10:80", 255, "Memory allocation problem\n"},
		{wrap(lvs.ErrInvalid), "-A -t 192.0.2.10:80", 255, "Invalid operation.  Possibly wrong module version, address not unicast, ...\n"},
		{wrap(lvs.ErrNoService), "-a -t 192.0.2.10:80 -r 198.51.100.11", 255, "Service not defined\n"},
		{wrap(lvs.ErrNoService), "-Z -t 192.0.2.10:80", 255, "No such service\n"},
		{wrap(lvs.ErrNoService), "-L -t 192.0.2.10:80", 1, "No such service\n"},
		{errors.New("connection refused"), "-C", 1, "ipvsadm: connection refused\n"},
		{errors.New("connection refused"), "-Ln", 1, "ipvsadm: connection refused\n"},
		{errors.New("connection refused"), "-Lcn", 1, "ipvsadm: connection refused\n"},
		{errors.New("connection refused"), "-S", 1, "ipvsadm: connection refused\n"},
		{errors.New("connection refused"), "-L --timeout", 1, "ipvsadm: connection refused\n"},
		{nil, "--start-daemon master", 1, "ipvsadm: start the sync daemon: not supported yet\n"},
	} {
		d := newFakeDirector()
		d.failure = test.err
		got := play(t.Context(), d, testNames{}, strings.Fields(test.args), "")
		got.Stdout = ""
		if want := (outcome{test.status, "", test.stderr}); got != want {
			t.Errorf("ipvsadm %s, director says %v: %+v, want %+v", test.args, test.err, got, want)
		}
	}
}

// TestUnreachable checks that a director that can't be reached is said once and
// ends -R, and that a wrong command line, help and version never reach for one.
func TestUnreachable(t *testing.T) {
	for _, test := range []struct {
		args, stdin string
		status      int
		stderr      string
		attempts    int
	}{
		{"-Ln", "", 1, "ipvsadm: no director\n", 1},
		{"", "", 1, "ipvsadm: no director\n", 1},
		{"-R", "-C\n-C\n", 1, "ipvsadm: no director\n", 1},
		{"-R", "\n", 0, "", 0},
		{"-A", "", 2, "You need to supply the 'service-address' option for the 'add-service' command\n", 0},
		{"-Q", "", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n", 0},
		{"-h", "", 0, "", 0},
		{"-v", "", 0, "", 0},
		{"-L --daemon", "", 0, "", 0},
	} {
		attempts := 0
		connect := func(context.Context) (Director, error) {
			attempts++
			return nil, errors.New("no director")
		}
		var stderr bytes.Buffer
		status := Run(t.Context(), connect, strings.Fields(test.args), strings.NewReader(test.stdin), io.Discard, &stderr)
		if status != test.status || stderr.String() != test.stderr || attempts != test.attempts {
			t.Errorf("ipvsadm %s: status %d, %q, %d attempts; want %d, %q, %d",
				test.args, status, stderr.String(), attempts, test.status, test.stderr, test.attempts)
		}
	}
}

// TestRestoreGoesOn checks that -R goes on after a refusal, and what its status
// is.
func TestRestoreGoesOn(t *testing.T) {
	d := newFakeDirector()
	got := play(t.Context(), d, testNames{}, []string{"-R"},
		"-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80\nipvsadm -A -t 192.0.2.2:80 -q\n\n-A -t 192.0.2.2:80\n")
	if want := (outcome{0, "", "Service already exists\n-q: unknown option\n"}); got != want {
		t.Errorf("-R: %+v, want %+v", got, want)
	}
	if len(d.services) != 2 {
		t.Errorf("-R left %d services, want 2", len(d.services))
	}
}

// TestOutputFails checks that a listing that can't be written is a failure.
func TestOutputFails(t *testing.T) {
	d := newFakeDirector()
	d.connections = slices.Repeat(randomConnections(rand.New(rand.NewPCG(1, 1))), 500)
	for _, args := range []string{"-Ln", "-Lcn"} {
		var stderr bytes.Buffer
		status := Run(t.Context(), d.connect, strings.Fields(args), nil, brokenWriter{}, &stderr)
		if status != statusFailed || !strings.HasSuffix(stderr.String(), "broken pipe\n") {
			t.Errorf("ipvsadm %s into a broken pipe: status %d, %q", args, status, stderr.String())
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestSaveRestores checks that -R makes what -S printed of random tables that
// were made by command lines.
func TestSaveRestores(t *testing.T) {
	random := rand.New(rand.NewPCG(randomSeed(t), 0))
	for range 200 {
		d := newFakeDirector()
		for range 60 {
			play(t.Context(), d, testNames{}, randomLine(random), "")
		}
		saved := mustRun(t, d, "-S", "-n").Stdout
		again := newFakeDirector()
		if got := play(t.Context(), again, testNames{}, []string{"-R"}, saved); got != (outcome{}) {
			t.Fatalf("-R of\n%s\n%+v", saved, got)
		}
		if diff := cmp.Diff(saved, mustRun(t, again, "-S", "-n").Stdout); diff != "" {
			t.Fatalf("-S, -R, -S (-first +second):\n%s", diff)
		}
	}
}

// TestSaveMends checks what ipvsadm -S prints wrong: marks from 2147483648 as
// negative numbers, and of sh and mh no third flag.
func TestSaveMends(t *testing.T) {
	d := newFakeDirector()
	want := "-A -f 1 -s sh -b sh-port,flag-3\n-A -f 2 -s mh -b mh-stable\n-A -f 3 -s rr -b flag-1,flag-3\n"
	for line := range strings.Lines(want) {
		mustRun(t, d, strings.Fields(line)...)
	}
	if got := mustRun(t, d, "-S").Stdout; got != want {
		t.Errorf("-S:\n%s\nwant:\n%s", got, want)
	}
	want = "-A -f 4294967295 -s rr\n-a -f 4294967295 -r 198.51.100.11:0 -g -w 1\n"
	d = newFakeDirector()
	if got := play(t.Context(), d, testNames{}, []string{"-R"}, want); got != (outcome{}) {
		t.Fatalf("-R of\n%s\n%+v", want, got)
	}
	if got := mustRun(t, d, "-S").Stdout; got != want {
		t.Errorf("-S:\n%s\nwant:\n%s", got, want)
	}
}

// FuzzCommandLine checks that no command line crashes, and that a wrong one
// changes nothing and says why.
func FuzzCommandLine(f *testing.F) {
	for _, line := range oddLines {
		f.Add(line, "")
	}
	for _, c := range mustVectors(f) {
		for _, step := range c.Steps {
			if step.Run != nil {
				f.Add(strings.Join(step.Run.Args, " "), step.Run.Stdin)
			}
		}
	}
	f.Fuzz(func(t *testing.T, line, stdin string) { checkLine(t, strings.Split(line, " "), stdin) })
}

// TestRandomLines does as FuzzCommandLine, with random command lines.
func TestRandomLines(t *testing.T) {
	random := rand.New(rand.NewPCG(randomSeed(t), 0))
	for range 20000 {
		checkLine(t, randomLine(random), randomRestoreLine(random))
	}
}

func checkLine(t *testing.T, args []string, stdin string) {
	t.Helper()
	d := newFakeDirector()
	mustRun(t, d, "-A", "-f", "1")
	mustRun(t, d, "-a", "-f", "1", "-r", "198.51.100.11")
	changes := d.changes
	got := play(t.Context(), d, testNames{}, args, stdin)
	if !slices.Contains([]int{statusOK, statusFailed, statusUsage, statusRefused}, got.Status) {
		t.Errorf("ipvsadm %q: status %d", args, got.Status)
	}
	if got.Status != statusOK && got.Stderr == "" {
		t.Errorf("ipvsadm %q: status %d without a word", args, got.Status)
	}
	restoring := len(args) > 0 && (args[0] == "-R" || args[0] == "--restore")
	if got.Status != statusOK && d.changes != changes && !restoring {
		t.Errorf("ipvsadm %q: status %d, %q, but changed something", args, got.Status, got.Stderr)
	}
}

// BenchmarkListConnections prints a table of connections with -Lcn, in rows.
func BenchmarkListConnections(b *testing.B) {
	d := newFakeDirector()
	d.connections = make([]lvs.Connection, b.N)
	for i := range d.connections {
		d.connections[i] = lvs.Connection{
			Protocol: lvs.TCP,
			Client:   netip.AddrPortFrom(addrFromUint32(0xc6120000+uint32(i)&0x1ffff), uint16(i)),
			Virtual:  netip.MustParseAddrPort("192.0.2.100:80"),
			Server:   netip.MustParseAddrPort("198.51.100.11:80"),
			State:    lvs.StateEstablished,
			Expires:  899 * time.Second,
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	if status := Run(b.Context(), d.connect, []string{"-Lcn"}, nil, io.Discard, io.Discard); status != statusOK {
		b.Fatalf("status %d", status)
	}
}
