package scale

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

const (
	connections = 4_000_000
	// listTime is the most that listing them may take.
	listTime = 10 * time.Second
	// connsRows are listed by "fairlead conns" in connsTime.
	connsRows = 1_000_000
	connsTime = 4 * time.Second
	// udpTimeout is how long a connection lives on one datagram.
	udpTimeout = 300 * time.Second
)

var (
	directorMAC = [6]byte{2, 0, 0, 0, 0, 0x10}
	vip         = netip.MustParseAddrPort("192.0.2.100:80")
)

// enterNamespace puts this goroutine into a network namespace of its own, with
// eth0, the wire of a director, and the address of a real server's network.
func enterNamespace(t *testing.T) testhost.Namespace {
	t.Helper()
	own := testhost.EnterNamespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "eth0", directorMAC[:]
	wire := &netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}
	if err := netlink.LinkAdd(wire); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("192.0.2.10/24")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "peer"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err == nil && name == "eth0" {
			err = netlink.AddrAdd(link, addr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// mustBuild returns the program under test, and the directory that it is in, in which a
// director may run. Its name is short, as those of sockets have to be.
func mustBuild(t *testing.T) (program, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program = filepath.Join(dir, "fairlead")
	out, err := exec.Command("go", "build", "-o", program, "../../cmd/fairlead").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program, dir
}

// startDirector runs the daemon in this namespace until the test ends, and
// returns when it serves.
func startDirector(t *testing.T, binary, runDir string) *api.Client {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command(binary, "director", "--interface", "eth0", "--run-dir", runDir,
		"--connections", fmt.Sprint(connections))
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := <-exited; err != nil {
			t.Errorf("director: %v\n%s", err, log.String())
		}
		if out, err := exec.Command(binary, "director", "unload", "--run-dir", runDir).CombinedOutput(); err != nil {
			t.Errorf("unload: %v\n%s", err, out)
		}
	})
	client := api.NewClient(filepath.Join(runDir, api.SocketName))
	t.Cleanup(client.Close)
	waitFor(t, 30*time.Second, "the director serves", func() bool {
		_, err := client.Status(t.Context())
		return err == nil
	})
	return client
}

// waitFor asks until the answer is yes.
func waitFor(t *testing.T, limit time.Duration, what string, yes func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not after %s", what, limit)
		case <-tick.C:
		}
	}
}

func fairlead(binary, runDir string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_RUN_DIR="+runDir)
	return cmd
}

