package cli

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/realserver"
)

// A realserverCommand holds what the commands of a real server share.
type realserverCommand struct {
	env     Env
	config  realserver.Config
	vips    []string
	request realserver.Request
	// tunnel, tunnelPort and tunnelFrom are the request's as they were typed.
	tunnel     string
	tunnelPort uint16
	tunnelFrom []string
}

func newRealserverCommand(env Env) *cobra.Command {
	c := &realserverCommand{env: env}
	cmd := &cobra.Command{
		Use:   "realserver",
		Short: "Make this host a real server, prove it, keep it, undo it",
		Long: `What a real server of direct routing or tunnelling needs: the VIP on lo, and ARP
settings that keep it to itself, set before the VIP; and the end of its tunnel. All of it happens in the network namespace
of the process.

"up" remembers every value before it changes it, in realserver.json in the run
directory, and "down" puts exactly those back.`,
		Example: `  fairlead realserver up --vip 192.0.2.100 --dry-run
  fairlead realserver up --vip 192.0.2.100,2001:db8::100 --persist
  fairlead realserver check
  fairlead realserver down --persist`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&c.config.RunDir, "run-dir", runDir(env),
		"the `directory` that holds what the host was before; also from "+runDirVariable)
	cmd.AddCommand(c.upCommand(), c.checkCommand(), c.downCommand(), c.runCommand())
	return cmd
}

func (c *realserverCommand) vipFlag(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&c.vips, "vip", nil, "virtual `addresses`, IPv4 or IPv6")
}

func (c *realserverCommand) requestFlags(cmd *cobra.Command) {
	c.vipFlag(cmd)
	cmd.Flags().StringVarP(&c.request.Interface, "interface", "i", "",
		"`name` of the interface that the director's frames come in on (default: that of the route to the VIP)")
	cmd.Flags().BoolVar(&c.request.Director, "director", false,
		"this host is a director of the VIPs too: it may have them on another interface besides lo")
	cmd.Flags().StringVar(&c.tunnel, "tunnel", "",
		"`type` of the tunnel that the VIPs' packets come in: ipip, gue or gre; an XDP program on the interface unwraps them")
	cmd.Flags().Uint16Var(&c.tunnelPort, "tunnel-port", realserver.DefaultTunnelPort, "UDP `port` that gue comes to")
	cmd.Flags().StringSliceVar(&c.tunnelFrom, "tunnel-from", nil,
		"`addresses` of the directors whose tunnels are unwrapped (default: anybody's)")
}

// open returns the host, once the VIPs are understood. The caller closes it.
func (c *realserverCommand) open() (*realserver.RealServer, error) {
	c.request.VIPs = nil
	for _, text := range c.vips {
		vip, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("--vip %q: want an IPv4 or IPv6 address", text)
		}
		c.request.VIPs = append(c.request.VIPs, vip)
	}
	if err := c.parseTunnel(); err != nil {
		return nil, err
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c.config.Executable = executable
	c.config.NotifySocket = c.env.Getenv("NOTIFY_SOCKET")
	c.config.Log = slog.New(slog.NewTextHandler(c.env.Stderr, nil))
	return realserver.Open(c.config)
}

func (c *realserverCommand) parseTunnel() (err error) {
	if c.request.Tunnel, err = realserver.ParseTunnel(c.tunnel, c.tunnelPort); err != nil {
		return fmt.Errorf("--tunnel: %w", err)
	}
	c.request.Directors = nil
	for _, text := range c.tunnelFrom {
		director, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--tunnel-from %q: want an IPv4 or IPv6 address", text)
		}
		c.request.Directors = append(c.request.Directors, director)
	}
	return nil
}

