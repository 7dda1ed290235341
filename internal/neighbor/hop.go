package neighbor

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// answerTimeout is how long a neighbour may take to answer before that is
	// told as a problem. Until then the next hop that was told before stands.
	answerTimeout = time.Second
	// askInterval is between two requests to resolve a neighbour that does not
	// answer; to one that the kernel is asking they are nothing. After it gave up,
	// in three seconds, the kernel itself asks a managed one only every
	// net.ipv4.neigh.default.interval_probe_time_ms: five seconds.
	askInterval = 500 * time.Millisecond
)

// An origin is whose a neighbour entry of the kernel is, and so what may be done
// to it.
type origin uint8

const (
	absent  origin = iota // there is none
	made                  // made by a Watcher: to be deleted
	adopted               // made by the kernel, for traffic, and marked by us: to be unmarked
	foreign               // an administrator's or another program's: never touched
)

// originOf tells whose an entry is that was there before us.
func originOf(n neighbour) origin {
	switch {
	case n.static():
		return foreign
	case n.protocol == Protocol:
		return made
	case n.managed() || n.flags&netlink.NTF_EXT_LEARNED != 0:
		return foreign
	}
	return adopted
}

// A hopKey names a hop. A static one is on an interface that does not resolve.
type hopKey struct {
	neighbourKey
	static bool
}

// A hop is a neighbour that targets need, and its entry in the kernel.
type hop struct {
	hopKey
	users  map[*target]struct{}
	entry  neighbour // as it was last seen
	origin origin
	err    error // of the last request about the entry
	// silent is set when the kernel gave up or answerTimeout passed, until the
	// neighbour answers.
	silent bool
	since  time.Time // when it was first asked, or its answer was lost
	asked  time.Time // when it was last asked
}

// answered reports whether packets can go to entry.mac.
func (h *hop) answered() bool {
	if h.static {
		return h.entry.valid() && h.entry.state&netlink.NUD_PERMANENT != 0
	}
	return h.entry.valid()
}

// A hopTable holds the hops in use and keeps their entries in the kernel. It is
// not safe for concurrent use.
type hopTable struct {
	log  *slog.Logger
	conn *conn
	hops map[hopKey]*hop
	// management is whether the kernel has managed neighbour entries (5.16 and
	// later); it is found out with the first entry.
	management support
}

// A support is what is known of a feature of the kernel.
type support uint8

const (
	unknown support = iota
	present
	missing
)

// acquire returns the hop of key with user among its users, and makes its entry
// in the kernel if it is a new one.
func (t *hopTable) acquire(key hopKey, user *target, now time.Time) *hop {
	h, ok := t.hops[key]
	if !ok {
		h = &hop{hopKey: key, users: make(map[*target]struct{}), since: now}
		t.hops[key] = h
		t.ensure(h, now)
	}
	h.users[user] = struct{}{}
	return h
}

// interfaces returns the indices of the interfaces that lead to hops, and of those
// that carry the frames of the ones that are VLANs.
func (t *hopTable) interfaces(links links) map[int]struct{} {
	used := make(map[int]struct{})
	for key := range t.hops {
		used[key.link] = struct{}{}
		if parent := links[key.link].vlan.parent; parent != 0 {
			used[parent] = struct{}{}
		}
	}
	return used
}

// release takes user from the users of h. The last one's leaving takes away what
// was made in the kernel.
func (t *hopTable) release(h *hop, user *target) {
	delete(h.users, user)
	if len(h.users) > 0 {
		return
	}
	delete(t.hops, h.hopKey)
	if h.static {
		return
	}
	if err := t.withdraw(h); err != nil {
		t.log.Warn("neighbour entry left behind", "neighbour", h.address, "cause", err)
	}
}

// withdraw deletes or unmarks the entry of h, unless an administrator has taken
// it over since. An entry that is gone, or whose interface is, is no error.
func (t *hopTable) withdraw(h *hop) error {
	entry, err := t.conn.neighbour(h.neighbourKey)
	if err == nil && originOf(entry) != foreign {
		switch h.origin {
		case made:
			err = t.conn.deleteNeighbour(h.neighbourKey)
		case adopted:
			err = t.conn.markNeighbour(h.neighbourKey, marking{ordinary: true})
		}
	}
	if gone(err) {
		return nil
	}
	return err
}

// ensure makes the entry of h, or finds whose the one is that is there.
func (t *hopTable) ensure(h *hop, now time.Time) {
	if h.answered() {
		h.since = now
	}
	h.asked = now
	h.origin, h.err = absent, nil
	h.entry = neighbour{neighbourKey: h.neighbourKey}
	if !h.static {
		h.err = t.conn.markNeighbour(h.neighbourKey, marking{create: true, managed: t.management != missing})
		if h.err == nil {
			h.origin = made
			h.err = t.learnManagement(h.neighbourKey)
			return
		}
		if !errors.Is(h.err, unix.EEXIST) {
			return
		}
	}
	entry, err := t.conn.neighbour(h.neighbourKey)
	h.err = err
	switch {
	case gone(err):
		h.err = nil // it went between the two requests, or none is there: asked again
	case err == nil:
		h.entry = entry
		h.silent = h.silent && !h.answered()
		t.adopt(h)
	}
}

