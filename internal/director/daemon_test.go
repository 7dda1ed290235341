package director

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// The daemon is tested as a process of its own, in a network namespace: the test
// binary, told by this variable to be a director of that run directory.
const (
	runDirVariable = "FAIRLEAD_TEST_DIRECTOR"
	unloadVariable = "FAIRLEAD_TEST_UNLOAD"
	// takeOverVariable has a director ask the one that runs to hand over.
	takeOverVariable = "FAIRLEAD_TEST_TAKE_OVER"
	waitLimit        = 40 * time.Second
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(runDirVariable) != "":
		err = runTestDirector(os.Getenv(runDirVariable))
	case os.Getenv(unloadVariable) != "":
		err = Unload(os.Getenv(unloadVariable), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runTestDirector(runDir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	return Run(ctx, Config{
		RunDir: runDir, Interfaces: []string{"eth0"}, Connections: 4096, Version: "test",
		NotifySocket: os.Getenv("NOTIFY_SOCKET"), TakeOver: os.Getenv(takeOverVariable) != "",
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// A host is a network namespace with eth0, wired to another's.
type host struct{ testhost.Namespace }

// in calls do on a thread that is in the host's namespace.
func (h host) in(t *testing.T, do func() error) {
	t.Helper()
	if err := h.Do(do); err != nil {
		t.Fatal(err)
	}
}

// newRunDir makes a director's run directory. What it mounts there is unmounted.
func newRunDir(t *testing.T) string {
	t.Helper()
	runDir := t.TempDir()
	t.Cleanup(func() { unix.Unmount(pinDir(runDir), unix.MNT_DETACH) })
	return runDir
}

// connect returns a client of the director that is, or will be, in a run directory, and
// a context for its requests.
func connect(t *testing.T, runDir string) (*api.Client, context.Context) {
	t.Helper()
	client := api.NewClient(filepath.Join(runDir, api.SocketName))
	ctx, cancel := context.WithTimeout(t.Context(), 4*waitLimit)
	t.Cleanup(func() {
		cancel()
		client.Close()
	})
	return client, ctx
}

// newWire makes a director 192.0.2.10 and a real server 192.0.2.11. It needs root.
func newWire(t *testing.T) (director, server host) {
	t.Helper()
	director, server = host{testhost.NewNamespace(t)}, host{testhost.NewNamespace(t)}
	director.in(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(server.NsHandle)),
		})
	})
	director.in(t, func() error { return bringUp("192.0.2.10/24") })
	server.in(t, func() error { return bringUp("192.0.2.11/24") })
	return director, server
}

func bringUp(address string) error {
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(l, addr), netlink.LinkSetUp(l))
}

// start starts the test binary in the host's namespace.
func (h host) start(t *testing.T, as *syscall.SysProcAttr, environment ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.SysProcAttr = as
	output := &bytes.Buffer{}
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stderr = output
	h.in(t, cmd.Start)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd, output
}

// startDirector starts a director and waits until it says that it is ready.
func (h host) startDirector(t *testing.T, runDir string) *exec.Cmd {
	t.Helper()
	cmd, _ := h.startDirectorAs(t, runDir, nil)
	return cmd
}

func (h host) startDirectorAs(t *testing.T, runDir string, as *syscall.SysProcAttr, environment ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	cmd, output := h.start(t, as, append(environment, runDirVariable+"="+runDir, "NOTIFY_SOCKET="+socket)...)
	buffer := make([]byte, 64)
	n, err := l.Read(buffer)
	if err != nil || string(buffer[:n]) != "READY=1" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("director not ready: %v\n%s", err, output)
	}
	return cmd, output
}

// fails runs a command that must fail, and returns what it said.
func (h host) fails(t *testing.T, environment ...string) string {
	t.Helper()
	cmd, output := h.start(t, nil, environment...)
	if err := cmd.Wait(); err == nil {
		t.Errorf("%v did not fail", environment)
	}
	return output.String()
}