func (c *realserverCommand) upCommand() *cobra.Command {
	var persist, dryRun bool
	cmd := &cobra.Command{
		Use:   "up --vip ADDRESS[,ADDRESS...]",
		Short: "Set this host up for VIPs, besides those that it has",
		Long: `Set the ARP sysctls on all, on the interface and on lo, then rp_filter where the
default route leaves by another interface, and last the VIP on lo: in this order,
as before the sysctls the host would answer ARP for the VIP. A second time it does
nothing. If a step fails, those before it are undone.

The VIP gets the scope host, or for IPv6 a preferred lifetime of 0: the host never
takes it for the source of what it begins itself.

With --tunnel, the VIPs' packets come through a tunnel (ipvsadm -i): an XDP program on
the interface takes the outer headers off those that are for this host and hold a
packet to one of the VIPs. It needs no tunnel device of the kernel's.

--persist also writes a file in /etc/sysctl.d and a systemd unit, so that the host
is a real server after a reboot too.`,
		Example: `  fairlead realserver up --vip 192.0.2.100
  fairlead realserver up --vip 192.0.2.100,2001:db8::100 --interface eth0 --persist
  fairlead realserver up --vip 192.0.2.100 --director
  fairlead realserver up --vip 192.0.2.100 --tunnel gue --tunnel-from 198.51.100.1
  fairlead realserver up --vip 192.0.2.100 --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			defer r.Close()
			if dryRun {
				plan, err := r.Plan(c.request, persist)
				if err != nil {
					return err
				}
				return plan.WriteScript(c.env.Stdout)
			}
			plan, err := r.Up(c.request, persist)
			if err != nil {
				return err
			}
			c.report(plan.Changes(), "nothing to do: the host is a real server for these VIPs already")
			for _, v := range plan.Exposed {
				fmt.Fprintf(c.env.Stderr, "warning: %s\n  %s\n", realserver.Exposure(v), realserver.Recall(v))
			}
			if persist {
				fmt.Fprintln(c.env.Stdout, "to keep it so from now on, too: systemctl daemon-reload && systemctl start fairlead-realserver")
			}
			return nil
		},
	}
	c.requestFlags(cmd)
	cmd.Flags().BoolVar(&persist, "persist", false, "survive a reboot: write sysctl.d and a systemd unit")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing; print the shell commands that do the same")
	return cmd
}

func (c *realserverCommand) report(changes []string, none string) {
	if len(changes) == 0 {
		fmt.Fprintln(c.env.Stdout, none)
	}
	for _, change := range changes {
		fmt.Fprintln(c.env.Stdout, change)
	}
}

func (c *realserverCommand) downCommand() *cobra.Command {
	var persist bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Undo what up did: put back every value as it was",
		Long: `Take the VIPs away and put every sysctl back as it was before "up". With --vip,
only those go, and with the last one the sysctls. If there was no "up", it does
nothing.`,
		Example: `  fairlead realserver down
  fairlead realserver down --vip 192.0.2.101
  fairlead realserver down --persist`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			defer r.Close()
			changes, err := r.Down(c.request.VIPs, persist)
			if err != nil {
				return err
			}
			c.report(changes, "nothing to undo")
			if r.Persisted() && !persist {
				fmt.Fprintln(c.env.Stderr, "warning: the next boot makes the host a real server again: fairlead realserver down --persist")
			}
			return nil
		},
	}
	c.vipFlag(cmd)
	cmd.Flags().BoolVar(&persist, "persist", false, "also remove the files that \"up --persist\" wrote")
	return cmd
}

// The exit statuses of check besides 0.
const (
	statusWrong      = 1
	statusCannotTell = 2
)

func (c *realserverCommand) checkCommand() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check all that a real server needs, and say what mends it",
		Long: `Check every sysctl and address, and print for each that is wrong what goes wrong
with it and the command that mends it. It changes nothing and needs no privileges.
Without --vip it checks the VIPs that "up" set up.

The exit status is 0 if all is as it must be, 1 if something is not, and 2 if that
cannot be told.`,
		Example: `  fairlead realserver check
  fairlead realserver check --vip 192.0.2.100 --interface eth0
  fairlead realserver check -o json | jq '.points[] | select(.ok | not) | .mend'`,
		Args: func(cmd *cobra.Command, args []string) error { return c.cannotTell(cobra.NoArgs(cmd, args)) },
		RunE: func(*cobra.Command, []string) error {
			if err := output.check(); err != nil {
				return c.cannotTell(err)
			}
			points, err := c.check()
			if err != nil {
				return c.cannotTell(err)
			}
			write := writePoints
			if output == jsonOutput {
				write = writePointsJSON
			}
			if err := write(c.env.Stdout, points); err != nil {
				return c.cannotTell(err)
			}
			if wrong(points) > 0 {
				return exitError(statusWrong)
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return c.cannotTell(fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath()))
	})
	c.requestFlags(cmd)
	output.add(cmd)
	return cmd
}

func (c *realserverCommand) check() ([]realserver.Point, error) {
	r, err := c.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Check(c.request)
}

// cannotTell prints the error, if there is one, and gives it the status that
// scripts know from "wrong".
func (c *realserverCommand) cannotTell(err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintf(c.env.Stderr, "fairlead: %v\n", err)
	return exitError(statusCannotTell)
}

func wrong(points []realserver.Point) int {
	count := 0
	for _, p := range points {
		if !p.OK {
			count++
		}
	}
	return count
}

func writePoints(w io.Writer, points []realserver.Point) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range points {
		if p.OK {
			fmt.Fprintf(table, "ok\t%s\t%s\n", p.Name, p.Found)
		} else {
			fmt.Fprintf(table, "wrong\t%s\t%s, want %s\n", p.Name, p.Found, p.Want)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range points {
		if p.OK {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s: %s:\n  %s\n", p.Name, p.Why, p.Mend); err != nil {
			return err
		}
	}
	return nil
}

func writePointsJSON(w io.Writer, points []realserver.Point) error {
	return encodeJSON(w, struct {
		OK     bool               `json:"ok"`
		Points []realserver.Point `json:"points"`
	}{wrong(points) == 0, points})
}

func (c *realserverCommand) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Set this host up and keep it so, in the foreground",
		Long: `Do what "up" does, then repair and log within two seconds what others change, until
SIGTERM or SIGINT. The host stays a real server then: "down" undoes it. Without
--vip it keeps the VIPs that "up" set up, before the last reboot with --persist.
It tells a service manager when it is ready.`,
		Example: `  fairlead realserver run
  fairlead realserver run --vip 192.0.2.100 --interface eth0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			defer r.Close()
			signal.Ignore(syscall.SIGHUP)
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return r.Run(ctx, c.request)
		},
	}
	c.requestFlags(cmd)
	return cmd
}
