package health

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// maxOutput is how much of a command's output is kept.
	maxOutput = 4 << 10
	// killGrace is how long the pipes of a command that was killed are waited for.
	killGrace = 100 * time.Millisecond
)

// A beginning keeps the beginning of what is written to it, and takes the rest.
type beginning struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *beginning) Write(data []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(data[:min(room, len(data))])
	}
	return len(data), nil
}

// command prepares a program, never by a shell. When ctx ends, it is killed with all
// that it started.
func command(ctx context.Context, c lvs.Command, environment []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = killGrace
	return cmd
}

// runScript runs the check's program. It is told the real server by its environment.
func (p *prober) runScript(ctx context.Context) Result {
	var output beginning
	cmd := command(ctx, p.check.Script.Command, []string{
		"FAIRLEAD_SERVER_ADDRESS=" + p.target.Server.Address.String(),
		"FAIRLEAD_SERVER_PORT=" + strconv.Itoa(int(p.target.Server.Port)),
	})
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return failure(Timeout, "the script ran for too long and was killed")
	case err == nil:
		return success("exit status 0")
	case !errors.As(err, &exit):
		return failure(CheckFailed, "%v", err)
	}
	// Statuses from 2 on are success with a weight: keepalived's MISC_CHECK.
	if status := exit.ExitCode(); p.check.Script.Weight && status >= 2 {
		weight := uint32(status - 2)
		result := success("exit status %d", status)
		result.Weight = &weight
		return result
	}
	if output.Len() == 0 {
		return failure(ScriptFailed, "%v", exit)
	}
	return failure(ScriptFailed, "%v: %s", exit, quote(output.Bytes()))
}
