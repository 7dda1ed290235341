package ipvsadm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Run carries out one ipvsadm command line, args without the program's name,
// and returns its exit status: 0, 2 for a command line that contradicts itself,
// 255 for a refused change or an unknown option, 1 for a refused listing, for
// what the director does not support yet, and for a director that can't be
// reached. What went wrong is on stderr in one line.
//
// connect is called when the director is first needed, at most once: a wrong
// command line never reaches it. Its error should say what to do.
func Run(ctx context.Context, connect func(context.Context) (Director, error), args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	inv := &invocation{
		ctx:     ctx,
		connect: connect,
		names:   &systemNames{},
		stdin:   stdin,
		stdout:  bufio.NewWriterSize(stdout, 1<<16),
		stderr:  stderr,
	}
	return inv.run(args)
}

// An invocation is one run of the program: a command line, or with -R many.
type invocation struct {
	ctx      context.Context
	connect  func(context.Context) (Director, error)
	director Director // nil until it is needed
	names    resolver
	stdin    io.Reader
	stdout   *bufio.Writer
	stderr   io.Writer
}

func (inv *invocation) run(args []string) int {
	status := statusOK
	if len(args) == 0 {
		status = inv.report(inv.list(&commandLine{command: cmdList}))
	} else {
		status = inv.report(inv.runLine(args, false))
	}
	if err := inv.stdout.Flush(); err != nil && status == statusOK {
		return inv.report(unreachable(fmt.Errorf("write output: %w", err)))
	}
	return status
}

// report prints what went wrong and returns the exit status.
func (inv *invocation) report(err error) int {
	if err == nil {
		return statusOK
	}
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{status: statusFailed, text: "ipvsadm: " + err.Error(), ends: true}
	}
	if f.text != "" {
		// What was printed so far comes first, where both go to one terminal. An
		// output that can't be written to is found by the last flush.
		_ = inv.stdout.Flush()
		fmt.Fprintln(inv.stderr, f.text)
	}
	return f.status
}

// runLine carries out one command line; restoring says that it comes from -R.
func (inv *invocation) runLine(args []string, restoring bool) error {
	line, err := parse(inv.ctx, inv.names, args)
	if err != nil {
		return err
	}
	switch line.command {
	case cmdHelp:
		inv.stdout.WriteString(helpText)
		return &failure{ends: true}
	case cmdVersion:
		inv.stdout.WriteString(versionText)
		return &failure{ends: true}
	case cmdStartDaemon:
		return refusal(line.command, fmt.Errorf("start the sync daemon: %w", lvs.ErrUnsupported))
	case cmdStopDaemon:
		return refusal(line.command, fmt.Errorf("stop the sync daemon: %w", lvs.ErrUnsupported))
	case cmdRestore:
		if restoring {
			return tryHelp()
		}
		return inv.restore()
	case cmdList, cmdSave:
		return inv.list(line)
	}
	return inv.change(line)
}

// reach connects to the director, if that was not done yet.
func (inv *invocation) reach() error {
	if inv.director != nil {
		return nil
	}
	d, err := inv.connect(inv.ctx)
	if err != nil {
		return unreachable(err)
	}
	inv.director = d
	return nil
}

// change carries out a command that changes something.
func (inv *invocation) change(line *commandLine) error {
	if err := inv.reach(); err != nil {
		return err
	}
	ctx, d, key := inv.ctx, inv.director, line.key()
	var err error
	switch line.command {
	case cmdAddService:
		err = d.AddService(ctx, line.service())
	case cmdEditService:
		err = d.EditService(ctx, line.service())
	case cmdDeleteService:
		err = d.DeleteService(ctx, key)
	case cmdClear:
		err = d.Clear(ctx)
	case cmdAddServer:
		err = d.AddServer(ctx, key, line.realServer())
	case cmdEditServer:
		err = d.EditServer(ctx, key, line.realServer())
	case cmdDeleteServer:
		err = d.DeleteServer(ctx, key, line.realServer().RealServerKey)
	case cmdSet:
		err = d.SetTimeouts(ctx, line.timeouts)
	case cmdZero:
		if line.given.has(optService) {
			err = d.ZeroService(ctx, key)
		} else {
			err = d.Zero(ctx)
		}
	}
	return refusal(line.command, err)
}

// restore carries out the command lines on standard input, each by itself. A
// refused one does not stop it, a wrong one does. The status is that of the last
// line.
func (inv *invocation) restore() error {
	status := statusOK
	lines := bufio.NewReader(inv.stdin)
	for {
		text, err := lines.ReadString('\n')
		if args := splitLine(text); len(args) > 0 {
			refused := inv.runLine(args, true)
			var f *failure
			if errors.As(refused, &f) && f.ends {
				return f
			}
			status = inv.report(refused)
		}
		if errors.Is(err, io.EOF) {
			return &failure{status: status} // all is said
		}
		if err != nil {
			return unreachable(fmt.Errorf("read commands: %w", err))
		}
	}
}

// splitLine takes a line of -R apart at white space; there is no quoting. The
// program's name is no part of the command.
func splitLine(text string) []string {
	text, _, _ = strings.Cut(text, "\x00")
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	args := words[:0]
	for _, word := range words {
		if word != "ipvsadm" {
			args = append(args, word)
		}
	}
	return args
}
