package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// The commands that every LVS tutorial teaches, as written there.
func TestTutorial(t *testing.T) {
	requireCommand(t, "curl", "curl")
	directory := labDirectory(t)
	mustRun(t, directory, "lab", "up")
	defer mustRun(t, directory, "lab", "down")

	for _, args := range []string{
		"lab exec director ipvsadm -A -t 192.0.2.100:80 -s wlc",
		"lab exec director ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.11:80 -g -w 4",
		"lab exec director ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.12:80 -g -w 2",
	} {
		mustRun(t, directory, strings.Fields(args)...)
	}
	// The director looks for the real servers' MAC addresses meanwhile; the
	// client's kernel sends its SYN again if the first came too early.
	answer := mustRun(t, directory, "lab", "exec", "client", "curl", "-s", "http://192.0.2.100/")
	if answer != "rs1\n" && answer != "rs2\n" {
		t.Errorf("curl printed %q", answer)
	}
	listing := mustRun(t, directory, "lab", "exec", "director", "ipvsadm", "-Ln")
	for _, want := range []string{"TCP  192.0.2.100:80 wlc", "192.0.2.11:80", "192.0.2.12:80"} {
		if !strings.Contains(listing, want) {
			t.Errorf("ipvsadm -Ln has not %q:\n%s", want, listing)
		}
	}

	mustRun(t, directory, "lab", "kill", "director")
	checkStatus(t, directory, map[string]bool{"client": false, "director": false, "rs1": true, "rs2": true})
	mustRun(t, directory, "lab", "exec", "client", "--", "curl", "-s", "http://192.0.2.100/")
	mustRun(t, directory, "lab", "start", "director")
	checkStatus(t, directory, map[string]bool{"client": false, "director": true, "rs1": true, "rs2": true})
	if after := mustRun(t, directory, "lab", "exec", "director", "ipvsadm", "-Sn"); strings.Count(after, "\n") != 3 {
		t.Errorf("the restarted director's services:\n%s", after)
	}
}

// checkStatus compares which hosts' programs run.
func checkStatus(t *testing.T, directory string, want map[string]bool) {
	t.Helper()
	var hosts []struct {
		Name    string `json:"name"`
		Running bool   `json:"running"`
	}
	out := mustRun(t, directory, "lab", "status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &hosts); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(hosts) != len(want) {
		t.Errorf("%d hosts, want %d", len(hosts), len(want))
	}
	for _, host := range hosts {
		if running, ok := want[host.Name]; !ok || running != host.Running {
			t.Errorf("%s: running is %v, want %v", host.Name, host.Running, running)
		}
	}
}

// lab exec is its command to whoever runs it: streams, status, signals.
func TestExecIsTheCommand(t *testing.T) {
	directory := labDirectory(t)
	mustRun(t, directory, "lab", "up", "--servers", "1", "--name", "exec")
	defer mustRun(t, directory, "lab", "down", "--name", "exec")

	cat := newCommand(t, directory, "lab", "exec", "--name", "exec", "client", "sh", "-c", "cat; echo no >&2; exit 7")
	cat.Stdin = strings.NewReader("through\n")
	if status := exitStatus(t, cat.Run()); status != 7 || cat.stdout.String() != "through\n" || cat.stderr.String() != "no\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, &cat.stdout, &cat.stderr)
	}

	trapped := newCommand(t, directory, "lab", "--name", "exec", "exec", "client", "sh", "-c", "trap 'exit 9' TERM; echo ready; read line")
	stdin, err := trapped.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	trapped.Stdout = nil
	stdout, err := trapped.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := trapped.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := trapped.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := exitStatus(t, trapped.Wait()); status != 9 {
		t.Errorf("status %d after SIGTERM, want 9 of the command's trap", status)
	}

	for _, args := range [][]string{
		{"lab", "exec", "--name", "exec", "rs2", "true"},
		{"lab", "exec", "--name", "exec", "client", "no-such-command"},
		{"lab", "exec", "--name", "exec", "client", "--"},
		{"lab", "exec", "--name", "other", "client", "true"},
		{"lab", "up", "--name", "exec"},
		{"lab", "kill", "--name", "exec", "client"},
		{"lab", "start", "--name", "exec", "director"},
	} {
		c := newCommand(t, directory, args...)
		if status := exitStatus(t, c.Run()); status != 1 || strings.Count(c.stderr.String(), "\n") != 1 {
			t.Errorf("%v: status %d, want 1 and one line: %s", args, status, &c.stderr)
		}
	}
}

