package director

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A director that is a real server too gets frames that another director forwarded
// to it. They are for the host: scheduled here, they would go on to a third host,
// or back. They are known by their source MAC address, that of a peer. Peers are
// the addresses that were configured as such, and, where a real server is this host
// itself, all its other real servers on the segment: in a cluster of directors that
// serve each other, any of them may be the active one.

// A sender is what an address is to the guard.
type sender struct {
	// mac is what its frames come from: kept while it is silent, and zero for one
	// that is this host or behind a router, which sends the frames of others too.
	mac lvs.MAC
	// guarded is the MAC address that the plane has for it; zero: none.
	guarded lvs.MAC
	local   bool // a real server that is this host
}

// A guard is what the plane knows peers by.
type guard struct {
	plane plane
	log   *slog.Logger
	// uses counts who needs each MAC address that the plane has.
	uses map[lvs.MAC]int
	// inherited are those that the plane had in the beginning. They stay until all
	// addresses are known: what a director that was killed guarded, its successor does.
	inherited []lvs.MAC
	unknown   int // addresses whose next hop was not learnt yet
	locals    int // real servers' addresses that are this host
}

func (g *guard) add(mac lvs.MAC) {
	if mac == (lvs.MAC{}) {
		return
	}
	if g.uses[mac]++; g.uses[mac] > 1 {
		return
	}
	if err := g.plane.AddPeerMAC(mac); err != nil {
		g.log.Error("peer not guarded against", "mac", mac, "cause", err)
		return
	}
	g.log.Info("peer known", "mac", mac)
}

func (g *guard) remove(mac lvs.MAC) {
	if mac == (lvs.MAC{}) {
		return
	}
	if g.uses[mac]--; g.uses[mac] > 0 {
		return
	}
	delete(g.uses, mac)
	if err := g.plane.DeletePeerMAC(mac); err != nil {
		g.log.Error("former peer still guarded against", "mac", mac, "cause", err)
		return
	}
	g.log.Info("peer no longer known", "mac", mac)
}

// disinherit lets go of what an earlier director guarded, once all is known.
func (g *guard) disinherit() {
	if g.unknown > 0 {
		return
	}
	for _, mac := range g.inherited {
		g.remove(mac)
	}
	g.inherited = nil
}

// inherit takes over the MAC addresses and the configured peers that the plane has.
func (t *hopTable) inherit() error {
	macs, err := t.plane.PeerMACs()
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.guard.inherited = macs
	for _, mac := range macs {
		t.guard.uses[mac]++
	}
	t.mu.Unlock()
	peers, err := t.plane.Peers()
	if err != nil {
		return err
	}
	for addr, mac := range peers {
		t.change(addr, func(e *hopEntry) { e.configured, e.mac = true, mac })
	}
	return nil
}

// recognize takes from the next hop of an address what its frames come from.
func (t *hopTable) recognize(addr netip.Addr, e *hopEntry) {
	before := e.mac
	switch {
	case e.hop.Local, e.hop.Gateway.IsValid():
		e.mac = lvs.MAC{}
	case e.hop.Usable():
		e.mac = e.hop.Destination
	}
	if e.configured && e.mac != before {
		t.remember(addr, e)
	}
}

// remember has the plane remember what a configured peer is known by.
func (t *hopTable) remember(addr netip.Addr, e *hopEntry) {
	if err := t.plane.SetPeer(addr, e.mac); err != nil {
		t.log.Error("peer not remembered", "peer", addr, "cause", err)
	}
}

// protect brings the guard up to date after e changed.
func (t *hopTable) protect(e *hopEntry) {
	before := t.guard.locals > 0
	if is := e.servers > 0 && e.hop.Local; is != e.local {
		e.local = is
		if is {
			t.guard.locals++
		} else {
			t.guard.locals--
		}
	}
	t.protectFrom(e)
	if before != (t.guard.locals > 0) {
		for _, other := range t.addresses {
			t.protectFrom(other)
		}
	}
	t.guard.disinherit()
}

func (t *hopTable) protectFrom(e *hopEntry) {
	var want lvs.MAC
	if t.isPeer(e) {
		want = e.mac
	}
	if want == e.guarded {
		return
	}
	t.guard.add(want)
	t.guard.remove(e.guarded)
	e.guarded = want
}

func (t *hopTable) isPeer(e *hopEntry) bool {
	besideLocal := t.guard.locals > 0 && e.servers > 0 && !e.hop.Local && !e.hop.Gateway.IsValid()
	return e.configured || besideLocal
}

// peers returns all peers by address.
func (t *hopTable) peers() []lvs.Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := []lvs.Peer{}
	for addr, e := range t.addresses {
		if t.isPeer(e) {
			peers = append(peers, lvs.Peer{
				Address: addr, Configured: e.configured, MAC: e.mac,
				Interface: e.hop.InterfaceName, Problem: peerProblem(e),
			})
		}
	}
	slices.SortFunc(peers, func(a, b lvs.Peer) int { return a.Address.Compare(b.Address) })
	return peers
}

// peerProblem says why the frames of a peer may not be known.
func peerProblem(e *hopEntry) string {
	switch {
	case !e.isKnown():
		return "its MAC address is not known yet"
	case e.hop.Local:
		return "it is an address of this director"
	case e.hop.Gateway.IsValid():
		return fmt.Sprintf("it is behind the router %s, whose frames are not all its own", e.hop.Gateway)
	}
	return e.hop.Problem
}

// Peers implements [api.Director].
func (d *Director) Peers(context.Context) ([]lvs.Peer, error) { return d.hops.peers(), nil }

// AddPeer implements [api.Director]. It waits a moment for the peer's MAC address,
// so that the guard holds when it returns.
func (d *Director) AddPeer(_ context.Context, addr netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addPeer(addr)
}

func (d *Director) addPeer(addr netip.Addr) error {
	if err := d.checkPeer(addr); err != nil {
		return fmt.Errorf("add peer %s: %w", addr, err)
	}
	if err := d.plane.SetPeer(addr, lvs.MAC{}); err != nil {
		return err
	}
	d.hops.change(addr, func(e *hopEntry) {
		e.configured = true
		d.hops.remember(addr, e)
	})
	d.hops.wait(addr)
	d.log.Info("peer added", "peer", addr)
	return nil
}

func (d *Director) checkPeer(addr netip.Addr) error {
	if d.hops.isConfiguredPeer(addr) {
		return lvs.ErrPeerExists
	}
	return d.checkPeerAddress(addr)
}

// checkPeerAddress returns why addr can't be that of a peer, nil if it can.
func (d *Director) checkPeerAddress(addr netip.Addr) error {
	if err := checkUnicast("address", addr); err != nil {
		return err
	}
	local, err := d.isLocal(addr)
	if err == nil && local {
		err = fmt.Errorf("%w: it is an address of this director: want that of the other one", lvs.ErrInvalid)
	}
	return err
}

func (t *hopTable) isConfiguredPeer(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.addresses[addr]
	return ok && e.configured
}

// DeletePeer implements [api.Director].
func (d *Director) DeletePeer(_ context.Context, addr netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deletePeer(addr)
}

func (d *Director) deletePeer(addr netip.Addr) error {
	if !d.hops.isConfiguredPeer(addr) {
		return fmt.Errorf("delete peer %s: %w", addr, lvs.ErrNoPeer)
	}
	if err := d.plane.DeletePeer(addr); err != nil {
		return err
	}
	d.hops.change(addr, func(e *hopEntry) { e.configured = false })
	d.log.Info("peer deleted", "peer", addr)
	return nil
}
