package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// labDirectoryVariable moves the directory of all labs.
const labDirectoryVariable = "FAIRLEAD_LAB_DIR"

// A labCommand holds what all commands of the lab share.
type labCommand struct {
	env    Env
	config lab.Config
	output outputFormat
}

func newLabCommand(env Env) *cobra.Command {
	c := &labCommand{env: env, config: lab.Config{Directory: env.Getenv(labDirectoryVariable)}}
	var run labRun
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "A whole LVS network on one machine",
		Long: `Builds a switch, a client, a director and real servers, each in a network
namespace of its own with a real ARP and TCP stack; adds a virtual service with
ipvsadm's commands; sends requests through it; tells the journey of the first
connection frame by frame; checks what LVS-DR promises; and takes all of it down.
The exit status is 0 only if every check is ok.

With --break it makes a mistake that people make with LVS, and shows what
becomes of real traffic, what the doctor finds, and that its commands mend it.
The exit status is 0 only if all of that is so.

With --topology routed the client is behind a router, which then is the one that
learns where the VIP is, and to which the real servers answer.

With --method nat the real servers have no VIP; the director is their way to the
clients, who are answered through it, and the service's port 80 is theirs of 8088.
With --method fullnat (not in IPVS) they need no way to clients: these come from the
director's local address, 192.0.2.200 or 2001:db8::200, and are answered there.

"lab up" keeps a network to play with. Its VIP is 192.0.2.100 and 2001:db8::100,
the director is 192.0.2.10, the real servers are 192.0.2.11 and up; the client is
192.0.2.1, or 198.51.100.1 behind the router 192.0.2.2. Real servers answer HTTP
on port 80, and UDP on port 7, with their names; with --method nat or fullnat on
ports 8088 and 8007 of their own addresses.

Labs live under ` + lab.DefaultDirectory + `, or where ` + labDirectoryVariable + ` says.`,
		Example: `  fairlead lab
  fairlead lab --family 6 --scheduler wrr --weights 3,2,1 --pcap lab.pcapng
  fairlead lab -o json | jq .checks
  fairlead lab --break arp-announce --topology routed
  fairlead lab --method tun-gue --family 6
  fairlead lab --method nat --topology routed
  fairlead lab --method fullnat --family 6`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			return run.complete(cmd.Flags().Changed("servers"))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return c.interruptible(cmd, run.demonstrate) },
	}
	run.labCommand = c
	cmd.PersistentFlags().StringVar(&c.config.Name, "name", lab.DefaultName, "name of the lab; labs of different names run side by side")
	flags := cmd.Flags()
	flags.IntVar(&run.options.Requests, "requests", 600, "requests to send, each over a new connection")
	flags.StringVar((*string)(&run.options.Scheduler), "scheduler", string(lvs.DefaultScheduler), "scheduler of the service")
	flags.IntSliceVar(&run.options.Weights, "weights", nil, "weights of the real servers (default 4,2,4,2,...)")
	flags.IntVar((*int)(&run.options.Family), "family", 4, "IP version of the service, 4 or 6")
	c.addNetworkFlags(cmd)
	flags.StringVar(&run.pcap, "pcap", "", "write the frames of all hosts to this file (pcapng, one interface a host)")
	flags.StringVar(&run.fault, "break", "", "show this `fault`, the doctor's finding and the mended network: "+faultNames())
	c.output.add(cmd)
	cmd.AddCommand(c.upCommand(), c.execCommand(), c.statusCommand(), c.downCommand(), c.killCommand(), c.startCommand(), c.serveCommand())
	return cmd
}

func (c *labCommand) addNetworkFlags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&c.config.Servers, "servers", 2, "number of real servers")
	cmd.Flags().StringVar((*string)(&c.config.Topology), "topology", string(lab.Flat),
		"flat: the client is on the segment of the real servers; routed: it is behind a router")
	cmd.Flags().StringVar((*string)(&c.config.Method), "method", string(lab.DirectRouting),
		"how packets reach the real servers: dr, nat, fullnat, tun-ipip, tun-gue or tun-gre")
}

