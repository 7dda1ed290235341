package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// binary is the program under test; TestMain builds it.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	directory, err := os.MkdirTemp("", "fairlead")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(directory)
	binary = filepath.Join(directory, "fairlead")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/fairlead")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	return m.Run()
}

// missing skips a test for what it lacks; in CI that is a failure.
func missing(t *testing.T, what, remedy string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s: %s", what, remedy)
	}
	t.Skipf("needs %s: %s", what, remedy)
}

func requireCommand(t *testing.T, name, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(t, name, "apt-get install "+debianPackage)
	}
}

// labDirectory returns a directory for labs whose path is short enough for a
// Unix socket, and checks in the end that nothing is left in it.
func labDirectory(t *testing.T) string {
	t.Helper()
	testhost.NeedRoot(t)
	directory, err := os.MkdirTemp("", "labs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkNothingLeft(t, directory)
		if err := os.Remove(directory); err != nil {
			t.Error(err)
		}
	})
	return directory
}

// checkNothingLeft looks for what a lab that was taken down may have left.
func checkNothingLeft(t *testing.T, directory string) {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the directory of labs: %v, %v", entries, err)
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mountinfo)) {
		if strings.Contains(line, directory) {
			t.Errorf("left mounted: %s", line)
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		// A process that has ended since is not left.
		environment, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		command, _ := os.ReadFile(path)
		if bytes.Contains(environment, []byte("="+directory+"/")) || bytes.Contains(command, []byte(directory+"/")) {
			t.Errorf("left running: %q", bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		}
	}
}

// mustUp builds a lab of two real servers, and takes it down with the test.
func mustUp(t *testing.T, directory, name string) *lab.Lab {
	t.Helper()
	return mustUpAs(t, lab.Config{Name: name, Directory: directory, Servers: 2})
}

// mustUpAs builds the lab of a configuration, with the program under test, and takes
// it down with the test.
func mustUpAs(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	config.Binary = binary
	l, err := lab.Up(t.Context(), config, func(step string) { t.Log(step) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// mustServices returns what the director serves.
func mustServices(t *testing.T, l *lab.Lab) []lvs.ServiceStatus {
	t.Helper()
	client := l.DirectorClient()
	defer client.Close()
	services, err := client.Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return services
}

// serve has a host of the lab answer, one after another, those who connect to a port of
// one of its addresses, or of any if that is not valid, until the test ends.
func serve(t *testing.T, l *lab.Lab, host string, at netip.AddrPort, answer func(net.Conn)) {
	t.Helper()
	var listener net.Listener
	err := l.Within(host, func() (err error) {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: at.Addr().AsSlice(), Port: int(at.Port())})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
}

// service returns the address of a service on the VIP.
func service(family lab.Family, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(family.VIP(), port)
}

func mustAddService(t *testing.T, l *lab.Lab, protocol string, address netip.AddrPort, scheduler lvs.Scheduler) {
	t.Helper()
	family := lab.IPv4
	if address.Addr().Is6() {
		family = lab.IPv6
	}
	err := l.AddService(t.Context(), protocol, address, lab.Options{Scheduler: scheduler, Weights: []int{4, 2}, Family: family})
	if err != nil {
		t.Fatal(err)
	}
}

func mustOutput(t *testing.T, l *lab.Lab, host, name string, args ...string) string {
	t.Helper()
	out, err := l.Output(t.Context(), host, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually waits until the condition holds, and fails the test if it does not
// in time. It returns how long it took.
func eventually(t *testing.T, within time.Duration, what string, condition func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		if time.Since(start) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-ticker.C
	}
	return time.Since(start)
}

// A command is fairlead's command line in a process of its own.
type command struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
}

func newCommand(t *testing.T, directory string, args ...string) *command {
	t.Helper()
	c := &command{Cmd: exec.CommandContext(t.Context(), binary, args...)}
	c.Env = append(os.Environ(), "FAIRLEAD_LAB_DIR="+directory)
	c.Stdout, c.Stderr = &c.stdout, &c.stderr
	return c
}

// mustRun returns what the command prints.
func mustRun(t *testing.T, directory string, args ...string) string {
	t.Helper()
	c := newCommand(t, directory, args...)
	if err := c.Run(); err != nil {
		t.Fatalf("fairlead %s: %v\n%s%s", strings.Join(args, " "), err, &c.stdout, &c.stderr)
	}
	return c.stdout.String()
}

// exitStatus returns the status of a command that was run, -1 for one that a
// signal ended.
func exitStatus(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.ExitCode()
}
