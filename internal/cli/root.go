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
		Use:   "fairlead",
		Short: "Linux Virtual Server for today's kernels",
		Long: `Linux Virtual Server for today's kernels: a layer-4 load balancer.

Commands that read print tables, and with -o json what programs read. Commands that
change say what they refuse, and change nothing then.`,
		Example: `  fairlead lab
  fairlead director --interface eth0
  fairlead ipvsadm -Ln
  fairlead status
  source <(fairlead completion bash)`,
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
	addGroup(root, "To run:",
		newLabCommand(env),
		newDirectorCommand(env),
		newRealserverCommand(env),
	)
	addGroup(root, "To read:",
		newStatusCommand(env),
		newTopCommand(env),
		newConnsCommand(env),
		newExplainCommand(env),
		newTraceCommand(env),
		newDoctorCommand(env),
		newDiffCommand(env),
		newExportCommand(env),
		newSaveCommand(env),
		newImportCommand(env),
		newMetricsCommand(env),
		newBenchCommand(env),
		newVersionCommand(env),
	)
	addGroup(root, "To change:",
		newIpvsadmCommand(env),
		newIpvsadmSaveCommand(env),
		newIpvsadmRestoreCommand(env),
		newApplyCommand(env),
		newRollbackCommand(env),
		newConfigCommand(env),
		newRestoreCommand(env),
		newDrainCommand(env),
		newUndrainCommand(env),
		newMarkCommand(env),
		newLocalAddressCommand(env),
		newPeerCommand(env),
		newSysctlCommand(env),
	)
	return root
}

// addGroup adds commands to the root, and to its help under a heading.
func addGroup(root *cobra.Command, heading string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: heading, Title: heading})
	for _, cmd := range commands {
		cmd.GroupID = heading
		root.AddCommand(cmd)
	}
}

// completeFlag has the shell complete the values of a flag of a fixed choice. The
// flag is there: to ask for another one is a mistake in this program.
func completeFlag(cmd *cobra.Command, flag string, choice ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choice, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}
