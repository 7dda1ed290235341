package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// readyTimeout bounds the start of one process of the lab.
const readyTimeout = 20 * time.Second

// Start starts the host's own process, a real server's program or the director,
// and waits until it is ready. One that runs already is an error.
func (l *Lab) Start(ctx context.Context, host string) error {
	if err := l.hasProgram(host); err != nil {
		return err
	}
	return l.change(func() error {
		if p, ok := l.state.process(host); ok && p.Alive() {
			return fmt.Errorf("start %s: process %d runs already", host, p.PID)
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		start := l.startServer
		if host == Director {
			start = func(ctx context.Context, host string) error { return l.startDirector(ctx, host, "") }
		}
		if err := start(ctx, host); err != nil {
			return fmt.Errorf("start %s: %w%s", host, err, l.lastWords(host))
		}
		return nil
	})
}

// Upgrade starts the director of another binary, which asks the one that runs to
// hand over, and returns when that one is gone and the new one answers.
func (l *Lab) Upgrade(ctx context.Context, binary string) error {
	return l.change(func() error {
		old, ok := l.state.process(Director)
		if !ok || !old.Alive() {
			return fmt.Errorf("upgrade %s: it does not run", Director)
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := l.startDirectorOf(ctx, binary, Director, "", "--take-over"); err != nil {
			return fmt.Errorf("upgrade %s: %w%s", Director, err, l.lastWords(Director))
		}
		return poll(ctx, func() (bool, error) {
			if old.Alive() {
				return false, nil
			}
			client := l.clientOf(Director)
			defer client.Close()
			_, err := client.Status(ctx)
			return err == nil, nil
		})
	})
}

// Kill ends the host's own process with SIGKILL, and returns when it is gone.
func (l *Lab) Kill(ctx context.Context, host string) error {
	if err := l.hasProgram(host); err != nil {
		return err
	}
	return l.change(func() error {
		p, ok := l.state.process(host)
		if !ok || !p.Alive() {
			return fmt.Errorf("kill %s: it does not run", host)
		}
		return p.kill(ctx)
	})
}

// hasProgram tells the hosts that run a program of their own from the others.
func (l *Lab) hasProgram(host string) error {
	if _, err := l.namespace(host); err != nil {
		return err
	}
	if host != Director && !isServer(host) {
		return fmt.Errorf("host %s runs no program of its own: the director and the real servers do", host)
	}
	return nil
}

// startServer waits for the byte that the program writes when it listens.
func (l *Lab) startServer(ctx context.Context, host string) error {
	ready, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := []string{"lab", "serve", host}
	for _, server := range l.Servers() {
		if server.Name == host {
			for _, address := range l.state.Method.addressesOf(server) {
				args = append(args, string(address))
			}
		}
	}
	cmd := exec.Command(l.state.Binary, args...)
	cmd.ExtraFiles = []*os.File{tell} // file descriptor 3
	err = l.launch(host, "", cmd)
	tell.Close()
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		ready.SetReadDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("it ended before it was ready: %w", err)
	}
	return nil
}

// startDirector starts a director under the name of the program, and waits until it
// answers on its socket.
func (l *Lab) startDirector(ctx context.Context, host, program string) error {
	return l.startDirectorOf(ctx, l.state.Binary, host, program)
}

func (l *Lab) startDirectorOf(ctx context.Context, binary, host, program string, options ...string) error {
	args := append([]string{"director", "--run-dir", l.runDirectory(host), "--interface", hostInterface}, options...)
	if err := l.launch(host, program, exec.Command(binary, args...)); err != nil {
		return err
	}
	process := l.state.Processes[l.state.find(host, program)]
	client := l.clientOf(host)
	defer client.Close()
	return poll(ctx, func() (bool, error) {
		if !process.Alive() {
			return false, errors.New("it ended before it was ready")
		}
		_, err := client.Status(ctx)
		if err != nil && !errors.Is(err, api.ErrUnreachable) && ctx.Err() == nil {
			return false, err
		}
		return err == nil, nil
	})
}

// DirectorClient returns a client of the lab's director. The caller closes it.
func (l *Lab) DirectorClient() *api.Client { return l.clientOf(Director) }

// clientOf returns a client of the director that runs on the host.
func (l *Lab) clientOf(host string) *api.Client {
	return api.NewClient(filepath.Join(l.runDirectory(host), "director.sock"))
}

// launch starts a process of the lab in the host's namespace, on its own session
// so that a terminal's Ctrl-C does not reach it, and writes down which it is.
func (l *Lab) launch(host, program string, cmd *exec.Cmd) error {
	log, err := os.OpenFile(l.logPath(host), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = l.environment(host)
	if err := l.within(host, cmd.Start); err != nil {
		return err
	}
	process, err := newProcess(host, cmd.Process.Pid)
	process.Program = program
	go cmd.Wait() // so that it is no zombie when it ends before us
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	l.state.setProcess(process)
	return l.state.write(l.directory)
}

// lastWords returns the end of the log of the host's process.
func (l *Lab) lastWords(host string) string {
	const most = 10
	text, err := os.ReadFile(l.logPath(host))
	text = bytes.TrimSpace(text)
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	return "\nits last words:\n  " + strings.Join(lines[max(0, len(lines)-most):], "\n  ")
}

// environment is that of a process on the host: commands of fairlead first in
// the PATH, under their links' names too, and a run directory of its own.
func (l *Lab) environment(host string) []string {
	environment := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "PATH=") || strings.HasPrefix(s, "FAIRLEAD_RUN_DIR=")
	})
	return append(environment, "PATH="+l.searchPath(), "FAIRLEAD_RUN_DIR="+l.runDirectory(host))
}

