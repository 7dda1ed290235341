package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/config"
)

func newConfigCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration, and print its JSON Schema",
		Example: `  fairlead config check -f fairlead.yaml
  fairlead config schema >fairlead.schema.json`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newConfigCheckCommand(env), newConfigSchemaCommand(env))
	return cmd
}

func newConfigCheckCommand(env Env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check -f FILE",
		Short: "Check a configuration, without a director",
		Long: `Check a configuration as far as that goes without a director: its form, its keys, its
values and how they go together. "fairlead apply --dry-run" asks a director, too.`,
		Example: `  fairlead config check -f fairlead.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := readConfiguration(env, file)
			if err != nil {
				return err
			}
			parsed, err := config.Parse(file, text)
			if err != nil {
				return err
			}
			servers := 0
			for _, s := range parsed.Services {
				servers += len(s.Servers)
			}
			_, err = fmt.Fprintf(env.Stdout, "%s: %s, %s\n", file, plural(len(parsed.Services), "service"), plural(servers, "real server"))
			return err
		},
	}
	fileFlag(cmd, &file)
	return cmd
}

func newConfigSchemaCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Long: `Print the JSON Schema of the configuration file. An editor that knows JSON Schema for YAML
completes keys by it, shows what they mean and marks mistakes, for example where the file
begins with:

  # yaml-language-server: $schema=fairlead.schema.json`,
		Example: `  fairlead config schema >fairlead.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(env.Stdout, config.Schema())
			return err
		},
	}
}
