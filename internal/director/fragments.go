package director

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// heldFor is how long a fragment waits for its datagram's first one. The data
	// plane waits as long.
	heldFor = time.Second
	// heldBytes bounds what is kept of all senders, each frame with heldCost
	// beside its bytes. Of one sender's network, the data plane hands over no more
	// than eight datagrams at a time.
	heldBytes = 16 << 20
	heldCost  = 256
	// expiryInterval is how often fragments are looked through.
	expiryInterval = 100 * time.Millisecond
)

// A fragmentHolder keeps fragments by datagram. It is bounded, and never gives up
// one for another: who comes when it is full is refused.
type fragmentHolder struct {
	most, bytes int
	datagrams   map[lvs.Datagram][]dataplane.HeldFragment
	waiting     []deadline // by time
}

// A deadline is when a datagram is given up.
type deadline struct {
	at       time.Time
	datagram lvs.Datagram
}

func newFragmentHolder(most int) *fragmentHolder {
	return &fragmentHolder{most: most, datagrams: map[lvs.Datagram][]dataplane.HeldFragment{}}
}

// keep reports whether there was room.
func (h *fragmentHolder) keep(f dataplane.HeldFragment, now time.Time) bool {
	cost := len(f.Frame) + heldCost
	if h.bytes+cost > h.most {
		return false
	}
	if len(h.datagrams[f.Datagram]) == 0 {
		h.waiting = append(h.waiting, deadline{now.Add(heldFor), f.Datagram})
	}
	h.datagrams[f.Datagram] = append(h.datagrams[f.Datagram], f)
	h.bytes += cost
	return true
}

// release gives back what is kept of a datagram, in the order in which it came.
func (h *fragmentHolder) release(d lvs.Datagram) []dataplane.HeldFragment {
	kept := h.datagrams[d]
	delete(h.datagrams, d)
	for _, f := range kept {
		h.bytes -= len(f.Frame) + heldCost
	}
	return kept
}

// expire gives back what has waited long enough. A datagram that was released and
// begun anew may be given back early; its name comes again after thousands of
// others.
func (h *fragmentHolder) expire(now time.Time) []dataplane.HeldFragment {
	var over []dataplane.HeldFragment
	for len(h.waiting) > 0 && !h.waiting[0].at.After(now) {
		over = append(over, h.release(h.waiting[0].datagram)...)
		h.waiting = h.waiting[1:]
	}
	return over
}

// A fragmentSource is what a fragmentKeeper needs of the data plane.
type fragmentSource interface {
	FollowFragments(context.Context, func(dataplane.HeldFragment) error) error
	FollowOversized(context.Context, func(dataplane.OversizedPacket) error) error
}

// A fragmentSender puts kept fragments on their way; *dataplane.FragmentSender is
// one.
type fragmentSender interface {
	Resume(dataplane.HeldFragment) (bool, error)
	GiveUp(fragments int) error
	Refuse(fragments int) error
	SendInFragments(dataplane.OversizedPacket) error
}

// A fragmentKeeper keeps the fragments that come before their datagram's first
// one, and sends them after it.
type fragmentKeeper struct {
	source fragmentSource
	sender fragmentSender
	log    *slog.Logger

	mu     sync.Mutex
	holder *fragmentHolder
}

func newFragmentKeeper(source fragmentSource, sender fragmentSender, log *slog.Logger) *fragmentKeeper {
	return &fragmentKeeper{source: source, sender: sender, log: log, holder: newFragmentHolder(heldBytes)}
}

// run keeps until ctx ends.
func (k *fragmentKeeper) run(ctx context.Context) error {
	err := k.source.FollowFragments(ctx, k.take)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// runOversized fragments what is larger than its way carries until ctx ends. A packet
// whose fragments can't be sent is lost, like any packet on its way.
func (k *fragmentKeeper) runOversized(ctx context.Context) error {
	err := k.source.FollowOversized(ctx, func(o dataplane.OversizedPacket) error {
		if err := k.sender.SendInFragments(o); err != nil {
			k.log.Debug("oversized packet lost", "cause", err)
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// take takes what the data plane tells.
func (k *fragmentKeeper) take(f dataplane.HeldFragment) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	switch {
	case f.Frame == nil:
		err = k.sendLate(k.holder.release(f.Datagram))
	case k.resume(f): // the first one came while this one was on its way here
	case !k.holder.keep(f, time.Now()):
		err = k.sender.Refuse(1)
	}
	if err != nil {
		k.log.Error("fragments not counted", "cause", err)
	}
	return nil
}

// expire gives up what has waited long enough.
func (k *fragmentKeeper) expire() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sendLate(k.holder.expire(time.Now()))
}

// sendLate sends what can be sent, and counts the others.
func (k *fragmentKeeper) sendLate(kept []dataplane.HeldFragment) error {
	alone := 0
	for _, f := range kept {
		if !k.resume(f) {
			alone++
		}
	}
	if alone == 0 {
		return nil
	}
	return k.sender.GiveUp(alone)
}

// resume reports whether a fragment is no longer to be kept. One that can't be
// sent is lost, like any packet on its way.
func (k *fragmentKeeper) resume(f dataplane.HeldFragment) bool {
	done, err := k.sender.Resume(f)
	if err != nil {
		k.log.Debug("fragment lost", "cause", err)
	}
	return done
}
