package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func newLocalAddressCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "local-address",
		Short: "Say which addresses clients come from for real servers with FullNAT",
		Long: `A real server that is added with --fullnat (not in IPVS) sees its clients come from local
addresses, which are the director's: so it answers the director by whatever way it has,
and needs no route. A local address and port is one client's for one real server's
address and port, and is free again when the connection has ended. Without a free one
a new connection is refused (answer-no-local-port in "fairlead status").

Answers have to come back to the director. It answers ARP and neighbour solicitations
for the addresses that it has itself (ip address add ADDRESS/32 dev eth0); list and
"fairlead doctor" tell which it has not. An address that the host uses for connections of its own, too, keeps
its ports apart: those here should be none of net.ipv4.ip_local_port_range.`,
		Example: `  fairlead local-address add 192.0.2.20
  fairlead ipvsadm -a -t 192.0.2.100:80 -r 198.51.100.11:8080 --fullnat --toa
  fairlead local-address list
  fairlead local-address remove 192.0.2.20`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newLocalAddressAddCommand(env), newLocalAddressRemoveCommand(env), newLocalAddressListCommand(env))
	return cmd
}

func newLocalAddressAddCommand(env Env) *cobra.Command {
	var director directorFlags
	var ports string
	cmd := &cobra.Command{
		Use:   "add ADDRESS[/PREFIX]",
		Short: "Let clients come from an address, or from all of a prefix",
		Example: `  fairlead local-address add 192.0.2.20
  fairlead local-address add 2001:db8::20
  fairlead local-address add 192.0.2.32/28 --ports 1024-65535`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix, err := lvs.ParseLocalPrefix(args[0])
			if err != nil {
				return err
			}
			local := lvs.LocalAddress{Prefix: prefix}
			if local.Ports, err = lvs.ParsePortRange(ports); err != nil {
				return fmt.Errorf("--ports: %w", err)
			}
			if err := local.Check(); err != nil {
				return err
			}
			return director.speak(func(client *api.Client) error { return client.AddLocalAddress(cmd.Context(), local) })
		},
	}
	director.add(cmd, env)
	cmd.Flags().StringVar(&ports, "ports", lvs.DefaultLocalPorts.String(), "`N-M`, its ports for clients")
	return cmd
}

func newLocalAddressRemoveCommand(env Env) *cobra.Command {
	var director directorFlags
	cmd := &cobra.Command{
		Use:     "remove ADDRESS[/PREFIX]",
		Short:   "Undo add; connections that come from there go on",
		Example: `  fairlead local-address remove 192.0.2.20`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix, err := lvs.ParseLocalPrefix(args[0])
			if err != nil {
				return err
			}
			return director.speak(func(client *api.Client) error { return client.DeleteLocalAddress(cmd.Context(), prefix) })
		},
	}
	director.add(cmd, env)
	return cmd
}

func newLocalAddressListCommand(env Env) *cobra.Command {
	return listing(env, &cobra.Command{
		Use:   "list",
		Short: "List the local addresses, and which of them the host has not",
		Example: `  fairlead local-address list
  fairlead local-address list -o json`,
	}, (*api.Client).LocalAddresses, printLocalAddresses, printLocalAddressesJSON)
}

func printLocalAddresses(w io.Writer, pool []lvs.LocalAddressStatus) error {
	return printTable(w, pool, "no local addresses", "ADDRESS\tPORTS\tPROBLEM", func(_ int, l lvs.LocalAddressStatus) string {
		return fmt.Sprintf("%s\t%s\t%s", l, l.Ports, orDash(l.Problem))
	})
}

type localAddressJSON struct {
	Address string `json:"address"`
	Ports   string `json:"ports"`
	Problem string `json:"problem,omitempty"`
}

func printLocalAddressesJSON(w io.Writer, pool []lvs.LocalAddressStatus) error {
	report := struct {
		LocalAddresses []localAddressJSON `json:"local_addresses"`
	}{[]localAddressJSON{}}
	for _, l := range pool {
		report.LocalAddresses = append(report.LocalAddresses, localAddressJSON{l.String(), l.Ports.String(), l.Problem})
	}
	return encodeJSON(w, report)
}