func mustIPVSAdm(t *testing.T, binary, runDir string, line string) {
	t.Helper()
	out, err := fairlead(binary, runDir, append([]string{"ipvsadm"}, strings.Fields(line)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %s: %v\n%s", line, err, out)
	}
}

// datagram is an empty one to the VIP; its client is filled in.
func datagram() []byte {
	frame := make([]byte, 42)
	copy(frame, directorMAC[:])
	copy(frame[6:], []byte{2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	ip, udp := frame[14:], frame[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], 28)
	copy(ip[16:], vip.Addr().AsSlice())
	binary.BigEndian.PutUint16(udp[2:], vip.Port())
	binary.BigEndian.PutUint16(udp[4:], 8)
	return frame
}

// connect sends the datagrams of connections first to last-1.
func connect(plane *dataplane.Plane, ifindex, first, last int) error {
	frame := datagram()
	for i := first; i < last; i++ {
		binary.BigEndian.PutUint32(frame[14+12:], 198<<24|18<<16|uint32(i/50_000+1))
		binary.BigEndian.PutUint16(frame[34:], uint16(1024+i%50_000))
		if _, _, err := plane.Run(frame, ifindex); err != nil {
			return err
		}
	}
	return nil
}

func TestFourMillionConnections(t *testing.T) {
	testhost.NeedRoot(t)
	program, dir := mustBuild(t)
	namespace := enterNamespace(t)
	client := startDirector(t, program, dir)
	mustIPVSAdm(t, program, dir, "-A -u 192.0.2.100:80 -s rr")
	mustIPVSAdm(t, program, dir, "-a -u 192.0.2.100:80 -r 192.0.2.11 -g")
	mustIPVSAdm(t, program, dir, "-a -u 192.0.2.100:80 -r 192.0.2.12 -g")

	// A second plane on the same pins runs the same program on the same table.
	plane, err := dataplane.Open(dataplane.Config{PinDir: filepath.Join(dir, "bpf")})
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	wire, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var workers errgroup.Group
	half := connections / 2
	for _, part := range [][2]int{{0, half}, {half, connections}} {
		workers.Go(func() error {
			return namespace.Do(func() error { return connect(plane, wire.Attrs().Index, part[0], part[1]) })
		})
	}
	if err := workers.Wait(); err != nil {
		t.Fatal(err)
	}
	made := time.Since(start)
	if made > udpTimeout/2 {
		t.Fatalf("making the connections took %s: the first ones end while the test looks", made)
	}

	start = time.Now()
	rows := countRows(t, fairlead(program, dir, "ipvsadm", "-Lcn"))
	listed := time.Since(start)
	t.Logf("%d connections made in %s, listed in %s", connections, made.Round(time.Millisecond), listed.Round(time.Millisecond))
	if rows != connections {
		t.Errorf("ipvsadm -Lcn lists %d connections, want %d", rows, connections)
	}
	if limit := listTime * stretch(t); listed > limit {
		t.Errorf("listing took %s, want under %s", listed, limit)
	}

	start = time.Now()
	rows = countRows(t, fairlead(program, dir, "conns", "--limit", fmt.Sprint(connsRows)))
	conns := time.Since(start)
	t.Logf("%d rows of conns in %s", rows, conns.Round(time.Millisecond))
	if limit := connsTime * stretch(t); rows != connsRows || conns > limit {
		t.Errorf("conns listed %d connections in %s, want %d in %s", rows, conns, connsRows, limit)
	}
	listed += conns

	counted := mustCount(t, client)
	t.Logf("counted in %s", counted.Round(time.Millisecond))

	// The clock moves to shortly before the first ones end, then past the last.
	plane.SetClockOffset(udpTimeout - made - listed - counted - 15*time.Second)
	left := 0
	for range plane.Connections() {
		left++
	}
	if left != connections {
		t.Errorf("%d connections are left before their time is over, want %d", left, connections)
	}
	plane.SetClockOffset(udpTimeout + time.Second)
	waitFor(t, 10*time.Second, "a sweep ends the connections", func() bool {
		status, err := client.Status(t.Context())
		return err == nil && status.TableUsed == 0
	})
	services, err := client.Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rs := range services[0].Servers {
		if rs.Active != 0 || rs.Inactive != 0 || rs.Counters.Connections != connections/2 {
			t.Errorf("%s: %d active, %d inactive, %d connections in all; want 0, 0, %d",
				rs.RealServerKey, rs.Active, rs.Inactive, rs.Counters.Connections, connections/2)
		}
	}
}

// mustCount has the director count its connections by client and server, and look
// for the one of a single client, and returns how long that took.
func mustCount(t *testing.T, client *api.Client) time.Duration {
	t.Helper()
	start := time.Now()
	count, err := client.CountConnections(t.Context(), lvs.ConnectionFilter{Limit: 3},
		[]lvs.ConnectionField{lvs.FieldClient, lvs.FieldServer})
	if err != nil {
		t.Fatal(err)
	}
	const clients = connections / 50_000
	if count.Connections != connections || len(count.Groups)+count.Omitted != 2*clients {
		t.Errorf("counted %d connections in %d groups, want %d in %d", count.Connections, len(count.Groups)+count.Omitted, connections, 2*clients)
	}
	port1024 := lvs.Endpoint{Prefix: netip.MustParsePrefix("198.18.0.1/32"), Port: 1024}
	found := 0
	filter := lvs.ConnectionFilter{Client: port1024, Protocol: lvs.UDP}
	if err := client.FindConnections(t.Context(), filter, func(lvs.Connection) error { found++; return nil }); err != nil {
		t.Fatal(err)
	}
	if found != 1 {
		t.Errorf("found %d connections of one client, want 1", found)
	}
	took := time.Since(start)
	if limit := listTime * stretch(t); took > limit {
		t.Errorf("counting took %s, want under %s", took, limit)
	}
	return took
}

func countRows(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rows := 0
	r := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 4 && string(line[:4]) == "UDP " {
			rows++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return rows
}
