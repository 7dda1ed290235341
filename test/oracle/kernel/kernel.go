// Package kernel plays scenarios on the IPVS of a real Linux kernel, which runs as
// an ordinary process: Debian's user-mode-linux. Needed are Debian's packages
// user-mode-linux, ipvsadm, keepalived and gcc, and Go; root is not.
package kernel

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// ErrMissing is wrapped by errors that say what has to be installed.
var ErrMissing = errors.New("not installed")

//go:embed clock/clock.c
var clockSource []byte

const (
	guestPackage   = "github.com/fairlead-lb/fairlead/test/oracle/kernel/guest"
	folderVariable = "ORACLE_FOLDER"
	done           = "oracle: done"
)

// A Kernel is what it takes to boot one, built once.
type Kernel struct{ folder string }

// New builds the guest's init and its clock in an empty folder, whose path must be
// without blanks. It wraps ErrMissing.
func New(ctx context.Context, folder string) (*Kernel, error) {
	for command, debian := range map[string]string{
		"linux.uml": "user-mode-linux", "gcc": "gcc", "go": "golang-go", "/usr/sbin/ipvsadm": "ipvsadm",
		"/usr/sbin/keepalived": "keepalived",
	} {
		if _, err := exec.LookPath(command); err != nil {
			return nil, fmt.Errorf("find %s of Debian's package %s: %w", command, debian, ErrMissing)
		}
	}
	k := &Kernel{folder: folder}
	if err := os.WriteFile(k.path("clock.c"), clockSource, 0o644); err != nil {
		return nil, err
	}
	compile := exec.CommandContext(ctx, "gcc", "-O2", "-shared", "-fPIC", "-o", k.path("clock.so"), k.path("clock.c"), "-ldl")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", k.path("init"), guestPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, command := range []*exec.Cmd{compile, build} {
		if out, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("run %s: %w: %s", strings.Join(command.Args, " "), err, out)
		}
	}
	return k, nil
}

func (k *Kernel) path(name string) string { return filepath.Join(k.folder, name) }

// Play boots the kernel, plays scenarios on it, each on a director of its own, and
// returns copies with its answers.
func (k *Kernel) Play(ctx context.Context, scenarios []*scenario.Scenario) ([]*scenario.Scenario, error) {
	run, err := os.MkdirTemp(k.folder, "run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(run)
	if err := os.WriteFile(filepath.Join(run, "scenarios"), []byte(plain(scenarios)), 0o644); err != nil {
		return nil, err
	}
	log, err := k.boot(ctx, run)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(log, []byte(done)) {
		return nil, fmt.Errorf("play scenarios in user-mode Linux: it ended with:\n%s", log)
	}
	text, err := os.ReadFile(filepath.Join(run, "answers"))
	if err != nil {
		return nil, err
	}
	answers, err := scenario.Parse(string(text), nil)
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	return merge(scenarios, answers.Scenarios)
}

// plain writes scenarios without comments and answers, and lists in full.
func plain(scenarios []*scenario.Scenario) string {
	var file scenario.File
	for _, s := range scenarios {
		bare := &scenario.Scenario{Name: s.Name}
		for _, step := range s.Steps {
			bare.Steps = append(bare.Steps, scenario.Step{Verb: step.Verb, Words: step.Words, Input: step.Input})
		}
		file.Scenarios = append(file.Scenarios, bare)
	}
	return file.String()
}

// merge returns copies of scenarios with the answers to their steps.
func merge(scenarios, answers []*scenario.Scenario) ([]*scenario.Scenario, error) {
	if len(answers) != len(scenarios) {
		return nil, fmt.Errorf("read answers: they are of %d scenarios, not of %d", len(answers), len(scenarios))
	}
	var merged []*scenario.Scenario
	for i, s := range scenarios {
		if len(answers[i].Steps) != len(s.Steps) {
			return nil, fmt.Errorf("read answers of %s: they are to %d steps, not to %d", s.Name, len(answers[i].Steps), len(s.Steps))
		}
		copied := s.Clone()
		for j := range copied.Steps {
			copied.Steps[j].Answer = answers[i].Steps[j].Answer
		}
		merged = append(merged, copied)
	}
	return merged, nil
}

// boot runs the kernel until it powers off, and returns what was on its console.
func (k *Kernel) boot(ctx context.Context, run string) ([]byte, error) {
	var console bytes.Buffer
	command := exec.CommandContext(ctx, "linux.uml",
		"mem=256M", "rootfstype=hostfs", "ro", "init="+k.path("init"), "con=null", "con0=null,fd:1",
		"uml_dir="+run+"/", "quiet", "loglevel=1", "lpj=4000000", "panic=-1", folderVariable+"="+run)
	command.Env = append(os.Environ(), "LD_PRELOAD="+k.path("clock.so"))
	command.Stdout, command.Stderr = &console, &console
	// The kernel and its processes are all of one group, to be ended as one.
	command.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return unix.Kill(-command.Process.Pid, unix.SIGKILL) }
	if err := startOnOneCPU(command); err != nil {
		return nil, fmt.Errorf("boot user-mode Linux: %w", err)
	}
	err := command.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("boot user-mode Linux: %w; its console:\n%s", ctx.Err(), console.Bytes())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("boot user-mode Linux: %w", err)
	}
	return console.Bytes(), nil
}

// startOnOneCPU starts a command on the CPU that the caller is on: user-mode Linux
// and its processes hand over to each other at every system call, which takes ten
// times as long between CPUs.
func startOnOneCPU(command *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread, with what it is tied to, ends
		started <- func() error {
			var cpu uint32
			if _, _, errno := unix.Syscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
				return errno
			}
			var one unix.CPUSet
			one.Set(int(cpu))
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				return err
			}
			return command.Start()
		}()
	}()
	return <-started
}
