package cli

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/doctor"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// statusNoDiagnosis is the doctor's exit status when it could not examine.
const statusNoDiagnosis = 3

func newDoctorCommand(env Env) *cobra.Command {
	var dir string
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong on the path, name the host, print the command that mends it",
		Long: `Examine, on the director, the path of every virtual service:

  who else answers for the VIP, has it or answers for others (proxy ARP)
  each real server: is it at the MAC address that the director sends to, does it
    accept packets for the VIP, keep them, take those of full size, answer clients
    that wait, and keep the VIP out of its own ARP requests
  which neighbours have learnt a wrong MAC address for the VIP
  the director: its addresses, XDP mode, what joins packets before XDP, rp_filter

Each finding says which host it is about, why direct routing fails with it, and the
commands that mend it. What is told with level healthy is no fault.

It sends single ARP requests, neighbour solicitations, echo requests, empty UDP
datagrams, and SYNs that it ends with a RST. A service of UDP proves nothing by its
silence; an echo request and a port where nobody listens prove the VIP then. Hosts
have the names that /etc/hosts or the name server knows at once. It needs root, or
CAP_NET_RAW.

The exit status is 0 if all is well, 1 if the worst finding is a warning, 2 if it
is an error, and 3 if that cannot be told.`,
		Example: `  fairlead doctor
  fairlead doctor -o json | jq -r '.findings[].mend[].command'
  fairlead doctor announce 192.0.2.100`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return noDiagnosis(env, err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			client := clientOf(dir)
			defer client.Close()
			findings, err := doctor.Examine(ctx, client)
			if err != nil {
				return noDiagnosis(env, err)
			}
			write := writeFindings
			if output == jsonOutput {
				write = writeFindingsJSON
			}
			if err := write(env.Stdout, findings); err != nil {
				return noDiagnosis(env, err)
			}
			if worst := doctor.Worst(findings); worst > doctor.Healthy {
				return exitError(worst)
			}
			return nil
		},
	}
	runDirFlag(cmd, env, &dir)
	output.add(cmd)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return noDiagnosis(env, fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath()))
	})
	cmd.AddCommand(newAnnounceCommand())
	return cmd
}

func newAnnounceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "announce VIP",
		Short: "Tell the neighbours that the VIP is at this host",
		Long: `Send gratuitous ARP, or for IPv6 unsolicited neighbour advertisements, on every
segment where this host has the VIP: three times in some two seconds. Neighbours
that have learnt another MAC address for the VIP learn the right one.`,
		Example: `  fairlead doctor announce 192.0.2.100`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			vip, err := netip.ParseAddr(args[0])
			if err != nil || !lvs.IsPlain(vip) {
				return fmt.Errorf("VIP %q: want an IPv4 or IPv6 address", args[0])
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return doctor.Announce(ctx, vip)
		},
	}
}

// noDiagnosis prints the error, and gives it the status that scripts know from a
// finding.
func noDiagnosis(env Env, err error) error {
	fmt.Fprintf(env.Stderr, "fairlead: %v\n", err)
	return exitError(statusNoDiagnosis)
}

func writeFindings(w io.Writer, findings []doctor.Finding) error {
	well := doctor.Worst(findings) == doctor.Healthy
	if well {
		if _, err := fmt.Fprintln(w, "all is well"); err != nil {
			return err
		}
	}
	for i, f := range findings {
		if i > 0 || well {
			fmt.Fprintln(w)
		}
		title := strings.TrimRight(fmt.Sprintf("%s  %s  %s", f.Level, f.Check, f.Service), " ")
		fmt.Fprintf(w, "%s\n  %s\n  %s\n", title, f.What, f.Why)
		for _, remedy := range f.Mend {
			if _, err := fmt.Fprintf(w, "  on %s:\n    %s\n", remedy.Host, remedy.Command); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeFindingsJSON(w io.Writer, findings []doctor.Finding) error {
	return encodeJSON(w, struct {
		Level    doctor.Level     `json:"level"`
		Findings []doctor.Finding `json:"findings"`
	}{doctor.Worst(findings), append([]doctor.Finding{}, findings...)})
}
