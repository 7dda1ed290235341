package director

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/neighbor"
	"github.com/fairlead-lb/fairlead/internal/systemd"
)

const (
	sweepInterval   = time.Second
	refreshInterval = time.Second
	// rateInterval is the kernel's, which the arithmetic of estimate supposes.
	rateInterval = 2 * time.Second
)

// A Config says how a director runs.
type Config struct {
	// RunDir holds all that a director leaves in the file system: its lock,
	// its socket, and in bpf/ what is pinned. One director a run directory.
	RunDir string
	// Interfaces are those on which packets for virtual services come in.
	Interfaces []string
	// Connections is how many must fit into the table; 0 is the plane's default.
	Connections int
	Mode        dataplane.Mode
	Version     string
	// Listen are TCP addresses on which the API is served too, with TLS.
	Listen []string
	TLS    api.TLSFiles
	// TakeOver asks a director that runs there to hand over, in place of refusing.
	TakeOver bool
	// NotifySocket is the $NOTIFY_SOCKET of a service manager, or "".
	NotifySocket string
	Log          *slog.Logger
	// Drain is for how long, before it stops, the director waits for the connections
	// of all its real servers to end, while it gives them no new ones; 0: it stops at
	// once. DrainThen happens to what is left. The director that comes after it ends
	// that drain.
	Drain     time.Duration
	DrainThen lvs.DrainEnd
	// ConfigFile is applied at the start, when it changes, and when Reload receives
	// something; "": there is none.
	ConfigFile string
	Reload     <-chan os.Signal
}

// Run is the daemon: it takes over what is pinned in the run directory or
// starts anew, attaches to the interfaces, and serves the API until ctx ends.
// It then removes its socket and returns nil; what is pinned stays, and
// forwarding goes on. It returns an error that wraps [ErrRunning] if another
// director has the run directory.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := checkPrivileges(); err != nil {
		return fmt.Errorf("start director: %w", err)
	}
	if len(cfg.Listen) > 0 {
		if err := cfg.TLS.Check(); err != nil {
			return fmt.Errorf("start director: %w", err)
		}
	}
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	open := dataplane.Open
	lock, err := takeLock(cfg.RunDir)
	if cfg.TakeOver && errors.Is(err, ErrRunning) {
		lock, open, err = succeed(ctx, cfg)
	}
	if err != nil {
		return err
	}
	defer lock.release()
	p, err := openPlane(cfg, open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	sender, err := p.NewFragmentSender()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	w, err := neighbor.New(cfg.Log)
	if err != nil {
		return err
	}
	d, err := newDirector(p, w, cfg.Log, isLocalAddress)
	if err != nil {
		w.Close()
		return err
	}
	if err := d.readRecord(filepath.Join(cfg.RunDir, recordName)); err != nil {
		w.Close()
		return err
	}
	w.Prune() // what a director that was killed watched, and nobody needs now
	d.version = cfg.Version
	d.fragments = newFragmentKeeper(p, sender, cfg.Log)
	if err := d.interfaces.attach(p, cfg.Interfaces, cfg.Log); err != nil {
		w.Close()
		return err
	}
	if err := d.inheritConfiguration(filepath.Join(cfg.RunDir, revisionsDir), p.TookOver()); err != nil {
		w.Close()
		return err
	}
	return d.run(ctx, cfg, p, w)
}

func openPlane(cfg Config, open func(dataplane.Config) (*dataplane.Plane, error)) (*dataplane.Plane, error) {
	dir := pinDir(cfg.RunDir)
	mounted, err := mountBPF(dir)
	if err != nil {
		return nil, err
	}
	if mounted && inPrivateMounts() {
		cfg.Log.Warn("the bpffs is mounted in a private mount namespace (is this `ip netns exec`?): "+
			"when the last process in it ends, forwarding ends with it. To let it survive, run "+
			"`mount -t bpf bpf "+dir+"` in the system's mount namespace beforehand, "+
			"or start the director by `nsenter --net=/run/netns/NAME`", "path", dir)
	}
	p, err := open(dataplane.Config{PinDir: dir, Connections: cfg.Connections, Mode: cfg.Mode})
	if err != nil {
		return nil, tellLayout(err, cfg.RunDir)
	}
	cfg.Log.Info("data plane open", "path", dir, "took_over", p.TookOver(), "connections", p.TableSize())
	return p, nil
}

