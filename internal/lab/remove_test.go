package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is left of a lab whose owner was killed never stops the next one of its
// name, whatever has gone since.
func TestLeftoverIsClearedInAnyState(t *testing.T) {
	overwrite := func(t *testing.T, l *Lab, text string) {
		if err := os.WriteFile(filepath.Join(l.directory, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		harm func(*testing.T, *Lab)
	}{
		{"the program is gone", func(t *testing.T, l *Lab) {
			l.state.Binary = filepath.Join(t.TempDir(), "gone")
			mustLaunchDirector(t, l)
		}},
		{"a namespace is gone", func(t *testing.T, l *Lab) { mustUnmount(t, l.namespacePath("rs1")) }},
		{"a namespace of a kept lab is gone", func(t *testing.T, l *Lab) {
			l.state.Kept = true
			if err := l.state.write(l.directory); err != nil {
				t.Fatal(err)
			}
			mustUnmount(t, l.namespacePath(Director))
		}},
		{"no state but one that was begun", func(t *testing.T, l *Lab) {
			path := filepath.Join(l.directory, stateFile)
			if err := os.Rename(path, filepath.Join(l.directory, newStateFile)); err != nil {
				t.Fatal(err)
			}
		}},
		{"the state is damaged", func(t *testing.T, l *Lab) { overwrite(t, l, `{"servers": 2, "pro`) }},
		{"the state is another version's", func(t *testing.T, l *Lab) {
			overwrite(t, l, `{"servers": 2, "method": "carrier-pigeon", "processes": "elsewhere"}`)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := testConfig(t)
			l := buildNetwork(t, config)
			server, _ := l.state.process("rs2")
			test.harm(t, l)
			if err := errors.Join(l.Close(), l.lock.file.Close()); err != nil {
				t.Fatal(err)
			}
			next, err := newLab(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			l.lock, l.state = next.lock, next.state // its cleanup takes down the one lab there is
			if server.Alive() {
				t.Errorf("process %d of the abandoned lab still runs", server.PID)
			}
			if err := errors.Join(next.prepareFiles(), next.build(t.Context()), next.Close()); err != nil {
				t.Errorf("the next lab: %v", err)
			}
		})
	}
}

// mustLaunchDirector starts what passes for the director's process.
func mustLaunchDirector(t *testing.T, l *Lab) {
	t.Helper()
	cmd, err := l.Command(t.Context(), Director, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.launch(Director, "", cmd); err != nil {
		t.Fatal(err)
	}
}

func mustUnmount(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

// What is pinned goes with the lab, also if the file system is mounted elsewhere.
func TestLabLeavesNothingPinned(t *testing.T) {
	config := testConfig(t)
	l := buildNetwork(t, config)
	pins, elsewhere := filepath.Join(l.runDirectory(Director), "bpf"), t.TempDir()
	if err := os.Mkdir(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("fairlead", pins, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(pins, elsewhere, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustUnmount(t, elsewhere) })
	if err := os.MkdirAll(filepath.Join(pins, "state", "maps"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Keep(); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "state")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left on the bpffs: %v", err)
	}
}

// A PID that is a thread's now is no process of the lab.
func TestPIDOfThreadIsNotKilled(t *testing.T) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		p := Process{Host: "rs1", Started: 1}
		for _, digit := range thread.Name() {
			p.PID = 10*p.PID + int(digit-'0')
		}
		if err := p.terminate(t.Context()); err != nil {
			t.Errorf("thread %d: %v", p.PID, err)
		}
	}
}

// The commands of a lab whose program is gone are not the machine's own.
func TestCommandOfProgramThatIsGone(t *testing.T) {
	config := testConfig(t)
	program := filepath.Join(t.TempDir(), "fairlead")
	if err := os.Symlink(config.Binary, program); err != nil {
		t.Fatal(err)
	}
	config.Binary = program
	l := buildNetwork(t, config)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	_, err := l.find("ipvsadm")
	if err == nil || !strings.Contains(err.Error(), "take the lab down") {
		t.Errorf("got %v", err)
	}
}
