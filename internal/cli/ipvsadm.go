package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/ipvsadm"
)

// The names of the ipvsadm family: each is a command of ours, and what a link to
// the binary may be called.
const (
	ipvsadmName        = "ipvsadm"
	ipvsadmSaveName    = "ipvsadm-save"
	ipvsadmRestoreName = "ipvsadm-restore"
)

// CommandLine returns the arguments for [Main] of a process that was started as
// argv: through a link named ipvsadm, ipvsadm-save or ipvsadm-restore, the
// command of that name.
func CommandLine(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	name := filepath.Base(argv[0])
	if slices.Contains([]string{ipvsadmName, ipvsadmSaveName, ipvsadmRestoreName}, name) {
		return slices.Concat([]string{name}, argv[1:])
	}
	return argv[1:]
}

func newIpvsadmCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   ipvsadmName + " ...",
		Short: "The command line of ipvsadm 1.31, for this director",
		Long: `The command line of ipvsadm 1.31: its options, messages, exit statuses and
listings, for the director of the run directory that FAIRLEAD_RUN_DIR names, or the
one that serves FAIRLEAD_ADDRESS (see "fairlead status --help"). A
link to this binary that is called ipvsadm, ipvsadm-save or ipvsadm-restore does
the same as those. "fairlead ipvsadm --help" lists the options.`,
		Example: `  fairlead ipvsadm -A -t 192.0.2.100:80 -s wlc
  fairlead ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.11:80 -g -w 4
  fairlead ipvsadm -Ln --stats`,
		DisableFlagParsing: true, // they are ipvsadm's
		RunE: func(cmd *cobra.Command, args []string) error {
			return runIpvsadm(cmd.Context(), env, args, env.Stdin)
		},
	}
}

func newIpvsadmSaveCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:                ipvsadmSaveName + " [-n]",
		Short:              "Print the services as ipvsadm-restore reads them",
		Example:            "  fairlead ipvsadm-save -n >/etc/ipvsadm.rules",
		Hidden:             true,
		DisableFlagParsing: true, // as the script of that name reads them
		RunE: func(cmd *cobra.Command, args []string) error {
			save := []string{"-S"}
			for _, arg := range args {
				switch {
				case arg == "-n":
					save = []string{"-S", "-n"}
				case strings.HasPrefix(arg, "-"):
					fmt.Fprintf(env.Stderr, "%s [-n]: print the services in the format of ipvsadm-restore; -n: numbers, not names\n",
						ipvsadmSaveName)
					return exitError(1)
				}
			}
			return runIpvsadm(cmd.Context(), env, save, env.Stdin)
		},
	}
}

func newIpvsadmRestoreCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:                ipvsadmRestoreName,
		Short:              "Replace the services by those read from standard input",
		Example:            "  fairlead ipvsadm-restore </etc/ipvsadm.rules",
		Hidden:             true,
		DisableFlagParsing: true, // the script of that name reads none
		RunE: func(cmd *cobra.Command, _ []string) error {
			saved, err := io.ReadAll(env.Stdin)
			if err != nil {
				return fmt.Errorf("read rules: %w", err)
			}
			if err := runIpvsadm(cmd.Context(), env, []string{"-C"}, nil); err != nil {
				return err
			}
			return runIpvsadm(cmd.Context(), env, []string{"-R"}, bytes.NewReader(withoutComments(saved)))
		},
	}
}

// withoutComments returns text without the lines that begin with #.
func withoutComments(text []byte) []byte {
	var rules []byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("#")) {
			rules = append(rules, line...)
		}
	}
	return rules
}

// runIpvsadm carries out one command line of ipvsadm.
func runIpvsadm(ctx context.Context, env Env, args []string, stdin io.Reader) error {
	director := environmentDirector(env)
	return director.speak(func(client *api.Client) error { // it connects when a command needs it
		connect := func(context.Context) (ipvsadm.Director, error) { return client, nil }
		if status := ipvsadm.Run(ctx, connect, args, stdin, env.Stdout, env.Stderr); status != 0 {
			return exitError(status)
		}
		return nil
	})
}
