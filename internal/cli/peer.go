package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func newPeerCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Name the other directors that forward to this host",
		Long: `A host that is a director, and a real server of another director too, must not
schedule what the other one has forwarded to it: the packet would go on to a third
host, or back. A packet for a virtual service whose frame comes from the MAC address
of a peer is left to the host's own stack.

Peers are those added here, until they are removed, and, where one of this director's
real servers is the host itself, all its other real servers on the segment. So a
cluster of two nodes that are director and real server both needs no peer added.`,
		Example: `  fairlead peer add 192.0.2.10
  fairlead peer list
  fairlead peer remove 192.0.2.10`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(
		newPeerChangeCommand(env, "add", "Leave what the director at this address forwards to the host", (*api.Client).AddPeer),
		newPeerChangeCommand(env, "remove", "Undo add", (*api.Client).DeletePeer),
		newPeerListCommand(env),
	)
	return cmd
}

func newPeerChangeCommand(env Env, verb, short string, change func(*api.Client, context.Context, netip.Addr) error) *cobra.Command {
	var director directorFlags
	cmd := &cobra.Command{
		Use:     verb + " ADDRESS",
		Short:   short,
		Example: fmt.Sprintf("  fairlead peer %s 192.0.2.10\n  fairlead peer %[1]s 2001:db8::10", verb),
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := netip.ParseAddr(args[0])
			if err != nil {
				return fmt.Errorf("ADDRESS %q: want the other director's own address, like 192.0.2.10", args[0])
			}
			return director.speak(func(client *api.Client) error { return change(client, cmd.Context(), addr) })
		},
	}
	director.add(cmd, env)
	return cmd
}

func newPeerListCommand(env Env) *cobra.Command {
	return listing(env, &cobra.Command{
		Use:   "list",
		Short: "List the peers, and what their frames are known by",
		Example: `  fairlead peer list
  fairlead peer list -o json`,
	}, (*api.Client).Peers, printPeers, printPeersJSON)
}

// peerOrigin says why it is a peer.
func peerOrigin(p lvs.Peer) string {
	if p.Configured {
		return "added"
	}
	return "real-server"
}

func peerMAC(p lvs.Peer) string {
	if p.MAC == (lvs.MAC{}) {
		return ""
	}
	return p.MAC.String()
}

func printPeers(w io.Writer, peers []lvs.Peer) error {
	return printTable(w, peers, "no peers", "PEER\tORIGIN\tMAC\tINTERFACE\tPROBLEM", func(_ int, p lvs.Peer) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", p.Address, peerOrigin(p), orDash(peerMAC(p)), orDash(p.Interface), orDash(p.Problem))
	})
}

type peerJSON struct {
	Address   string `json:"address"`
	Origin    string `json:"origin"` // "added" or "real-server"
	MAC       string `json:"mac,omitempty"`
	Interface string `json:"interface,omitempty"`
	Problem   string `json:"problem,omitempty"`
}

func printPeersJSON(w io.Writer, peers []lvs.Peer) error {
	report := struct {
		Peers []peerJSON `json:"peers"`
	}{[]peerJSON{}}
	for _, p := range peers {
		report.Peers = append(report.Peers, peerJSON{
			Address: p.Address.String(), Origin: peerOrigin(p), MAC: peerMAC(p), Interface: p.Interface, Problem: p.Problem,
		})
	}
	return encodeJSON(w, report)
}