// run serves until ctx ends or a part of the daemon fails.
func (d *Director) run(ctx context.Context, cfg Config, interfaces attacher, w *neighbor.Watcher) error {
	socket := filepath.Join(cfg.RunDir, api.SocketName)
	l, err := api.Listen(socket)
	if err != nil {
		w.Close()
		return err
	}
	defer os.Remove(socket)
	network, err := listen(cfg)
	if err != nil {
		l.Close()
		w.Close()
		return err
	}
	outer := ctx
	ctx, stop := context.WithCancel(context.WithoutCancel(outer))
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	d.stopping, d.stop = ctx.Done(), stop
	group.Go(func() error { return d.endWith(outer, ctx, cfg, stop) })
	group.Go(func() error { return w.Run(ctx) })
	group.Go(func() error { d.followNextHops(w.Updates()); return nil })
	group.Go(func() error { d.every(ctx, sweepInterval, d.sweep); return nil })
	group.Go(func() error { d.every(ctx, rateInterval, d.estimate); return nil })
	group.Go(func() error { d.every(ctx, drainInterval, d.followDrains); return nil })
	group.Go(func() error { d.followHealth(ctx); return nil })
	if err := d.startWith(cfg.ConfigFile); err != nil {
		group.Go(func() error { return err })
	}
	group.Go(func() error { d.followFile(ctx, cfg.Reload); return nil })
	group.Go(func() error { return d.fragments.run(ctx) })
	group.Go(func() error { return d.fragments.runOversized(ctx) })
	group.Go(func() error { d.every(ctx, expiryInterval, d.fragments.expire); return nil })
	refresh := func() error { return d.interfaces.refresh(interfaces, cfg.Interfaces, cfg.Log) }
	group.Go(func() error { d.every(ctx, refreshInterval, refresh); return nil })
	d.serve(ctx, group, l, network)
	group.Go(func() error {
		d.notify(cfg.NotifySocket, "READY=1")
		select {
		case <-outer.Done():
		case <-ctx.Done():
		}
		d.notify(cfg.NotifySocket, "STOPPING=1")
		return nil
	})
	if err := errors.Join(d.resumeHealth(), d.liftHostDrain()); err != nil {
		d.log.Error("what a former director has left is not dealt with", "cause", err)
	}
	d.log.Info("ready", "socket", socket, "pid", os.Getpid())
	err = errors.Join(group.Wait(), d.closeChecks())
	d.resets.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("director stopped: %w", err)
	}
	d.log.Info("stopped; what is pinned stays, and forwarding goes on", "path", pinDir(cfg.RunDir))
	return nil
}

func (d *Director) notify(socket, state string) {
	if err := systemd.Notify(socket, state); err != nil {
		d.log.Warn("service manager not told", "state", state, "cause", err)
	}
}

// endWith ends ctx by stop when outer ends: at once, or when the host is drained.
func (d *Director) endWith(outer, ctx context.Context, cfg Config, stop func()) error {
	defer stop()
	select {
	case <-outer.Done():
	case <-ctx.Done():
		return nil
	}
	if cfg.Drain <= 0 {
		return nil
	}
	if err := d.drainHost(ctx, cfg.Drain, cfg.DrainThen); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("drain the host: %w", err)
	}
	return nil
}

// followNextHops learns until updates is closed.
func (d *Director) followNextHops(updates <-chan neighbor.Update) {
	for u := range updates {
		d.hops.learn(u.Address, u.NextHop)
	}
}

// every calls do at each interval until ctx ends. It logs the first of a row of
// errors that say the same.
func (d *Director) every(ctx context.Context, interval time.Duration, do func() error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := do()
		if err != nil && err.Error() != last {
			d.log.Error("periodic work", "cause", err)
		}
		last = ""
		if err != nil {
			last = err.Error()
		}
	}
}

// Unload removes all that directors left in runDir: it detaches the data plane,
// removes what is pinned, the bpffs if a director mounted it, the neighbour
// entries in the network namespace of the calling thread, the revisions, the socket
// and the lock. Forwarding ends. It returns an error that wraps [ErrRunning] while a
// director runs there, and nil if there was nothing.
func Unload(runDir string, log *slog.Logger) error {
	if _, err := os.Stat(runDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := checkPrivileges(); err != nil {
		return fmt.Errorf("unload director: %w", err)
	}
	lock, err := takeLock(runDir)
	if err != nil {
		return err
	}
	err = unload(runDir, log)
	if err == nil {
		err = removeRevisions(filepath.Join(runDir, revisionsDir))
	}
	if err != nil {
		lock.release()
		return err
	}
	return lock.remove()
}

func unload(runDir string, log *slog.Logger) error {
	dir := pinDir(runDir)
	switch is, err := isBPF(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return removeFiles(runDir)
	case err != nil:
		return err
	case is:
		if err := dataplane.Unload(dir); err != nil {
			return err
		}
		if err := forgetNeighbours(log); err != nil {
			return err
		}
	}
	plain, err := unmountOurs(dir)
	if err != nil {
		return err
	}
	if plain {
		if err := os.Remove(dir); err != nil {
			return fmt.Errorf("remove the directory of what was pinned: %w", err)
		}
	}
	return removeFiles(runDir)
}

// forgetNeighbours takes away the neighbour entries that no director needs any
// more: a watcher that watches nothing prunes them all.
func forgetNeighbours(log *slog.Logger) error {
	w, err := neighbor.New(log)
	if err != nil {
		return err
	}
	w.Prune()
	ended, end := context.WithCancel(context.Background())
	end()
	return w.Run(ended)
}

// removeFiles removes the socket that a killed director left, and the record of what
// it had changed in the data plane.
func removeFiles(runDir string) error {
	for _, name := range []string{api.SocketName, recordName} {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s of the director: %w", name, err)
		}
	}
	return nil
}
