package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// listing makes cmd one that lists what a director has of a kind: by text for people, by json for
// programs.
func listing[T any](env Env, cmd *cobra.Command, list func(*api.Client, context.Context) ([]T, error),
	text, json func(io.Writer, []T) error) *cobra.Command {
	var director directorFlags
	var output outputFormat
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, client *api.Client) ([]T, error) { return list(client, ctx) }
		return show(cmd.Context(), env, &director, output, ask, text, json)
	}
	director.add(cmd, env)
	output.add(cmd)
	return cmd
}

// printTable prints the line of each item, counted from 0, below the names of its columns; of no
// items, what none says. Tabs part the columns.
func printTable[T any](w io.Writer, items []T, none, columns string, line func(i int, item T) string) error {
	if len(items) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, columns)
	for i, item := range items {
		fmt.Fprintln(t, line(i, item))
	}
	return t.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