func (c *labCommand) printJSON(value any) error {
	encoder := json.NewEncoder(c.env.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// progress tells people, on standard error, what long work is at.
func (c *labCommand) progress(step string) { fmt.Fprintf(c.env.Stderr, "lab: %s\n", step) }

// binary fills in the program that the lab's processes run: this one.
func (c *labCommand) binary() error {
	path, err := os.Executable()
	c.config.Binary = path
	return err
}

// interruptible runs f with a context that ends on a signal. Until f has
// returned, further signals change nothing: what it takes down is taken down to
// the end.
func (c *labCommand) interruptible(cmd *cobra.Command, f func(context.Context) error) error {
	if err := c.binary(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := f(ctx)
	if ctx.Err() != nil && cmd.Context().Err() == nil {
		fmt.Fprintf(c.env.Stderr, "fairlead: lab %s: %v\n", c.config.Name, err)
		return exitError(130)
	}
	return err
}

func (c *labCommand) upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build a lab and keep it running",
		Example: `  fairlead lab up
  fairlead lab exec director ipvsadm -A -t 192.0.2.100:80 -s wlc
  fairlead lab exec director ipvsadm -a -t 192.0.2.100:80 -r 192.0.2.11:80 -g -w 4
  fairlead lab exec client curl -s http://192.0.2.100/
  fairlead lab down`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.interruptible(cmd, func(ctx context.Context) error {
				l, err := lab.Up(ctx, c.config, c.progress)
				if err != nil {
					return err
				}
				c.progress(fmt.Sprintf("%s is up, until `fairlead lab down --name %[1]s`", c.config.Name))
				return l.Keep()
			})
		},
	}
	c.addNetworkFlags(cmd)
	return cmd
}

func (c *labCommand) execCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec HOST COMMAND [ARGUMENT...]",
		Short: "Run a command on a host of the lab",
		Long: `Runs a command in the network namespace of a host: client, director, rs1, rs2
and so on, router or switch. ipvsadm and fairlead are this program there, and act on the
lab's director. The exit status is the command's.`,
		Example: `  fairlead lab exec director ipvsadm -Ln
  fairlead lab exec client ab -n 10000 -c 50 http://192.0.2.100/
  fairlead lab exec rs1 ip address show dev lo`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			host, command := args[0], args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 {
				return fmt.Errorf("no command for %s: name one, such as `fairlead lab exec %s ip address`", host, host)
			}
			l, err := lab.Open(c.config)
			if err != nil {
				return err
			}
			return errors.Join(l.Exec(host, command), l.Close())
		},
	}
	// What follows the host belongs to its command.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (c *labCommand) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the hosts of a lab",
		Example: `  fairlead lab status
  fairlead lab status -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := c.output.check(); err != nil {
				return err
			}
			l, err := lab.Open(c.config)
			if err != nil {
				return err
			}
			hosts, err := l.Status()
			if err := errors.Join(err, l.Close()); err != nil {
				return err
			}
			if c.output == jsonOutput {
				return c.printJSON(hosts)
			}
			return writeHosts(c.env.Stdout, hosts)
		},
	}
	c.output.add(cmd)
	return cmd
}

func writeHosts(w io.Writer, hosts []lab.HostStatus) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tMAC\tIPV4\tIPV6\tPROGRAM")
	for _, host := range hosts {
		program := "-"
		switch {
		case host.Running:
			program = fmt.Sprintf("running, process %d", host.PID)
		case host.PID != 0:
			program = fmt.Sprintf("not running: fairlead lab start %s", host.Name)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", host.Name, host.MAC, host.IPv4, host.IPv6, program)
	}
	return table.Flush()
}

func (c *labCommand) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take a lab down and leave nothing",
		Long: `Ends the lab's programs and the commands that still run on its hosts, unloads
