package neighbor

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A target is a watched address.
type target struct {
	address netip.Addr
	routed  bool // path is the routing table's answer
	path    path
	hop     *hop // nil exactly when path has a problem or ends here
	last    int  // the interface of the last path that had one
}

// links is the interfaces of a network namespace by their index.
type links map[int]link

// named returns the index of an interface by its name or its number in digits,
// as IPv6 zones have it; 0 when there is none.
func (l links) named(zone string) int {
	for index, candidate := range l {
		if candidate.name == zone {
			return index
		}
	}
	if index, err := strconv.Atoi(zone); err == nil {
		if _, ok := l[index]; ok {
			return index
		}
	}
	return 0
}

// settleBatch is how many targets are routed before the Watcher looks what else
// there is to do: some milliseconds of work.
const settleBatch = 128

// settle routes a batch of the stale targets and puts what changed into the
// outbox. It returns false while there are more.
func (w *Watcher) settle(now time.Time) bool {
	routed := 0
	for t := range w.stale {
		if routed == settleBatch {
			break
		}
		routed++
		delete(w.stale, t)
		w.changed[t] = struct{}{}
		w.route(t, now)
	}
	for t := range w.changed {
		if next, ok := t.path.nextHop(t.hop); ok {
			w.outbox.put(t.address, next)
		}
	}
	clear(w.changed)
	return len(w.stale) == 0
}

// route finds the path of t and its hop. When the kernel can't be asked, an
// older answer stands until it can.
func (w *Watcher) route(t *target, now time.Time) {
	p, err := w.findPath(t)
	if err != nil {
		w.lose(err)
		w.retry[t] = struct{}{}
		if !t.routed {
			t.path.template.Problem = err.Error()
		}
		return
	}
	if p.via.link != 0 {
		t.last = p.via.link
	}
	var next *hop
	if p.template.Problem == "" && !p.template.Local {
		next = w.hops.acquire(hopKey{p.via, p.static}, t, now)
	}
	if t.hop != nil && t.hop != next {
		w.hops.release(t.hop, t)
	}
	t.routed, t.path, t.hop = true, p, next
}

// findPath asks the kernel. Its error is of the asking, not of the routing, which
// may well be as it was.
func (w *Watcher) findPath(t *target) (path, error) {
	if !t.address.IsValid() {
		p := path{}
		p.template.Problem = "not an IP address"
		return p, nil
	}
	oif := 0
	if zone := t.address.Zone(); zone != "" {
		if oif = w.links.named(zone); oif == 0 {
			return findPath(t.address, route{}, fmt.Errorf("find interface %s: %w", zone, unix.ENODEV), w.links, t.last), nil
		}
	}
	r, err := w.conn.route(t.address.WithZone(""), oif)
	if err != nil && !noWay(err) {
		return path{}, err
	}
	return findPath(t.address, r, err, w.links, t.last), nil
}

// restale marks the targets that prefix covers as to be routed again.
func (w *Watcher) restale(prefix netip.Prefix) {
	for addr, t := range w.targets {
		if prefix.Contains(addr.WithZone("")) {
			w.stale[t] = struct{}{}
		}
	}
}

// restaleAll marks all targets as to be routed again.
func (w *Watcher) restaleAll() {
	for _, t := range w.targets {
		w.stale[t] = struct{}{}
	}
}
