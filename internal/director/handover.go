package director

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
)

const (
	// handOverTime is how long a director that was asked to hand over may take.
	handOverTime = 20 * time.Second
	lockInterval = 2 * time.Millisecond
)

// HandOver implements [api.Director].
func (d *Director) HandOver(_ context.Context, successor string) error {
	if d.stop == nil {
		return errors.New("hand over: the director does not run as a daemon")
	}
	d.log.Info("handing over", "successor", successor)
	d.stop()
	return nil
}

// succeed takes the run directory over from the director that has it, and returns
// what goes on with its data plane. It asks that one to go only when its own programs
// have been loaded with the pinned maps: who can't take over changes nothing.
func succeed(ctx context.Context, cfg Config) (_ *lock, open func(dataplane.Config) (*dataplane.Plane, error), err error) {
	defer func() {
		if err != nil {
			err = tellLayout(fmt.Errorf("take over %s: %w", cfg.RunDir, err), cfg.RunDir)
		}
	}()
	dir := pinDir(cfg.RunDir)
	switch is, err := isBPF(dir); {
	case err != nil:
		return nil, nil, err
	case !is:
		return nil, nil, fmt.Errorf("the running director's bpffs is not seen on %s: start this one in the same mount namespace", dir)
	}
	successor, err := dataplane.Prepare(dataplane.Config{PinDir: dir, Mode: cfg.Mode})
	if err != nil {
		return nil, nil, err
	}
	lock, err := askToHandOver(ctx, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, successor.Close())
	}
	return lock, func(dataplane.Config) (*dataplane.Plane, error) { return successor.TakeOver() }, nil
}

// askToHandOver returns when the other director is gone.
func askToHandOver(ctx context.Context, cfg Config) (*lock, error) {
	client := api.NewClient(filepath.Join(cfg.RunDir, api.SocketName))
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	err := client.HandOver(ctx, fmt.Sprintf("fairlead %s (pid %d)", cfg.Version, os.Getpid()))
	switch {
	case errors.Is(err, api.ErrUnknownProcedure):
		return nil, fmt.Errorf("%w: the director that runs is of a version that can't hand over: stop it (forwarding goes on), then start this one", err)
	case err != nil:
		return nil, err
	}
	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for {
		lock, err := takeLock(cfg.RunDir)
		if !errors.Is(err, ErrRunning) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the other director was asked to hand over, and still runs after %s: %w", handOverTime, err)
		case <-tick.C:
		}
	}
}

// tellLayout says what can be done about an error that wraps dataplane.ErrLayout.
func tellLayout(err error, runDir string) error {
	if !errors.Is(err, dataplane.ErrLayout) {
		return err
	}
	return fmt.Errorf("%w: nothing was changed, and forwarding goes on. Run the version that made it, or start anew, which costs all "+
		"connections: with that version, `fairlead save --run-dir %[2]s >FILE` and stop it; then `fairlead director unload --run-dir %[2]s`, "+
		"start this version, `fairlead restore --run-dir %[2]s FILE`", err, runDir)
}