the director's data plane, and removes the namespaces and all files. It also
clears away what is left of a lab whose process was killed.`,
		Example: `  fairlead lab down`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Down(context.WithoutCancel(cmd.Context()), c.config)
		},
	}
}

func (c *labCommand) killCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "kill HOST",
		Short:   "Kill the director's daemon, or a real server's program, with SIGKILL",
		Example: `  fairlead lab kill director`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.opened(func(l *lab.Lab) error { return l.Kill(cmd.Context(), args[0]) })
		},
	}
}

func (c *labCommand) startCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "start HOST",
		Short:   "Start the director's daemon, or a real server's program, again",
		Example: `  fairlead lab start director`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.opened(func(l *lab.Lab) error { return l.Start(cmd.Context(), args[0]) })
		},
	}
}

func (c *labCommand) opened(f func(*lab.Lab) error) error {
	l, err := lab.Open(c.config)
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Close())
}

// serveCommand is what the lab runs on a real server.
func (c *labCommand) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "serve NAME PROTOCOL/ADDRESS:PORT...",
		Short:   "Answer HTTP and UDP with a name",
		Example: `  fairlead lab serve rs1 tcp/:80 udp/192.0.2.100:7`,
		Hidden:  true,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			var addresses []lab.Address
			for _, address := range args[1:] {
				addresses = append(addresses, lab.Address(address))
			}
			return lab.Serve(ctx, args[0], addresses)
		},
	}
}

// A labRun is the lab's main job.
type labRun struct {
	*labCommand
	options lab.Options
	pcap    string
	fault   string // "" for a network without one
}

// complete checks the options and fills in what was not given.
func (r *labRun) complete(serversGiven bool) error {
	if err := r.output.check(); err != nil {
		return err
	}
	o := &r.options
	switch {
	case o.Requests < 1:
		return fmt.Errorf("--requests %d: at least 1", o.Requests)
	case o.Family != lab.IPv4 && o.Family != lab.IPv6:
		return fmt.Errorf("--family %d: 4 or 6", o.Family)
	case serversGiven && o.Weights != nil && len(o.Weights) != r.config.Servers:
		return fmt.Errorf("--weights: %d weights for %d real servers", len(o.Weights), r.config.Servers)
	case o.Weights != nil:
		r.config.Servers = len(o.Weights)
	}
	if err := r.config.Check(); err != nil {
		return err
	}
	for i := len(o.Weights); i < r.config.Servers; i++ {
		o.Weights = append(o.Weights, 4-i%2*2)
	}
	return r.checkFault()
}

func (r *labRun) demonstrate(ctx context.Context) (err error) {
	var pcap *os.File
	if r.pcap != "" {
		if pcap, err = os.Create(r.pcap); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pcap.Close()) }()
	}
	l, err := lab.Up(ctx, r.config, r.progress)
	if err != nil {
		return err
	}
	defer func() {
		r.progress("taking the network down")
		err = errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}()
	if r.fault != "" {
		return r.breakNetwork(ctx, l)
	}
	d, err := l.Demonstrate(ctx, r.options, r.progress)
	if err != nil {
		return err
	}
	if pcap != nil {
		if err := d.WritePcapng(pcap, l.Hosts()); err != nil {
			return err
		}
		if missing := d.Seen - len(d.Frames); missing > 0 {
			r.progress(fmt.Sprintf("%s has the first %d frames, without the %d after them", r.pcap, len(d.Frames), missing))
		}
	}
	if err := r.print(d); err != nil || d.OK {
		return err
	}
	return fmt.Errorf("lab %s: not as LVS-DR promises: %s", r.config.Name, strings.Join(d.Failed(), ", "))
}

func (r *labRun) print(d lab.Demonstration) error {
	if r.output == jsonOutput {
		return r.printJSON(d.Report)
	}
	return d.WriteText(r.env.Stdout)
}
