package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
)

func newApplyCommand(env Env) *cobra.Command {
	var director directorFlags
	var file string
	var output outputFormat
	var dryRun, prune bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the director's state the one that a configuration asks for",
		Long: `Make the director's state the one that a configuration asks for, all of it or nothing,
and print what that changed. FILE is YAML or JSON; - is standard input.

Everything is checked before the first change, and each error is told with its line and
column. New things come before what goes, so that no step in between misdirects a
packet, and what is in both keeps its connections and counters.

What was changed by hand since the last configuration (by ipvsadm, by other commands or
through the API) stays where the new configuration says the same as the last one. It is
told as drift; --prune takes it back. Each configuration that is applied is a revision,
to which "fairlead rollback" returns.`,
		Example: `  fairlead apply -f fairlead.yaml --dry-run
  fairlead apply -f fairlead.yaml
  fairlead apply -f fairlead.yaml --prune -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			text, err := readConfiguration(env, file)
			if err != nil {
				return err
			}
			apply := func(ctx context.Context, client *api.Client) (appliedReport, error) {
				applied, err := client.Apply(ctx, api.ApplyRequest{Name: file, Text: text, DryRun: dryRun, Prune: prune})
				return appliedReport{applied, dryRun}, err
			}
			return show(cmd.Context(), env, &director, output, apply, printApplied, printAppliedJSON)
		},
	}
	director.add(cmd, env)
	fileFlag(cmd, &file)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check FILE and print what it would change, and change nothing")
	cmd.Flags().BoolVar(&prune, "prune", false, "take back what was changed by hand")
	output.add(cmd)
	return cmd
}

func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "the configuration `file`; - is standard input")
}

// readConfiguration reads a file, or standard input for "-".
func readConfiguration(env Env, name string) ([]byte, error) {
	switch name {
	case "":
		return nil, errors.New("no configuration: name its file: -f fairlead.yaml, or - for standard input")
	case "-":
		return io.ReadAll(env.Stdin)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return text, nil
}

func newDiffCommand(env Env) *cobra.Command {
	var director directorFlags
	var file string
	var output outputFormat
	var prune bool
	cmd := &cobra.Command{
		Use:   "diff [-f FILE]",
		Short: "Show what a configuration would change, or what was changed by hand",
		Long: `With -f, show what applying a configuration would change. Without, show in what the
director's state differs from the configuration that was applied last: what was changed
by hand since then.

The exit status is 1 if there is a difference, 0 if there is none.`,
		Example: `  fairlead diff
  fairlead diff -f fairlead.yaml
  fairlead diff -f fairlead.yaml --prune -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if prune && file == "" {
				return errors.New("--prune: want -f with it")
			}
			differ := false
			compare := func(ctx context.Context, client *api.Client) ([]api.Change, error) {
				changes, err := differences(ctx, env, client, file, prune)
				differ = len(changes) > 0
				return changes, err
			}
			err := show(cmd.Context(), env, &director, output, compare, printChanges, printChangesJSON)
			if err == nil && differ {
				err = exitError(1)
			}
			return err
		},
	}
	director.add(cmd, env)
	fileFlag(cmd, &file)
	cmd.Flags().BoolVar(&prune, "prune", false, "as apply --prune would")
	output.add(cmd)
	return cmd
}

func differences(ctx context.Context, env Env, client *api.Client, file string, prune bool) ([]api.Change, error) {
	if file == "" {
		return client.Drift(ctx)
	}
	text, err := readConfiguration(env, file)
	if err != nil {
		return nil, err
	}
	applied, err := client.Apply(ctx, api.ApplyRequest{Name: file, Text: text, DryRun: true, Prune: prune})
	return applied.Changes, err
}

