package neighbor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// tickInterval bounds how late a silence or a lost carrier is told, and a lost
	// socket replaced.
	tickInterval = 250 * time.Millisecond
	// auditInterval is between two comparisons of everything with the kernel. It
	// finds what no notification tells: a path MTU that was learnt or forgot.
	auditInterval = 10 * time.Second
)

// An Update is the next hop of a watched address as it is now.
type Update struct {
	Address netip.Addr
	NextHop lvs.NextHop
}

// A Watcher finds the next hops of watched addresses and tells each change. It
// works in the network namespace of the thread that called [New], whichever
// threads it runs on later. Watch, Forget, Prune and Updates are safe for
// concurrent use.
//
// The neighbour entries that it makes stay when Run ends, so that the kernel
// keeps them fresh for a data plane that goes on without a director. Forget takes
// them away one by one; Prune does so for what an earlier Watcher left.
type Watcher struct {
	log     *slog.Logger
	updates chan Update
	started atomic.Bool

	mu       sync.Mutex
	commands []command     // in the order of the calls
	wake     chan struct{} // holds a token when there may be commands

	// What follows belongs to Run.
	conn         *conn
	subscription *subscription
	lost         bool // a socket is dead
	links        links
	hops         *hopTable
	targets      map[netip.Addr]*target
	stale        map[*target]struct{} // to be routed again
	retry        map[*target]struct{} // to be routed again at the next tick
	changed      map[*target]struct{} // to be told, if their next hop changed
	outbox       *outbox
	audited      time.Time
}

// A command is a call of Watch, Forget or Prune.
type command struct {
	verb    verb
	address netip.Addr
}

type verb uint8

const (
	watch verb = iota
	forget
	prune
)

// New opens a Watcher's netlink sockets in the network namespace of the calling
// thread. What it finds and does needs CAP_NET_ADMIN there: without, next hops
// have a Problem that says so. It logs what goes wrong without being anyone's
// next hop to log. The caller calls Run, or Close when it never does.
func New(log *slog.Logger) (*Watcher, error) {
	c, err := openConn()
	if err != nil {
		return nil, fmt.Errorf("open neighbour watcher: %w", err)
	}
	return &Watcher{
		log:     log,
		updates: make(chan Update),
		wake:    make(chan struct{}, 1),
		conn:    c,
		links:   make(links),
		hops:    &hopTable{log: log, conn: c, hops: make(map[hopKey]*hop)},
		targets: make(map[netip.Addr]*target),
		outbox:  newOutbox(),
		stale:   make(map[*target]struct{}),
		changed: make(map[*target]struct{}),
		retry:   make(map[*target]struct{}),
	}, nil
}

// Close releases a Watcher on which Run was not called and will not be.
func (w *Watcher) Close() { w.conn.close() }

// Watch has the next hop of addr found, told and followed, at once when Run is
// running, else when it starts. Calls are not counted: watching a watched address
// does nothing, and one Forget ends it. An IPv6 address may have a zone, which is
// then the interface to be used; an IPv4-mapped one is taken, and told, as the
// IPv4 address.
func (w *Watcher) Watch(addr netip.Addr) { w.enqueue(command{watch, addr.Unmap()}) }

// Forget ends what Watch began, and takes away the neighbour entry that was made
// for addr if no other watched address needs it. An entry that the kernel had for
// its own traffic is given back to it; one that an administrator or another
// program made, before or since, is left as it is. Forget returns at once; what
// it asks for is done by Run, before it returns at the latest. An Update of addr
// that is on its way may still be read.
func (w *Watcher) Forget(addr netip.Addr) { w.enqueue(command{forget, addr.Unmap()}) }

// Prune takes away the neighbour entries that an earlier Watcher left in the
// network namespace and that no address watched by now needs. Its place is after
// the first Watch of everything that is wanted. It is done by Run, as Forget is.
func (w *Watcher) Prune() { w.enqueue(command{verb: prune}) }

