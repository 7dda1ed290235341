package director

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	// resolveWait is how long the addition of a real server waits for its next
	// hop, so that its first packets find one: many times what ARP takes on a
	// link.
	resolveWait = 100 * time.Millisecond
	// noWaitAfter is for how long nobody waits after a wait that was in vain,
	// so that a table full of dead servers is restored quickly.
	noWaitAfter = time.Second
)

// A watcher finds next hops and tells what it found elsewhere.
type watcher interface {
	Watch(addr netip.Addr)
	Forget(addr netip.Addr)
}

// A hopTable watches the next hop of each address that real servers and peers
// have, as long as there is one, and writes what it learns to the plane. It is safe
// for concurrent use.
type hopTable struct {
	watcher watcher
	plane   plane
	log     *slog.Logger

	mu          sync.Mutex
	addresses   map[netip.Addr]*hopEntry
	noWaitUntil time.Time
	guard       guard
}

// A hopEntry is one watched address.
type hopEntry struct {
	servers    int
	configured bool // as a peer
	hop        lvs.NextHop
	// known is closed when hop was learnt.
	known chan struct{}
	sender
}

func (e *hopEntry) isKnown() bool {
	select {
	case <-e.known:
		return true
	default:
		return false
	}
}

func newHopTable(w watcher, p plane, log *slog.Logger) *hopTable {
	return &hopTable{
		watcher: w, plane: p, log: log, addresses: map[netip.Addr]*hopEntry{},
		guard: guard{plane: p, log: log, uses: map[lvs.MAC]int{}},
	}
}

// hold watches addr on behalf of one real server more.
func (t *hopTable) hold(addr netip.Addr) {
	t.change(addr, func(e *hopEntry) { e.servers++ })
}

// release is what undoes one hold.
func (t *hopTable) release(addr netip.Addr) {
	t.change(addr, func(e *hopEntry) { e.servers-- })
}

// change changes who needs addr, and watches it as long as someone does.
func (t *hopTable) change(addr netip.Addr, do func(*hopEntry)) {
	t.mu.Lock()
	entry, watched := t.addresses[addr]
	if !watched {
		entry = &hopEntry{known: make(chan struct{})}
		t.addresses[addr] = entry
		t.guard.unknown++
	}
	do(entry)
	needed := entry.servers > 0 || entry.configured
	if !needed {
		delete(t.addresses, addr)
		if !entry.isKnown() {
			t.guard.unknown--
		}
	}
	t.protect(entry)
	t.mu.Unlock()
	switch {
	case needed && !watched:
		t.watcher.Watch(addr)
	case !needed:
		t.watcher.Forget(addr)
	}
}

// wait returns when the next hop of addr, which is held, is known, or after a
// bounded time without.
func (t *hopTable) wait(addr netip.Addr) {
	t.mu.Lock()
	known := t.addresses[addr].known
	patient := !time.Now().Before(t.noWaitUntil)
	t.mu.Unlock()
	if !patient {
		return
	}
	timer := time.NewTimer(resolveWait)
	defer timer.Stop()
	select {
	case <-known:
	case <-timer.C:
		t.mu.Lock()
		t.noWaitUntil = time.Now().Add(noWaitAfter)
		t.mu.Unlock()
	}
}

// write gives the plane the next hop of a real server that was just added, and whose
// address is held, if it is known.
func (t *hopTable) write(service lvs.ServiceKey, server lvs.RealServerKey) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := t.addresses[server.Address]
	if !entry.isKnown() {
		return nil
	}
	return t.plane.SetServerNextHop(service, server, entry.hop)
}

// learn takes a next hop that the watcher found.
func (t *hopTable) learn(addr netip.Addr, hop lvs.NextHop) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry, ok := t.addresses[addr]
	if !ok {
		return // forgotten while the news was under way
	}
	entry.hop = hop
	if !entry.isKnown() {
		close(entry.known)
		t.guard.unknown--
	}
	t.recognize(addr, entry)
	t.protect(entry)
	if entry.servers > 0 {
		if err := t.plane.SetNextHop(addr, hop); err != nil {
			t.log.Error("next hop not written", "realserver", addr, "cause", err)
			return
		}
	}
	who := "realserver"
	if entry.servers == 0 {
		who = "peer"
	}
	switch {
	case hop.Local:
		t.log.Info("served by this host", who, addr)
	case hop.Usable():
		t.log.Info("next hop", who, addr, "interface", hop.InterfaceName, "mac", hop.Destination, "vlan", hop.VLAN)
	default:
		t.log.Warn("no next hop", who, addr, "cause", hop.Problem)
	}
}

// find returns the next hop of addr, and whether it is known.
func (t *hopTable) find(addr netip.Addr) (lvs.NextHop, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry, ok := t.addresses[addr]
	if !ok || !entry.isKnown() {
		return lvs.NextHop{}, false
	}
	return entry.hop, true
}

// fill sets the next hops of services that are known: the plane does not keep
// all that there is to tell of them.
func (t *hopTable) fill(services []lvs.ServiceStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range services {
		for _, server := range services[i].All() {
			if entry, ok := t.addresses[server.Address]; ok && entry.isKnown() {
				server.NextHop = server.Judge(entry.hop)
			}
		}
	}
}
