package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/savefile"
)

func newSaveCommand(env Env) *cobra.Command {
	var director directorFlags
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "save",
		Short: "Print all that the director was told, for restore",
		Long: `Print all that the director was told, for "fairlead restore": services with their
flags, persistence and own sysctls, real servers with their thresholds and in their
order, the director's sysctls and timeouts that are not the default, the peers that
were added, and which packets carry a mark. Much of that is lost by "ipvsadm -S".

The text has a line for each, in words:

  fairlead-save 1                                     the format and its version
  sysctl NAME=VALUE                                   fairlead sysctl, ipvsadm --set
  peer ADDRESS                                        fairlead peer add
  mark N [protocol tcp|udp|sctp] [source PREFIX] [source-ports A-B]
          [destination PREFIX] [destination-ports A-B]  which packets carry mark N, first match first
  local-address ADDRESS[/PREFIX] [ports A-B]          fairlead local-address add
  service KEY [scheduler NAME] [flags NAME,...] [persistence SECONDS [mask MASK]]
          [engine NAME] [one-packet]                  KEY is like tcp:192.0.2.100:80,
                                                      udp:[2001:db8::100]:53, fwmark:7, fwmark6:7
    set NAME=VALUE                                    fairlead sysctl --service KEY
    server ADDRESS:PORT [METHOD] [weight N] [upper N lower N]

What is left out is as ipvsadm has it: scheduler wlc, method route, weight 1. The
lines set and server are of the service above them; servers stand in the order in
which schedulers walk them, the one that was added last first. A service is on one
line. Empty lines, and lines that begin with #, have no meaning.`,
		Example: `  fairlead save >director.save
  fairlead save -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state := func(ctx context.Context, client *api.Client) (lvs.State, error) { return client.State(ctx) }
			return show(cmd.Context(), env, &director, output, state, savefile.Write, savefile.WriteJSON)
		},
	}
	director.add(cmd, env)
	output.add(cmd)
	return cmd
}

func newRestoreCommand(env Env) *cobra.Command {
	var director directorFlags
	var output outputFormat
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Make the director's state the one that was saved",
		Long: `Make the director's state the one that "fairlead save" printed, as text or JSON, and
print what that changed. Without FILE, or with -, it is read from standard input.

The whole state is replaced: services, real servers, peers, marks and sysctl values that
are not in FILE go. What is in both stays, with its connections and counters, and what
differs is edited. A service that has real servers before and after is never without
one in between.

All is checked before the first change, and a bad line changes nothing; a change that
fails nevertheless is undone, with those before it.`,
		Example: `  fairlead restore director.save
  fairlead restore --dry-run director.save
  fairlead save | ssh other-director fairlead restore`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			name := "standard input"
			if len(args) == 1 && args[0] != "-" {
				name = args[0]
			}
			file, err := readState(env, name, name == "standard input")
			if err != nil {
				return err
			}
			restore := func(ctx context.Context, client *api.Client) (restoreReport, error) {
				changes, err := client.Restore(ctx, file.State, dryRun)
				if where := file.Where(err); where != "" {
					err = fmt.Errorf("%s: %s: %w", name, where, err)
				}
				return restoreReport{dryRun, changes}, err
			}
			return show(cmd.Context(), env, &director, output, restore, printRestore, printRestoreJSON)
		},
	}
	director.add(cmd, env)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check FILE and print what it would change, and change nothing")
	output.add(cmd)
	return cmd
}

func readState(env Env, name string, stdin bool) (savefile.File, error) {
	from := env.Stdin
	if !stdin {
		f, err := os.Open(name)
		if err != nil {
			return savefile.File{}, fmt.Errorf("restore: %w", err)
		}
		defer f.Close()
		from = f
	}
	file, err := savefile.Read(from)
	if err != nil {
		return savefile.File{}, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}

// A restoreReport is what "fairlead restore" tells, and its JSON.
type restoreReport struct {
	DryRun  bool     `json:"dry_run"`
	Changes []string `json:"changes"`
}

func printRestore(w io.Writer, r restoreReport) error {
	for _, change := range r.Changes {
		if _, err := fmt.Fprintln(w, change); err != nil {
			return err
		}
	}
	outcome := "restored"
	if r.DryRun {
		outcome = "dry run, nothing is changed"
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", outcome, plural(len(r.Changes), "change"))
	return err
}

func printRestoreJSON(w io.Writer, r restoreReport) error {
	if r.Changes == nil {
		r.Changes = []string{}
	}
	return encodeJSON(w, r)
}