// Updates returns the channel on which Run tells next hops: the first one of an
// address within about a second of Watch, also when that has a Problem, and then
// every change. A reader that is slow gets the newest state of each address, never
// the same twice running, and holds nothing up. The channel is closed when Run
// returns.
//
// A neighbour that was not asked before has a second to answer, in which nothing
// is told and what was told before stands.
func (w *Watcher) Updates() <-chan Update { return w.updates }

// Run does the work of the Watcher until ctx is done, and then returns nil. It
// can be called once; its end releases the Watcher.
func (w *Watcher) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return errors.New("run neighbour watcher: it ran before")
	}
	defer close(w.updates)
	w.subscription = subscribe(w.conn.notifications)
	defer func() {
		w.subscription.close()
		w.conn.close()
	}()
	w.audit(time.Now())

	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	always := make(chan struct{})
	close(always)
	for {
		var goOn <-chan struct{} // nil, which never is ready, when all is settled
		if !w.settle(time.Now()) {
			goOn = always
		}
		var updates chan<- Update // nil when there is nothing to tell
		next, ok := w.outbox.head()
		if ok {
			updates = w.updates
		}
		select {
		case <-goOn:
		case <-ctx.Done():
			w.obey(time.Now())
			return nil
		case <-w.wake:
			w.obey(time.Now())
		case n := <-w.subscription.notices:
			w.follow(n, time.Now())
		case now := <-tick.C:
			w.tick(now)
		case updates <- next:
			w.outbox.sent(next)
		}
	}
}

func (w *Watcher) enqueue(c command) {
	w.mu.Lock()
	w.commands = append(w.commands, c)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// obey carries out the commands that were given.
func (w *Watcher) obey(now time.Time) {
	w.mu.Lock()
	commands := w.commands
	w.commands = nil
	w.mu.Unlock()
	for _, c := range commands {
		switch c.verb {
		case watch:
			w.watch(c.address)
		case forget:
			w.forget(c.address)
		case prune:
			for !w.settle(now) { // so that the hops of all that is watched are known
			}
			w.prune()
		}
	}
}

func (w *Watcher) watch(addr netip.Addr) {
	if _, ok := w.targets[addr]; ok {
		return
	}
	t := &target{address: addr}
	w.targets[addr] = t
	w.stale[t] = struct{}{}
}

func (w *Watcher) forget(addr netip.Addr) {
	t, ok := w.targets[addr]
	if !ok {
		return
	}
	delete(w.targets, addr)
	delete(w.stale, t)
	delete(w.changed, t)
	delete(w.retry, t)
	w.outbox.forget(addr)
	if t.hop != nil {
		w.hops.release(t.hop, t)
	}
}

func (w *Watcher) prune() {
	entries, err := w.conn.neighbours()
	if err == nil {
		err = w.hops.prune(entries)
	}
	if err != nil {
		w.log.Warn("neighbour entries of an earlier run left behind", "cause", err)
	}
}

// tick does what is due by the clock.
func (w *Watcher) tick(now time.Time) {
	if w.lost {
		w.resubscribe(now)
	}
	if now.Sub(w.audited) >= auditInterval {
		w.audit(now)
	}
	for t := range w.retry {
		w.stale[t] = struct{}{}
	}
	clear(w.retry)
	w.lookForCarriers()
	w.touch(w.hops.tick(now))
}

// touch marks the users of hops as changed.
func (w *Watcher) touch(hops []*hop) {
	for _, h := range hops {
		for t := range h.users {
			w.changed[t] = struct{}{}
		}
	}
}

// audit compares everything with the kernel.
func (w *Watcher) audit(now time.Time) {
	w.audited = now
	links, err := w.conn.links()
	if err != nil {
		w.log.Warn("interfaces not compared", "cause", err)
	} else {
		w.links = links
	}
	entries, err := w.conn.neighbours()
	if err != nil {
		w.log.Warn("neighbour entries not compared", "cause", err)
	} else {
		w.hops.refresh(entries, now)
	}
	for _, t := range w.targets {
		w.stale[t] = struct{}{}
	}
}
