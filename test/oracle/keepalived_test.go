package oracle

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/config"
	"github.com/fairlead-lb/fairlead/internal/health"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// keepalivedSamples is where Debian's package has them.
const keepalivedSamples = "/usr/share/doc/keepalived/samples"

// TestKeepalived imports what keepalived was given, runs it on a director, and wants
// the table that keepalived made of it: at first, and when checks have been failing.
func TestKeepalived(t *testing.T) {
	testhost.NeedRoot(t)
	if _, err := os.Stat(keepalivedSamples); err != nil {
		const why = "keepalived's samples are not installed: scripts/test-deps"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	d := startDaemon(t)
	for _, s := range readSuite(t, "keepalived") {
		t.Run(s.Name, func(t *testing.T) {
			path := ""
			for i, step := range s.Steps {
				switch step.Verb {
				case scenario.Keepalived:
					path = d.mustImport(t, &step)
				case scenario.Sleep:
					d.mustHurry(t, path)
				case scenario.Ipvsadm:
					d.wantListed(t, s, i)
				default:
					t.Fatalf("step %d, %s, is not of keepalived", i+1, step.Verb)
				}
			}
		})
	}
}

// A daemon is fairlead's director, as a process in a network in which no real server
// answers.
type daemon struct {
	program, runDir string
	client          *api.Client
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	folder, err := os.MkdirTemp("", "oracle-") // a short name: sockets' have to be
	mustDo(t, "make a folder", err)
	t.Cleanup(func() { mustDo(t, "remove the folder", os.RemoveAll(folder)) })
	d := &daemon{program: filepath.Join(folder, "fairlead"), runDir: filepath.Join(folder, "run")}
	build := exec.Command("go", "build", "-o", d.program, "../../cmd/fairlead")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := exec.Command(d.program, "director", "--interface", "rs0", "--run-dir", d.runDir, "--connections", "10000")
	cmd.Stderr = &log
	mustDo(t, "start the director", startInEmptyNetwork(cmd))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		mustDo(t, "stop the director", cmd.Process.Signal(unix.SIGTERM))
		if err := <-ended; err != nil {
			t.Errorf("director: %v\n%s", err, &log)
		}
		_, err := d.run("director", "unload", "--run-dir", d.runDir)
		mustDo(t, "unload the data plane", err)
	})
	d.client = api.NewClient(filepath.Join(d.runDir, api.SocketName))
	t.Cleanup(d.client.Close)
	const patience = 30 * time.Second
	if err := eventually(t.Context(), patience, func() error { _, err := d.client.Status(t.Context()); return err }); err != nil {
		t.Fatalf("the director does not serve within %s: %v\n%s", patience, err, &log)
	}
	return d
}

// startInEmptyNetwork starts a command in a network namespace with an interface, whose
// other end nobody is at, and the routes of the recordings; all else is unreachable.
func startInEmptyNetwork(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread, which is in another namespace, ends
		started <- func() error {
			namespace, err := netns.New()
			if err != nil {
				return err
			}
			defer namespace.Close()
			if err := layEmptyNetwork(); err != nil {
				return fmt.Errorf("lay the network: %w", err)
			}
			return cmd.Start()
		}()
	}()
	return <-started
}

func layEmptyNetwork() error {
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "rs0"}, PeerName: "rs-peer"})
	if err != nil {
		return err
	}
	for _, name := range []string{"rs-peer", "rs0"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return err
		}
	}
	rs0, err := netlink.LinkByName("rs0")
	if err != nil {
		return err
	}
	for _, address := range []string{"198.51.100.1/24", "2001:db8:1::1/64"} {
		parsed, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		parsed.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(rs0, parsed); err != nil {
			return err
		}
	}
	for _, everywhere := range []string{"0.0.0.0/0", "::/0"} {
		_, destination, err := net.ParseCIDR(everywhere)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: destination, Type: unix.RTN_UNREACHABLE}); err != nil {
			return err
		}
	}
	return nil
}

// run runs the program under test.
func (d *daemon) run(args ...string) (string, error) {
	cmd := exec.Command(d.program, args...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_RUN_DIR="+d.runDir)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("fairlead %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String(), nil
}

// mustImport has the director run what a keepalived.conf describes, and nothing else. It
// returns the configuration's path.
func (d *daemon) mustImport(t *testing.T, step *scenario.Step) string {
	t.Helper()
	folder := t.TempDir()
	from, to := filepath.Join(folder, "keepalived.conf"), filepath.Join(folder, "fairlead.yaml")
	if len(step.Words) > 0 {
		from = step.Words[0]
	} else {
		mustDo(t, "write keepalived.conf", os.WriteFile(from, []byte(strings.Join(step.Input, "\n")+"\n"), 0o600))
	}
	imported, err := d.run("import", "keepalived", from)
	mustDo(t, "import "+from, err)
	mustDo(t, "write what was imported", os.WriteFile(to, []byte(imported), 0o600))
	_, err = d.run("apply", "-f", to, "--prune")
	mustDo(t, "apply what was imported", err)
	return to
}

// mustHurry has checks put ten times a second, and returns when all have their verdict: what
// takes keepalived a minute passes in a moment.
func (d *daemon) mustHurry(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	mustDo(t, "read what was imported", err)
	file, err := config.Parse(path, text)
	mustDo(t, "read what was imported", err)
	for _, service := range file.Configuration.Health {
		for _, server := range service.Servers {
			for i := range server.Checks {
				const soon = 100 * time.Millisecond
				server.Checks[i].Interval, server.Checks[i].Timeout, server.Checks[i].Jitter = soon, soon, 0
			}
		}
	}
	_, err = d.client.Apply(t.Context(), api.ApplyRequest{Name: path, Text: []byte(config.Write(file.Configuration))})
	mustDo(t, "apply it with shorter intervals", err)
	const patience = 10 * time.Second
	err = eventually(t.Context(), patience, func() error {
		services, err := d.client.Services(t.Context())
		for _, service := range services {
			for _, server := range service.All() {
				// A script that is not there says nothing of the server.
				h := server.Health
				if h.State != lvs.HealthUnchecked && h.State != lvs.HealthDown && h.Cause != string(health.CheckFailed) {
					err = fmt.Errorf("%s of %s is %s", server.RealServerKey, service.ServiceKey, h.State)
				}
			}
		}
		return err
	})
	mustDo(t, "wait for verdicts", err)
}

// tableSize is, in the heading of ipvsadm -L, of the kernel's hash table there and of the
// connection table here.
var tableSize = regexp.MustCompile(`\(size=\d+\)`)

// wantListed waits until ipvsadm lists what a step's answer is.
func (d *daemon) wantListed(t *testing.T, s *scenario.Scenario, index int) {
	t.Helper()
	step := &s.Steps[index]
	const patience = 10 * time.Second
	err := eventually(t.Context(), patience, func() error {
		listed, err := d.run(append([]string{"ipvsadm"}, step.Words...)...)
		if err != nil {
			return err
		}
		got := s.Clone()
		got.Steps[index].Answer = scenario.Printed(tableSize.ReplaceAllString(listed, "(size=4096)"))
		return scenario.DifferAt(s, got, index, "keepalived", "fairlead")
	})
	if err != nil {
		t.Errorf("not the same within %s: %v", patience, err)
	}
}

// eventually asks until there is no error, or time is over; then it returns the last one.
func eventually(ctx context.Context, patience time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