// learnManagement looks whether the kernel understood that the entry it just
// made is a managed one: an older kernel ignores what it doesn't know.
func (t *hopTable) learnManagement(key neighbourKey) error {
	if t.management != unknown {
		return nil
	}
	entry, err := t.conn.neighbour(key)
	if err != nil {
		return err
	}
	t.management = present
	if !entry.managed() {
		t.management = missing
		t.log.Info("the kernel has no managed neighbour entries: asking neighbours ourselves", "interval", askInterval)
	}
	return nil
}

// adopt marks the entry of h, which is there, unless it is not ours to mark or
// marked already.
func (t *hopTable) adopt(h *hop) {
	// Our mark on the kernel's own entry does not make it one that we made.
	if o := originOf(h.entry); h.origin != adopted || o != made {
		h.origin = o
	}
	if h.static || h.origin == foreign || t.marked(h.entry) {
		return
	}
	h.err = t.conn.markNeighbour(h.neighbourKey, marking{managed: t.management != missing})
	if h.err == nil {
		h.err = t.learnManagement(h.neighbourKey)
	}
}

// marked reports whether the kernel knows n as an entry of ours to be kept.
func (t *hopTable) marked(n neighbour) bool {
	return n.protocol == Protocol && (n.managed() || t.management == missing)
}

// observe takes the kernel's notification of an entry, deleted or as it is now,
// and returns the hops that it is of.
func (t *hopTable) observe(n neighbour, deleted bool, now time.Time) []*hop {
	var seen []*hop
	for _, static := range []bool{false, true} {
		h, ok := t.hops[hopKey{n.neighbourKey, static}]
		if !ok {
			continue
		}
		seen = append(seen, h)
		if deleted {
			t.ensure(h, now)
			continue
		}
		h.see(n, now)
	}
	return seen
}

// see takes the entry of h as it is now.
func (h *hop) see(n neighbour, now time.Time) {
	before := h.answered()
	h.entry = n
	if n.static() {
		h.origin = foreign
	}
	switch {
	case h.answered():
		h.silent, h.err = false, nil
	case n.state&netlink.NUD_FAILED != 0:
		h.silent = true
	case before:
		h.since = now
	}
}

// refresh compares all hops with the entries that the kernel has, and mends what
// differs.
func (t *hopTable) refresh(entries []neighbour, now time.Time) {
	there := make(map[neighbourKey]neighbour, len(entries))
	for _, n := range entries {
		there[n.neighbourKey] = n
	}
	for _, h := range t.hops {
		entry, ok := there[h.neighbourKey]
		if !ok {
			t.ensure(h, now)
			continue
		}
		h.see(entry, now)
		t.adopt(h)
	}
}

// tick asks the neighbours that have to be asked, and returns the hops that may
// have changed.
func (t *hopTable) tick(now time.Time) []*hop {
	var changed []*hop
	for _, h := range t.hops {
		asks := t.wantsAsking(h) && now.Sub(h.asked) >= askInterval
		if asks {
			t.ask(h, now)
		}
		fallsSilent := !h.silent && !h.answered() && now.Sub(h.since) >= answerTimeout
		if fallsSilent {
			h.silent = true
		}
		if asks || fallsSilent {
			changed = append(changed, h)
		}
	}
	return changed
}

// wantsAsking reports whether the kernel does not ask for h in good time itself.
func (t *hopTable) wantsAsking(h *hop) bool {
	if h.origin == foreign {
		return false
	}
	return !h.answered() || (t.management == missing && h.entry.state&netlink.NUD_REACHABLE == 0)
}

// ask makes the kernel resolve h now.
func (t *hopTable) ask(h *hop, now time.Time) {
	if h.origin == absent {
		t.ensure(h, now)
		return
	}
	h.asked = now
	h.err = t.conn.markNeighbour(h.neighbourKey, marking{managed: t.management != missing})
	if gone(h.err) {
		t.ensure(h, now)
	}
}

// prune deletes the entries that bear our mark and that no hop needs.
func (t *hopTable) prune(entries []neighbour) error {
	needed := make(map[neighbourKey]bool, len(t.hops))
	for key := range maps.Keys(t.hops) {
		needed[key.neighbourKey] = true
	}
	var errs []error
	for _, n := range entries {
		if needed[n.neighbourKey] || originOf(n) != made {
			continue
		}
		if err := t.conn.deleteNeighbour(n.neighbourKey); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("delete neighbour %s: %w", n.address, err))
		}
	}
	return errors.Join(errs...)
}

// gone reports whether err says that a neighbour entry, or its interface, is not
// there.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