func newExportCommand(env Env) *cobra.Command {
	var director directorFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the director's state as a configuration",
		Long: `Print the director's state, as it is now, as a configuration that "fairlead apply" takes:
what was configured and what was changed by hand. Services that differ in their addresses
alone are one item.`,
		Example: `  fairlead export >fairlead.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return director.speak(func(client *api.Client) error {
				text, err := client.Export(cmd.Context())
				if err != nil {
					return err
				}
				_, err = io.WriteString(env.Stdout, text)
				return err
			})
		},
	}
	director.add(cmd, env)
	return cmd
}

func newRollbackCommand(env Env) *cobra.Command {
	var director directorFlags
	var output outputFormat
	var to int
	var dryRun, list bool
	cmd := &cobra.Command{
		Use:   "rollback [--to N]",
		Short: "Apply a configuration again that was applied before",
		Long: `Apply the configuration of an earlier revision again: that before the one in force, or
the one that --to names. What was changed by hand stays, as with apply. The result is a
new revision. A director that follows a configuration file applies the file again when
that changes.`,
		Example: `  fairlead rollback --list
  fairlead rollback
  fairlead rollback --to 3 --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				revisions := func(ctx context.Context, client *api.Client) ([]api.Revision, error) { return client.Revisions(ctx) }
				return show(cmd.Context(), env, &director, output, revisions, printRevisions, printRevisionsJSON)
			}
			if cmd.Flags().Changed("to") && to < 1 {
				return fmt.Errorf("--to %d: want the number of a revision; fairlead rollback --list shows them", to)
			}
			rollback := func(ctx context.Context, client *api.Client) (appliedReport, error) {
				applied, err := client.Rollback(ctx, to, dryRun)
				return appliedReport{applied, dryRun}, err
			}
			return show(cmd.Context(), env, &director, output, rollback, printApplied, printAppliedJSON)
		},
	}
	director.add(cmd, env)
	cmd.Flags().IntVar(&to, "to", 0, "the `number` of a revision")
	cmd.Flags().BoolVar(&list, "list", false, "list the revisions, and change nothing")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would change, and change nothing")
	output.add(cmd)
	return cmd
}

// An appliedReport is what apply and rollback tell.
type appliedReport struct {
	api.Applied
	dryRun bool
}

func printChanges(w io.Writer, changes []api.Change) error {
	for _, c := range changes {
		text := c.Sign + " " + c.Text
		if c.Detail != "" {
			text += ": " + c.Detail
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

func printApplied(w io.Writer, r appliedReport) error {
	if err := printChanges(w, r.Changes); err != nil {
		return err
	}
	outcome := fmt.Sprintf("revision %d", r.Revision)
	if r.dryRun {
		outcome = "dry run, nothing is changed"
	}
	fmt.Fprintf(w, "%s: %s\n", outcome, plural(len(r.Changes), "change"))
	if len(r.Drift) == 0 {
		return nil
	}
	fmt.Fprintf(w, "drift: %s that was made by hand stays; apply --prune takes it back:\n", plural(len(r.Drift), "difference"))
	return printChanges(w, r.Drift)
}

func printRevisions(w io.Writer, revisions []api.Revision) error {
	const none, columns = "no revisions: no configuration was applied", "REVISION\tTIME\tFILE\tSAME AS"
	return printTable(w, revisions, none, columns, func(_ int, r api.Revision) string {
		of := "-"
		if r.Of != r.Number {
			of = fmt.Sprint(r.Of)
		}
		return fmt.Sprintf("%d\t%s\t%s\t%s", r.Number, r.Time.Local().Format(time.DateTime), r.Name, of)
	})
}

// What follows is JSON that programs rely on.

type changeJSON struct {
	Sign   string `json:"sign"` // "+", "-" or "~"
	Text   string `json:"text"`
	Detail string `json:"detail,omitempty"`
}

func changesJSON(changes []api.Change) []changeJSON {
	all := make([]changeJSON, 0, len(changes))
	for _, c := range changes {
		all = append(all, changeJSON(c))
	}
	return all
}

func printChangesJSON(w io.Writer, changes []api.Change) error {
	return encodeJSON(w, map[string][]changeJSON{"changes": changesJSON(changes)})
}

func printAppliedJSON(w io.Writer, r appliedReport) error {
	return encodeJSON(w, struct {
		DryRun   bool         `json:"dry_run"`
		Revision int          `json:"revision"`
		Changes  []changeJSON `json:"changes"`
		Drift    []changeJSON `json:"drift"`
	}{r.dryRun, r.Revision, changesJSON(r.Changes), changesJSON(r.Drift)})
}

type revisionJSON struct {
	Number int       `json:"number"`
	Time   time.Time `json:"time"`
	File   string    `json:"file"`
	SameAs int       `json:"same_as"`
}

func printRevisionsJSON(w io.Writer, revisions []api.Revision) error {
	all := make([]revisionJSON, 0, len(revisions))
	for _, r := range revisions {
		all = append(all, revisionJSON{r.Number, r.Time, r.Name, r.Of})
	}
	return encodeJSON(w, map[string][]revisionJSON{"revisions": all})
}
