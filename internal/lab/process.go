package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// termGrace is how long a process has to end by itself.
const termGrace = 5 * time.Second

// A Process is a process of the lab. Started is its start time in clock ticks
// since boot: a process that was given the same PID later has another.
type Process struct {
	Host string `json:"host"`
	// Program is "" for the host's own, and Director for a real server's director.
	Program string `json:"program,omitempty"`
	PID     int    `json:"pid"`
	Started uint64 `json:"started"`
}

// newProcess names a process that runs now.
func newProcess(host string, pid int) (Process, error) {
	started, _, err := processStat(pid)
	return Process{Host: host, PID: pid, Started: started}, err
}

// Alive reports whether the process still runs.
func (p Process) Alive() bool {
	started, state, err := processStat(p.PID)
	return err == nil && started == p.Started && state != 'Z' && state != 'X'
}

// open returns a file descriptor of the process, which no later process of that
// PID can be mistaken for; os.ErrProcessDone if it has ended.
func (p Process) open() (int, error) {
	// Its PID may be a mere thread's by now, of which the kernel gives none.
	if !p.Alive() {
		return -1, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, os.ErrProcessDone
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	if !p.Alive() {
		unix.Close(fd)
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// kill ends the process at once and waits until it is gone. It is no error if it
// was gone before.
func (p Process) kill(ctx context.Context) error { return p.end(ctx, unix.SIGKILL) }

// terminate asks the process to end, kills it if it does not, and waits until it
// is gone, for termGrace each time.
func (p Process) terminate(ctx context.Context) error {
	grace, cancel := context.WithTimeout(ctx, termGrace)
	defer cancel()
	if err := p.end(grace, unix.SIGTERM); err == nil {
		return nil
	}
	grace, cancel = context.WithTimeout(ctx, termGrace)
	defer cancel()
	return p.kill(grace)
}

func (p Process) end(ctx context.Context, signal unix.Signal) error {
	fd, err := p.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d of %s: %w", p.PID, p.Host, err)
	}
	return p.wait(ctx, fd)
}

// wait returns when the process behind the file descriptor has ended.
func (p Process) wait(ctx context.Context, fd int) error {
	const slice = 50 // milliseconds between two looks at ctx
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, slice)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d of %s: %w", p.PID, p.Host, err)
		case ctx.Err() != nil:
			return fmt.Errorf("wait for process %d of %s: %w", p.PID, p.Host, context.Cause(ctx))
		}
	}
}

// processStat reads start time and state of a process (proc_pid_stat(5)).
func processStat(pid int) (started uint64, state byte, err error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, 0, os.ErrProcessDone
	}
	if err != nil {
		return 0, 0, err
	}
	// The second field, the command's name in parentheses, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const stateField, startField = 3, 22
	if len(fields) <= startField-stateField {
		return 0, 0, fmt.Errorf("read %s: %d fields", path, len(fields))
	}
	started, err = strconv.ParseUint(fields[startField-stateField], 10, 64)
	return started, fields[0][0], err
}

// PID returns the process ID of a host's own program; false if none was started.
func (l *Lab) PID(host string) (int, bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	i := l.state.find(host, "")
	if i < 0 {
		return 0, false
	}
	return l.state.Processes[i].PID, true
}