func (h host) unload(t *testing.T, runDir string) {
	t.Helper()
	cmd, output := h.start(t, nil, unloadVariable+"="+runDir)
	if err := cmd.Wait(); err != nil {
		t.Errorf("unload: %v\n%s", err, output)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(waitLimit)
	for !holds() {
		select {
		case <-limit:
			t.Fatalf("not within %v: %s", waitLimit, what)
		case <-tick.C:
		}
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestDaemonLife(t *testing.T) {
	director, server := newWire(t)
	runDir := newRunDir(t)
	client, ctx := connect(t, runDir)

	first := director.startDirector(t, runDir)
	rs := routed("192.0.2.11", 80)
	if err := errors.Join(client.AddService(ctx, wlc(vip)), client.AddServer(ctx, vip, rs)); err != nil {
		t.Fatal(err)
	}
	nextHop := func() lvs.NextHop {
		t.Helper()
		service, err := client.Service(ctx, vip)
		if err != nil || len(service.Servers) != 1 {
			t.Fatalf("the service is lost: %+v, %v", service, err)
		}
		return service.Servers[0].NextHop
	}
	mac := macOf(t, server)
	if hop := nextHop(); !hop.Usable() || hop.InterfaceName != "eth0" || hop.Destination != mac {
		t.Errorf("the real server answers, but its next hop is %+v", hop)
	}
	pid := fmt.Sprintf("pid %d", first.Process.Pid)
	if said := director.fails(t, runDirVariable+"="+runDir); !strings.Contains(said, pid) {
		t.Errorf("a second director does not name the %s: %s", pid, said)
	}
	if said := director.fails(t, unloadVariable+"="+runDir); !strings.Contains(said, pid) {
		t.Errorf("unload under a director does not name the %s: %s", pid, said)
	}

	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.Wait()
	if !attached(t, director) {
		t.Error("forwarding ended with the director's process")
	}
	second := director.startDirector(t, runDir)
	if hop := nextHop(); !hop.Usable() || hop.Destination != mac {
		t.Errorf("until it is found again, the next hop is %+v", hop)
	}
	until(t, "the next hop is found again", func() bool { return nextHop().InterfaceName == "eth0" })
	expect(t, client.AddService(ctx, wlc(vip)), lvs.ErrServiceExists, "")

	moved := netip.MustParseAddr("192.0.2.12")
	if err := client.AddServer(ctx, vip, routed(moved.String(), 80)); err != nil {
		t.Fatal(err)
	}
	until(t, "the problem of a silent server is told", func() bool {
		service, err := client.Service(ctx, vip)
		return err == nil && strings.Contains(service.Servers[0].NextHop.Problem, moved.String())
	})
	server.in(t, func() error { return bringUp(moved.String() + "/24") })
	until(t, "a server that comes is found", func() bool {
		service, err := client.Service(ctx, vip)
		return err == nil && service.Servers[0].NextHop.Usable()
	})

	if err := second.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if got := names(t, runDir); got != "bpf director.lock" {
		t.Errorf("left by a director that stopped: %s", got)
	}
	if !attached(t, director) {
		t.Error("forwarding ended with the director")
	}
	director.unload(t, runDir)
	if got := names(t, runDir); got != "" || attached(t, director) {
		t.Errorf("left by unload: %s, attached %t", got, attached(t, director))
	}
	director.in(t, func() error {
		entries, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, e := range entries {
			t.Errorf("left by unload: neighbour %v", e.IP)
		}
		return err
	})
	director.unload(t, runDir)
}

func macOf(t *testing.T, h host) (mac lvs.MAC) {
	t.Helper()
	h.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = lvs.MAC(l.Attrs().HardwareAddr)
		}
		return err
	})
	return mac
}

func attached(t *testing.T, h host) (is bool) {
	t.Helper()
	h.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			is = l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
		}
		return err
	})
	return is
}

func TestInterfaceMadeAnew(t *testing.T) {
	director, server := newWire(t)
	runDir := newRunDir(t)
	daemon := director.startDirector(t, runDir)
	director.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkDel(l), netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(server.NsHandle)),
		}))
	})
	until(t, "the new interface is attached", func() bool { return attached(t, director) })
	if err := daemon.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	director.unload(t, runDir)
}

func TestMissingInterface(t *testing.T) {
	testhost.NeedRoot(t)
	runDir := newRunDir(t)
	director, _ := newWire(t)
	director.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	said := director.fails(t, runDirVariable+"="+runDir)
	if !strings.Contains(said, "attach to eth0") {
		t.Errorf("a missing interface: %s", said)
	}
	director.unload(t, runDir)
}

// In a mount namespace of its own, as "ip netns exec" makes one, the bpffs that a
// director mounts would die with it.
func TestPrivateMountsAreWarnedOf(t *testing.T) {
	director, _ := newWire(t)
	for _, test := range []struct {
		as   *syscall.SysProcAttr
		warn bool
	}{
		{&syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, true},
		{nil, false},
	} {
		runDir := newRunDir(t)
		daemon, output := director.startDirectorAs(t, runDir, test.as)
		if err := daemon.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := daemon.Wait(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if warned := strings.Contains(output.String(), "private mount namespace"); warned != test.warn {
			t.Errorf("private mounts %t, warned %t:\n%s", test.warn, warned, output)
		}
		director.unload(t, runDir)
	}
}
