package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
)

// An outputFormat is what --output says: text for people or JSON for programs.
type outputFormat string

const (
	textOutput outputFormat = "text"
	jsonOutput outputFormat = "json"
)

// add gives cmd the option.
func (f *outputFormat) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(f), "output", "o", string(textOutput), "`format`: text or json")
	completeFlag(cmd, "output", string(textOutput), string(jsonOutput))
}

// check refuses any other format.
func (f outputFormat) check() error {
	if f != textOutput && f != jsonOutput {
		return fmt.Errorf("--output %s: want text or json", f)
	}
	return nil
}

// show prints what ask has from a director, by text or by json as output says. With
// another output it asks nothing.
func show[T any](ctx context.Context, env Env, director *directorFlags, output outputFormat,
	ask func(context.Context, *api.Client) (T, error), text, json func(io.Writer, T) error) error {
	if err := output.check(); err != nil {
		return err
	}
	return director.speak(func(client *api.Client) error {
		answer, err := ask(ctx, client)
		switch {
		case err != nil:
			return err
		case output == jsonOutput:
			return json(env.Stdout, answer)
		}
		return text(env.Stdout, answer)
	})
}

// encodeJSON prints a value as people like to read JSON, too.
func encodeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
