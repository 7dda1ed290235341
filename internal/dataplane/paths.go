package dataplane

import (
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The data plane lowers the MTU of a tunnel's next hop when a router says that a packet
// was too large (path_mtu.h). Ways change: after a while the route's own MTU is tried
// again, as the kernel does (net/ipv4/route.c, ip_rt_mtu_expires).

// pathLifetime is how long what a router said holds.
const pathLifetime = 10 * time.Minute

// A path is the way to a tunnelled real server.
type path struct {
	mtu     uint16 // of the route
	learnt  bool   // it was lowered since
	noticed uint32 // tick, of when that was seen
}

// notePath remembers the MTU of the next hop that a real server gets.
func (p *Plane) notePath(slot uint32, mtu uint16) {
	if p.view.servers.elements[slot].Method == uint32(lvs.Tunnelling) {
		p.paths[slot] = path{mtu: mtu}
	}
}

// forgetPaths gives the ways whose time is over the MTU of the route again.
func (p *Plane) forgetPaths() error {
	if len(p.paths) == 0 {
		return nil
	}
	now, err := p.now()
	if err != nil {
		return err
	}
	for slot, known := range p.paths {
		rs := &p.view.servers.elements[slot]
		hop := &rs.Hops[rs.which()]
		switch {
		case rs.State == directorServerStateSERVER_FREE || rs.Method != uint32(lvs.Tunnelling):
			delete(p.paths, slot)
		case hop.Mtu >= known.mtu:
			p.paths[slot] = path{mtu: known.mtu}
		case !known.learnt:
			p.paths[slot] = path{mtu: known.mtu, learnt: true, noticed: now}
		case now-known.noticed >= p.toTicks(pathLifetime):
			hop.Mtu = known.mtu
		}
	}
	return nil
}
