package realserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-lb/fairlead/internal/systemd"
)

const (
	// pollInterval is how often the sysctls are read.
	pollInterval = time.Second
	// settleTime is how long a change of the network is waited out, so that one
	// look sees all of it. It doubles with each repair up to pollInterval, until a
	// poll finds nothing to repair: a quarrel with another program is no busy loop.
	settleTime = 50 * time.Millisecond
)

// Run sets the host up as [RealServer.Up] does, tells the service manager, and from
// then on repairs and logs what others change, within two seconds, until ctx ends.
// It then returns nil and leaves the host set up.
func (r *RealServer) Run(ctx context.Context, request Request) error {
	lock, err := r.begin()
	if err != nil {
		return err
	}
	defer lock.release()
	w, err := newWatch() // before the set-up, so that nothing is missed after it
	if err != nil {
		return err
	}
	k := &keeper{RealServer: r, watch: w, settle: settleTime}
	defer func() { k.watch.close() }()
	p, err := r.up(request, false)
	if err != nil {
		return err
	}
	k.state = p.state
	for _, c := range p.changes {
		k.logChange("set up", c)
	}
	for _, v := range p.Exposed {
		r.config.Log.Warn(Exposure(v), "vip", v.Address, "command", Recall(v))
	}
	if err := k.readDefaults(); err != nil {
		return err
	}
	for _, v := range k.state.VIPs {
		r.config.Log.Info("keeping", "vip", v.Address, "interface", v.Interface)
	}
	k.tell("READY=1")
	k.keep(ctx)
	k.tell("STOPPING=1")
	r.config.Log.Info("stopped; the host stays a real server: `fairlead realserver down` undoes it")
	return nil
}

// A keeper keeps one real server as it was set up.
type keeper struct {
	*RealServer
	watch    *watch
	state    state
	defaults []string
	settle   time.Duration
	// complaint is what was logged last, so that it is not said each second.
	complaint string
}

func (k *keeper) tell(message string) {
	if err := systemd.Notify(k.config.NotifySocket, message); err != nil {
		k.config.Log.Warn("service manager not told", "state", message, "cause", err)
	}
}

func (k *keeper) keep(ctx context.Context) {
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		var err error
		polled := false
		select {
		case <-ctx.Done():
			return
		case <-k.watch.changed:
			if !wait(ctx, k.settle) {
				return
			}
		case <-k.watch.defaults:
			if !wait(ctx, k.settle) {
				return
			}
			err = k.readDefaults()
		case <-poll.C:
			polled, err = true, k.revive()
		}
		repairs, notRepaired := k.repair()
		switch {
		case repairs > 0:
			k.settle = min(2*k.settle, pollInterval)
		case polled:
			k.settle = settleTime
		}
		k.complain(errors.Join(err, notRepaired))
	}
}

// wait returns false when ctx has ended.
func wait(ctx context.Context, interval time.Duration) bool {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// revive replaces a watch that is dead.
func (k *keeper) revive() error {
	select {
	case <-k.watch.dead:
	default:
		return nil
	}
	w, err := newWatch()
	if err != nil {
		return err
	}
	k.watch.close()
	k.watch = w
	return k.readDefaults()
}

func (k *keeper) readDefaults() error {
	routes, err := k.kernel.routes()
	if err != nil {
		return err
	}
	k.defaults = defaultsOf(routes)
	return nil
}

// repair makes the host what it is to be, in order, up to what cannot be changed:
// the VIP does not come back while the host would answer for it. It returns how many
// repairs it made, and what is not as it must be.
func (k *keeper) repair() (repairs int, err error) {
	s, err := k.look(k.state.VIPs)
	if err != nil {
		return 0, err
	}
	s.defaults = k.defaults
	points := examine(k.state.VIPs, s)
	known := len(k.state.Before)
	if k.state.remember(points); len(k.state.Before) > known {
		if err := k.state.save(k.config.RunDir); err != nil {
			return 0, err
		}
	}
	for _, c := range changesOf(points) {
		if err := k.set(c.subject, c.to); err != nil {
			return repairs, errors.Join(refusal(points), fmt.Errorf("repair %s: %w", c.subject, err))
		}
		repairs++
		k.logChange("repaired", c)
	}
	return repairs, refusal(points)
}

func (k *keeper) logChange(message string, c change) {
	k.config.Log.Info(message, "point", c.subject.String(), "from", c.from, "to", c.to)
}

// complain logs an error once for as long as it stays the same.
func (k *keeper) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != k.complaint {
		k.config.Log.Error("not as it must be", "cause", err)
	}
	k.complaint = text
}