// Whenever the lab is interrupted, it takes down what is there.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, during string
		signal       syscall.Signal
	}{
		{"building", "building", syscall.SIGINT},
		{"starting", "starting", syscall.SIGINT},
		{"adding", "adding", syscall.SIGTERM},
		{"sending", "sending", syscall.SIGINT},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := startLab(t, labDirectory(t), test.during)
			if err := c.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			if status := exitStatus(t, c.Wait()); status != 130 {
				t.Errorf("status %d, want 130: %s", status, &c.stderr)
			}
			if c.stdout.Len() > 0 {
				t.Errorf("printed %q", &c.stdout)
			}
		})
	}
}

// A lab that was killed is cleared away by the next one, or by lab down; also if
// the program that built it is gone.
func TestKilledLabIsCleared(t *testing.T) {
	directory := labDirectory(t)
	for _, remedy := range []string{"lab down", "lab up"} {
		program := filepath.Join(filepath.Dir(binary), "fairlead-before")
		if err := os.Link(binary, program); err != nil {
			t.Fatal(err)
		}
		c := startLabOf(t, program, directory, "sending")
		busy := newCommand(t, directory, strings.Fields(remedy)...)
		if status := exitStatus(t, busy.Run()); status != 1 || !strings.Contains(busy.stderr.String(), "in use") {
			t.Errorf("%s beside a running lab: status %d, %s", remedy, status, &busy.stderr)
		}
		if err := errors.Join(c.Process.Kill(), os.Remove(program)); err != nil {
			t.Fatal(err)
		}
		if status := exitStatus(t, c.Wait()); status != -1 {
			t.Errorf("status %d of a killed lab", status)
		}
		if _, err := os.Stat(filepath.Join(directory, lab.DefaultName, "lab.json")); err != nil {
			t.Errorf("a killed lab has left nothing to clear: %v", err)
		}
		mustRun(t, directory, strings.Fields(remedy)...)
	}
	mustRun(t, directory, "lab", "down")
}

// The default directory of labs goes with the last lab in it.
func TestLastLabTakesDirectoryAlong(t *testing.T) {
	testhost.NeedRoot(t)
	name := fmt.Sprintf("last-%d", os.Getpid())
	c := newCommand(t, "", "lab", "up", "--servers", "1", "--name", name)
	if status := exitStatus(t, c.Run()); status != 0 {
		t.Fatalf("status %d: %s", status, &c.stderr)
	}
	if _, err := os.Stat(filepath.Join(lab.DefaultDirectory, name)); err != nil {
		t.Error(err)
	}
	mustRun(t, "", "lab", "down", "--name", name)
	if entries, err := os.ReadDir(lab.DefaultDirectory); err == nil && len(entries) == 0 {
		t.Errorf("%s is there, and empty", lab.DefaultDirectory)
	}
}

// startLab starts a demonstration that does not end by itself, and returns once
// it has said that it does the given step.
func startLab(t *testing.T, directory, step string) *command {
	t.Helper()
	return startLabOf(t, binary, directory, step)
}

// startLabOf is startLab with the program under another name.
func startLabOf(t *testing.T, program, directory, step string) *command {
	t.Helper()
	c := newCommand(t, directory, "lab", "-o", "json", "--requests", "10000000")
	c.Path, c.Stderr = program, nil
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		c.stderr.WriteString(line)
		if err != nil {
			t.Fatalf("the lab ended before it was %s: %v\n%s", step, err, &c.stderr)
		}
		if strings.Contains(line, step) {
			break
		}
	}
	go io.Copy(io.Discard, lines)
	return c
}