func (l *Lab) searchPath() string {
	return l.binDirectory() + string(os.PathListSeparator) + os.Getenv("PATH")
}

// find returns the program that the command's name means on a host.
func (l *Lab) find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	// The host's own ipvsadm must not stand in for fairlead's.
	if program, err := os.Readlink(filepath.Join(l.binDirectory(), name)); err == nil {
		if _, err := os.Stat(program); err != nil {
			return "", fmt.Errorf("run %s: the fairlead that built lab %s is gone: take the lab down and build it again: %w",
				name, filepath.Base(l.directory), err)
		}
	}
	for _, directory := range filepath.SplitList(l.searchPath()) {
		path := filepath.Join(directory, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("find command %s: %w", name, fs.ErrNotExist)
}

// Command returns a command that [Lab.Run] or [Lab.Begin] carries out on the
// host; ctx ends it.
func (l *Lab) Command(ctx context.Context, host, name string, args ...string) (*exec.Cmd, error) {
	if _, err := l.namespace(host); err != nil {
		return nil, err
	}
	path, err := l.find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Args[0] = name
	cmd.Env = l.environment(host)
	return cmd, nil
}

// Begin starts the command in the host's namespace; the caller waits for it.
func (l *Lab) Begin(host string, cmd *exec.Cmd) error { return l.within(host, cmd.Start) }

// Output runs a command on the host and returns what it prints. The error of a
// command that failed holds what it said.
func (l *Lab) Output(ctx context.Context, host, name string, args ...string) (string, error) {
	cmd, err := l.Command(ctx, host, name, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := l.Begin(host, cmd); err != nil {
		return "", fmt.Errorf("run %s on %s: %w", name, host, err)
	}
	if err := cmd.Wait(); err != nil {
		command := strings.Join(append([]string{name}, args...), " ")
		return stdout.String(), fmt.Errorf("run %s on %s: %w: %s", command, host, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Exec replaces this process by a command on the host. It returns only if it
// could not.
func (l *Lab) Exec(host string, args []string) error {
	path, err := l.find(args[0])
	if err != nil {
		return err
	}
	ns, err := l.namespace(host)
	if err != nil {
		return err
	}
	return ns.do(func() error {
		return &os.PathError{Op: "run on " + host, Path: path, Err: syscall.Exec(path, args, l.environment(host))}
	})
}

// poll calls ready until it returns true or an error, or ctx ends.
func poll(ctx context.Context, ready func() (bool, error)) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
