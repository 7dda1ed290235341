// Package cli is fairlead's command line: one file a command family. It joins
// the other packages and prints; it decides nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Env is what a command sees of the process that runs it.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// An exitError ends the process with a status and no further words: whatever
// there was to say has been said.
type exitError int

// Error returns the status in words; nobody prints it.
func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs one command line, args without the program's name, and returns the
// exit status: 0, 1 after a refusal that was printed, or the command's own.
func Main(ctx context.Context, env Env, args []string) int {
	root := newRootCommand(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintf(env.Stderr, "fairlead: %v\n", err)
	return 1
}

func newRootCommand(env Env) *cobra.Command {
	root := &cobra.Command{
		Use:           "fairlead",
		Short:         "Linux Virtual Server for today's kernels",
		Example:       "  fairlead lab\n  fairlead director --interface eth0\n  fairlead ipvsadm -Ln",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.AddCommand(
		newLabCommand(env),
		newDirectorCommand(env),
		newIpvsadmCommand(env),
		newIpvsadmSaveCommand(env),
		newIpvsadmRestoreCommand(env),
		newPeerCommand(env),
		newMarkCommand(env),
		newDrainCommand(env),
		newUndrainCommand(env),
		newRealserverCommand(env),
		newDoctorCommand(env),
		newStatusCommand(env),
		newApplyCommand(env),
		newDiffCommand(env),
		newExportCommand(env),
		newRollbackCommand(env),
		newConfigCommand(env),
		newTopCommand(env),
		newConnsCommand(env),
		newMetricsCommand(env),
		newImportCommand(env),
		newSaveCommand(env),
		newRestoreCommand(env),
		newSysctlCommand(env),
		newExplainCommand(env),
		newTraceCommand(env),
		newBenchCommand(env),
		newVersionCommand(env),
	)
	return root
}
