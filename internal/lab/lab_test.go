package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// TestMain lets the test binary stand for fairlead where a lab runs it as a real
// server's program.
func TestMain(m *testing.M) {
	if len(os.Args) > 4 && os.Args[1] == "lab" && os.Args[2] == "serve" {
		var addresses []Address
		for _, address := range os.Args[4:] {
			addresses = append(addresses, Address(address))
		}
		if err := Serve(context.Background(), os.Args[3], addresses); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testConfig(t *testing.T) Config {
	t.Helper()
	testhost.NeedRoot(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Directory: t.TempDir(), Binary: binary, Servers: 2}
}

// buildNetwork returns a lab whose real servers serve and whose director is only
// a host.
func buildNetwork(t *testing.T, config Config) *Lab {
	t.Helper()
	l, err := newLab(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, config)
	})
	if err := errors.Join(l.prepareFiles(), l.build(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, server := range l.Servers() {
		if err := l.Start(t.Context(), server.Name); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func checkNothingLeft(t *testing.T, config Config) {
	t.Helper()
	directory, err := config.path()
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(directory + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mountinfo), directory) {
		t.Errorf("left mounted:\n%s", mountinfo)
	}
}

func TestServersAnswerByName(t *testing.T) {
	l := buildNetwork(t, testConfig(t))
	for _, server := range l.Servers() {
		for _, family := range []Family{IPv4, IPv6} {
			address := netip.AddrPortFrom(server.Address(family), HTTPPort)
			answer, err := l.Get(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			want := Answer{Server: server.Name, Client: answer.Client, ClientAtServer: answer.Client, VirtualAtServer: address}
			if answer != want {
				t.Errorf("got %+v, want %+v", answer, want)
			}
		}
	}
}

func TestServersEchoOnVIP(t *testing.T) {
	l := buildNetwork(t, testConfig(t))
	for _, family := range []Family{IPv4, IPv6} {
		conn, err := l.Dial(t.Context(), "rs2", "udp", netip.AddrPortFrom(family.VIP(), EchoPort))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		buffer := make([]byte, 64)
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(buffer[:n]); got != "rs2 hello" {
			t.Errorf("IPv%d: got %q", family, got)
		}
	}
}

// Only the director's MAC address is told for the VIP, although every real
// server has the VIP too. Without its data plane the director's kernel refuses
// the connection.
func TestVIPIsTheDirectors(t *testing.T) {
	l := buildNetwork(t, testConfig(t))
	for _, family := range []Family{IPv4, IPv6} {
		service := netip.AddrPortFrom(family.VIP(), HTTPPort)
		tally := newTally(service, l.ports)
		capture, err := l.Capture(1000, tally.observe)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Get(t.Context(), service)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("IPv%d: got %v, want connection refused by the director's kernel", family, err)
		}
		frames, err := capture.Stop()
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string]int{Director: 1}, tally.claims); diff != "" {
			t.Errorf("IPv%d: who told a MAC address for the VIP (-want +got):\n%s", family, diff)
		}
		checkOrder(t, frames)
	}
}

func checkOrder(t *testing.T, frames []journey.Frame) {
	t.Helper()
	if len(frames) == 0 {
		t.Error("no frames")
	}
	for i := 1; i < len(frames); i++ {
		if frames[i].Time.Before(frames[i-1].Time) {
			t.Errorf("frame %d is older than the one before it", i)
		}
	}
}

func TestCommandsRunOnTheirHost(t *testing.T) {
	l := buildNetwork(t, testConfig(t))
	out, err := l.Output(t.Context(), "rs1", "ip", "-brief", "address", "show", "dev", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "192.0.2.11/24") {
		t.Errorf("addresses of rs1: %s", out)
	}
	if _, err := l.Output(t.Context(), "rs9", "true"); !errors.Is(err, ErrNoHost) {
		t.Errorf("unknown host: %v", err)
	}
	path, err := l.find("ipvsadm")
	if err != nil || path != filepath.Join(l.binDirectory(), "ipvsadm") {
		t.Errorf("ipvsadm is %s, %v", path, err)
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	config := testConfig(t)
	buildNetwork(t, config)
	_, err := newLab(t.Context(), config)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second owner: %v", err)
	}
	if err := Down(t.Context(), config); !errors.Is(err, ErrBusy) {
		t.Errorf("down of an owned lab: %v", err)
	}
	other := config
	other.Name = "other"
	l := buildNetwork(t, other)
	if _, err := l.Get(t.Context(), netip.AddrPortFrom(l.Servers()[0].Address(IPv4), HTTPPort)); err != nil {
		t.Errorf("a second lab beside the first: %v", err)
	}
}

// A lab whose owner was killed is cleared away by the next one of that name.
func TestLeftoverIsCleared(t *testing.T) {
	config := testConfig(t)
	l := buildNetwork(t, config)
	abandoned, _ := l.state.process("rs1")
	inhabitant, err := l.Command(t.Context(), Client, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Begin(Client, inhabitant); err != nil {
		t.Fatal(err)
	}
	// What the kernel does when a process is killed.
	if err := errors.Join(l.Close(), l.lock.file.Close()); err != nil {
		t.Fatal(err)
	}

	next, err := newLab(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	l.lock = next.lock // its cleanup takes down the one lab there is
	if abandoned.Alive() {
		t.Errorf("process %d of the abandoned lab still runs", abandoned.PID)
	}
	if err := inhabitant.Wait(); err == nil {
		t.Error("a command on an abandoned host ended by itself")
	}
}

// A kept lab is not cleared away, and can be taken down by another process.
func TestKeptLab(t *testing.T) {
	config := testConfig(t)
	if err := Down(t.Context(), config); !errors.Is(err, ErrNotRunning) {
		t.Errorf("down without a lab: %v", err)
	}
	if _, err := Open(config); !errors.Is(err, ErrNotRunning) {
		t.Errorf("open without a lab: %v", err)
	}
	if err := buildNetwork(t, config).Keep(); err != nil {
		t.Fatal(err)
	}
	if _, err := newLab(t.Context(), config); !errors.Is(err, ErrRunning) {
		t.Errorf("second lab of a kept one's name: %v", err)
	}
	l, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Start(t.Context(), "rs1"); err == nil {
		t.Error("started rs1 twice")
	}
	if err := l.Kill(t.Context(), "rs1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Kill(t.Context(), "rs1"); err == nil {
		t.Error("killed rs1 twice")
	}
	address := netip.AddrPortFrom(l.Servers()[0].Address(IPv4), HTTPPort)
	if _, err := l.Get(t.Context(), address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("killed server: %v", err)
	}
	if err := l.Start(t.Context(), "rs1"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(t.Context(), address); err != nil {
		t.Errorf("restarted server: %v", err)
	}
	if err := l.Kill(t.Context(), Client); err == nil {
		t.Error("the client has no program, and was killed")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

func TestFailedStartTellsLastWords(t *testing.T) {
	l := buildNetwork(t, testConfig(t))
	if err := l.Kill(t.Context(), "rs1"); err != nil {
		t.Fatal(err)
	}
	l.state.Binary = "/bin/ls" // knows no "lab serve"
	err := l.Start(t.Context(), "rs1")
	if err == nil || !strings.Contains(err.Error(), "cannot access 'lab'") {
		t.Errorf("got %v", err)
	}
}

// A process that was given the PID of an old one is never touched.
func TestReusedPIDIsNotKilled(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := newProcess(Client, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	old := p
	old.Started--
	if err := old.kill(t.Context()); err != nil || old.Alive() {
		t.Errorf("the process before: kill %v, alive %v", err, old.Alive())
	}
	if !p.Alive() {
		t.Fatal("its successor was killed")
	}
	if err := p.terminate(t.Context()); err != nil {
		t.Error(err)
	}
	if p.Alive() {
		t.Error("alive after terminate")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("sleep ended by itself")
	}
}

func TestForeignDirectoryIsKept(t *testing.T) {
	config := testConfig(t)
	directory, err := config.path()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(directory, "letters"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := newLab(t.Context(), config); err == nil {
		t.Error("took a directory that is not a lab's")
	}
	if _, err := os.Stat(filepath.Join(directory, "letters")); err != nil {
		t.Error(err)
	}
}
