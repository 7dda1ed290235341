package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/config"
	"github.com/fairlead-lb/fairlead/internal/director"
	"github.com/fairlead-lb/fairlead/internal/ipvsadm"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func newImportCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Turn the configuration of keepalived or ipvsadm into one of fairlead",
		Long: `Turn the configuration of another program into one of fairlead. The configuration is
printed on standard output; each line that is not carried over, or not as a whole, on
standard error, with its place and the reason.`,
		Example: `  fairlead import keepalived /etc/keepalived/keepalived.conf >fairlead.yaml
  ipvsadm-save -n | fairlead import ipvsadm-save - >fairlead.yaml`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newImportKeepalivedCommand(env), newImportIpvsadmCommand(env))
	return cmd
}

func newImportKeepalivedCommand(env Env) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "keepalived FILE",
		Short: "Turn a keepalived.conf into a configuration",
		Long: `Turn a keepalived.conf, with the files that it includes, into a configuration: virtual
servers, groups, real servers, checks, quorums, sorry servers, notices and timeouts. Checks
go to the real servers' own addresses, as keepalived's do (path: rip).

Each line that is not carried over, or not as a whole, is listed on standard error with its
place and the reason: VRRP, mail, SNMP, and what fairlead does in another way.`,
		Example: `  fairlead import keepalived /etc/keepalived/keepalived.conf >fairlead.yaml
  fairlead import keepalived --config-id main keepalived.conf >fairlead.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("config-id") {
				host, err := os.Hostname()
				if err != nil {
					return fmt.Errorf("configuration id: %w; name it: --config-id ID", err)
				}
				id, _, _ = strings.Cut(host, ".")
			}
			configuration, listed, err := config.ImportKeepalived(args[0], id)
			if err != nil {
				return err
			}
			return printImport(env, configuration, listed)
		},
	}
	cmd.Flags().StringVar(&id, "config-id", "", "keepalived's configuration `id`, for lines that begin with @ (default: the host's name)")
	return cmd
}

func newImportIpvsadmCommand(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "ipvsadm-save [FILE]",
		Short: "Turn what ipvsadm-save prints into a configuration",
		Long: `Turn the rules that ipvsadm-save prints into a configuration. Without FILE, or with -, they
are read from standard input. Servers come in the order of the rules.`,
		Example: `  ipvsadm-save -n | fairlead import ipvsadm-save >fairlead.yaml
  fairlead import ipvsadm-save /etc/ipvsadm.rules >fairlead.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, from := "standard input", env.Stdin
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("import: %w", err)
				}
				defer f.Close()
				name, from = args[0], f
			}
			rules, err := io.ReadAll(from)
			if err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			state, refused := ipvsadm.ReadRules(cmd.Context(), ipvsadm.Judge{Service: director.CheckService, Server: director.CheckServer}, string(rules))
			var listed []config.Listed
			for _, r := range refused {
				listed = append(listed, config.Listed{File: name, Line: r.Line, Text: r.Text, Reason: r.Reason})
			}
			return printImport(env, lvs.Configuration{State: state}, listed)
		},
	}
}

// printImport prints a configuration, and what is not in it.
func printImport(env Env, configuration lvs.Configuration, listed []config.Listed) error {
	text := config.Write(configuration)
	if _, err := config.Parse("the imported configuration", []byte(text)); err != nil {
		return errors.Join(errors.New("what is imported is no configuration: that is a fault of fairlead"), err)
	}
	var lines bytes.Buffer
	for _, l := range listed {
		fmt.Fprintln(&lines, l)
	}
	if len(listed) > 0 {
		fmt.Fprintf(&lines, "%s not carried over as it is\n", plural(len(listed), "line"))
	}
	if _, err := env.Stderr.Write(lines.Bytes()); err != nil {
		return err
	}
	_, err := io.WriteString(env.Stdout, text)
	return err
}
