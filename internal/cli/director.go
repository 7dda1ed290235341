package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/director"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	runDirVariable = "FAIRLEAD_RUN_DIR"
	defaultRunDir  = "/run/fairlead"
)

// runDir returns the run directory of the director that commands speak to when
// no option names one.
func runDir(env Env) string {
	if dir := env.Getenv(runDirVariable); dir != "" {
		return dir
	}
	return defaultRunDir
}

// runDirFlag gives cmd and the commands below it the option --run-dir.
func runDirFlag(cmd *cobra.Command, env Env, dir *string) {
	cmd.PersistentFlags().StringVar(dir, "run-dir", runDir(env),
		"the director's run `directory`; also from "+runDirVariable)
}

// clientOf returns a client of the director that has the run directory dir.
func clientOf(dir string) *api.Client { return api.NewClient(filepath.Join(dir, api.SocketName)) }

func newDirectorCommand(env Env) *cobra.Command {
	var cfg director.Config
	var then string
	cmd := &cobra.Command{
		Use:   "director --interface NAME[,NAME...]",
		Short: "Run the director: load the data plane, attach it, serve the API",
		Long: `Run the director in the foreground, until SIGTERM or SIGINT.

It loads the data plane, or takes over the one that an earlier director left,
attaches it to the interfaces on which packets for virtual services come in,
keeps the next hops of the real servers fresh, and serves the API on
director.sock in the run directory.

With --config it makes its state the one that a configuration file asks for, at the start
and whenever the file changes (it is looked at once a second) or SIGHUP arrives. A bad file
changes nothing and is told in the log; at a start that takes nothing over it is an error.

With --listen it serves the API over the network too, with TLS, to clients whose
certificates --client-ca has signed; all of them may do everything. /metrics (for
Prometheus), /healthz and /readyz are served wherever the API is.

Forwarding goes on when the director stops or is killed; "fairlead director
unload" ends it. With --drain, SIGTERM first drains all real servers, as "fairlead
drain" does, and the director stops when no connection is left or the time is over;
a second signal ends it at once, and the director that comes next ends the drain.

To upgrade, start the new binary with --take-over: it makes sure that it can go on
with what the running director has, asks that one to hand over, and replaces its
program in one step. No packet or connection is lost.

It needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and
CAP_NET_RAW, and CAP_SYS_ADMIN to mount a bpffs on bpf/ in the run directory if
there is none.`,
		Example: `  fairlead director --interface eth0
  fairlead director --interface eth0 --config /etc/fairlead/fairlead.yaml
  fairlead director --interface eth0,eth1 --connections 4000000
  fairlead director --interface br0 --mode tc
  fairlead director --interface eth0 --run-dir /run/fairlead-blue
  fairlead director --interface eth0 --take-over
  fairlead director --interface eth0 --listen 192.0.2.10:8443 \
      --tls-cert director.pem --tls-key director.key --client-ca operators.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case len(cfg.Interfaces) == 0:
				return errors.New("no interface: name those on which packets come in: fairlead director --interface eth0")
			case !slices.Contains(dataplane.Modes(), cfg.Mode):
				return fmt.Errorf("--mode %s: want auto, xdp, xdp-generic or tc", cfg.Mode)
			case cfg.Connections < 1:
				return fmt.Errorf("--connections %d: want how many must fit into the table", cfg.Connections)
			case len(cfg.Listen) == 0 && cfg.TLS != api.TLSFiles{}:
				return errors.New("--tls-cert, --tls-key and --client-ca are for --listen ADDRESS:PORT, which is not given")
			case len(cfg.Listen) > 0 && (cfg.TLS.Cert == "" || cfg.TLS.Key == "" || cfg.TLS.ClientCA == ""):
				return errors.New("--listen needs --tls-cert, --tls-key and --client-ca: the API is not served over the network without certificates on both sides")
			}
			end, err := lvs.ParseDrainEnd(then)
			switch {
			case err != nil:
				return fmt.Errorf("--drain-then %s: want expire or reset", then)
			case cfg.Drain < 0 || cfg.Drain > api.MaxDrain:
				return fmt.Errorf("--drain %s: want 0 to %s", cfg.Drain, api.MaxDrain)
			case then != "" && cfg.Drain == 0:
				return fmt.Errorf("--drain-then %s: say when, by --drain", then)
			}
			cfg.DrainThen = end
			cfg.Version = versionName()
			cfg.NotifySocket = env.Getenv("NOTIFY_SOCKET")
			cfg.Log = slog.New(slog.NewTextHandler(env.Stderr, nil))
			if err := followFile(&cfg); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			context.AfterFunc(ctx, stop) // a second signal ends it at once
			return director.Run(ctx, cfg)
		},
	}
	runDirFlag(cmd, env, &cfg.RunDir)
	flags := cmd.Flags()
	flags.StringSliceVarP(&cfg.Interfaces, "interface", "i", nil, "`names` of the interfaces that packets come in on")
	flags.IntVar(&cfg.Connections, "connections", dataplane.DefaultConnections, "how `many` connections must fit into the table")
	flags.StringVar((*string)(&cfg.Mode), "mode", string(dataplane.ModeAuto), "`mode` of attachment: xdp (in the driver), xdp-generic, tc (takes aggregates of GRO and marks), or auto: xdp where it works, else xdp-generic")
	flags.DurationVar(&cfg.Drain, "drain", 0, "`how long`, before it stops, to wait for connections to end, giving no real server new ones, like 5m")
	flags.StringVar(&then, "drain-then", "", "what is `done` to what is left then: expire or reset (default: it goes on)")
	flags.StringVar(&cfg.ConfigFile, "config", "", "a configuration `file` to apply at the start, and whenever it changes")
	flags.StringSliceVar(&cfg.Listen, "listen", nil, "serve the API on these TCP `addresses` too, like 192.0.2.10:8443; needs the files of TLS")
	flags.StringVar(&cfg.TLS.Cert, "tls-cert", "", "`file` of the certificate for --listen (PEM); read again when it changes")
	flags.StringVar(&cfg.TLS.Key, "tls-key", "", "`file` of its key")
	flags.StringVar(&cfg.TLS.ClientCA, "client-ca", "", "`file` of the certificates that clients' are checked against")
	flags.BoolVar(&cfg.TakeOver, "take-over", false, "if a director runs already, ask it to hand over")
	cmd.AddCommand(newUnloadCommand(env, &cfg.RunDir))
	return cmd
}

// followFile has SIGHUP reload the configuration file. Without one it does nothing: a
// director does not end with the terminal that it was started from.
func followFile(cfg *director.Config) error {
	if cfg.ConfigFile == "" {
		signal.Ignore(syscall.SIGHUP)
		return nil
	}
	path, err := filepath.Abs(cfg.ConfigFile)
	if err != nil {
		return fmt.Errorf("--config %s: %w", cfg.ConfigFile, err)
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	cfg.ConfigFile, cfg.Reload = path, reload
	return nil
}

func newUnloadCommand(env Env, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "unload",
		Short: "End forwarding: detach the data plane and remove all that is pinned",
		Long: `Detach the data plane from its interfaces and remove all that directors left in
the run directory: what is pinned, with its services and connections, the bpffs
if a director mounted it, the socket. The director must not run. Doing it again
does nothing.`,
		Example: `  fairlead director unload
  fairlead director unload --run-dir /run/fairlead-blue`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return director.Unload(*dir, slog.New(slog.NewTextHandler(env.Stderr, nil)))
		},
	}
}
