package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/scheduler"
)

// A serverIdentity is what a removed real server is known by when it returns.
type serverIdentity struct {
	service lvs.ServiceKey
	server  lvs.RealServerKey
}

func (p *Plane) serverKey(slot uint32) lvs.RealServerKey {
	rs := &p.view.servers.elements[slot]
	return lvs.RealServerKey{Address: fromAddress(rs.Raddr), Port: fromPort(rs.Rport)}
}

// findServer returns the position of a real server in its service's list.
func (p *Plane) findServer(svc *service, key lvs.RealServerKey) (int, error) {
	at := slices.IndexFunc(svc.servers, func(slot uint32) bool { return p.serverKey(slot) == key })
	if at < 0 {
		return 0, fmt.Errorf("find real server %s of %s: %w", key, svc.ServiceKey, lvs.ErrNoServer)
	}
	return at, nil
}

// findListed returns the slot of a real server, and where it stands in its service's list.
func (p *Plane) findListed(key lvs.ServiceKey, server lvs.RealServerKey) (svc *service, at int, slot uint32, err error) {
	if svc, err = p.findService(key); err != nil {
		return nil, 0, 0, err
	}
	if at, err = p.findServer(svc, server); err != nil {
		return nil, 0, 0, err
	}
	return svc, at, svc.servers[at], nil
}

// AddServer adds a real server at the head of a service's list. One that was
// removed gets its connections and counters back. It has no next hop until
// SetNextHop or SetServerNextHop. It wraps lvs.ErrNoService, lvs.ErrServerExists and
// lvs.ErrTableFull.
func (p *Plane) AddServer(key lvs.ServiceKey, want lvs.RealServer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, err := p.findService(key)
	if err != nil {
		return err
	}
	if _, err := p.findServer(svc, want.RealServerKey); err == nil {
		return fmt.Errorf("add real server %s to %s: %w", want.RealServerKey, key, lvs.ErrServerExists)
	}
	if err := p.addServer(svc, want); err != nil {
		return fmt.Errorf("add real server %s to %s: %w", want.RealServerKey, key, err)
	}
	return nil
}

func (p *Plane) addServer(svc *service, want lvs.RealServer) error {
	if len(svc.servers) >= int(directorLimitMAX_LIST) {
		return fmt.Errorf("a service has at most %d real servers: %w", directorLimitMAX_LIST, lvs.ErrTableFull)
	}
	identity := serverIdentity{svc.ServiceKey, want.RealServerKey}
	slot, returns := p.removed[identity]
	if !returns {
		var err error
		if slot, err = p.newServer(identity); err != nil {
			return err
		}
	}
	raw, err := p.rawCounters(slot)
	if err == nil {
		err = p.startSlowly(svc, slot, want.Weight)
	}
	if err != nil {
		return err
	}
	if err := p.writeServer(slot, want); err != nil {
		return err
	}
	if !returns {
		delete(p.flipped, slot) // no packet knows the slot yet: its next hop needs no grace period
	}
	p.view.servers.elements[slot].Policy = p.view.services.elements[svc.index].Policy
	p.setServerState(slot, directorServerStateSERVER_LISTED)
	p.view.servers.elements[slot].IdleSince = 0
	delete(p.removed, identity)
	servers := append([]uint32{slot}, svc.servers...)
	if err := p.publish(svc, servers, lvs.Counters{}.Sub(raw), scheduler.Position.AfterAdd); err != nil {
		p.removed[identity] = slot
		p.setServerState(slot, directorServerStateSERVER_REMOVED)
		return err
	}
	return nil
}

// newServer takes a slot for a real server that is not known yet.
func (p *Plane) newServer(identity serverIdentity) (uint32, error) {
	if len(p.free.servers) == 0 {
		if err := p.dropRemoved(); err != nil {
			return 0, err
		}
	}
	slot, err := p.take(&p.free.servers, "real server")
	if err != nil {
		return 0, err
	}
	raw, err := p.rawCounters(slot)
	if err == nil {
		err = p.setServerCarry(slot, lvs.Counters{}.Sub(raw))
	}
	if err != nil {
		return 0, err
	}
	const incarnations = 1 << 16
	p.addresses.move(slot, p.view.servers.elements[slot].Raddr, toAddress(identity.server.Address))
	p.view.servers.elements[slot] = directorRealServer{
		Service:     toServiceKey(identity.service),
		Raddr:       toAddress(identity.server.Address),
		Rport:       toPort(identity.server.Port),
		Incarnation: (p.view.servers.elements[slot].Incarnation + 1) % incarnations,
	}
	p.problems[slot] = "its next hop is not known yet"
	return slot, nil
}

// writeServer stores what may change about a real server, field by field.
func (p *Plane) writeServer(slot uint32, want lvs.RealServer) error {
	rs := &p.view.servers.elements[slot]
	if want.Method.Translates() {
		if err := p.parties.addServer(slot, want.Address); err != nil {
			return err
		}
	}
	atomic.StoreUint32(&rs.Method, uint32(want.Method))
	atomic.StoreUint32(&rs.Weight, want.Weight)
	if want.Weight != 0 {
		rs.LastWeight = want.Weight
	}
	if want.UpperThreshold == 0 || want.UpperThreshold > rs.Upper {
		atomic.StoreUint32(&rs.Overloaded, 0) // ip_vs_ctl.c, __ip_vs_update_dest
	}
	atomic.StoreUint32(&rs.Upper, want.UpperThreshold)
	atomic.StoreUint32(&rs.Lower, want.LowerThreshold)
	rs.Toa = 0
	if want.TOA {
		rs.Toa = 1
	}
	holds := p.way(slot)
	return p.setWay(slot, way{holds.hop, toTunnel(want, holds.tunnel.Source)})
}

func (p *Plane) setServerState(slot uint32, state directorServerState) {
	rs := &p.view.servers.elements[slot]
	atomic.StoreUint32((*uint32)(&rs.State), uint32(state))
	p.turnHop(slot, rs.which())
}

// which tells which of its two next hops holds.
func (rs *directorRealServer) which() directorServerHop { return rs.Hop & directorServerHopHOP_SECOND }

// nextHop returns the one that holds.
func (rs *directorRealServer) nextHop() directorNextHop { return rs.Hops[rs.which()] }

// EditServer changes a real server; its connections stay. It wraps
// lvs.ErrNoService and lvs.ErrNoServer.
func (p *Plane) EditServer(key lvs.ServiceKey, want lvs.RealServer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, _, slot, err := p.findListed(key, want.RealServerKey)
	if err != nil {
		return err
	}
	was := p.serverStatus(slot, lvs.Counters{}).RealServer
	if was.Weight == 0 {
		if err := p.startSlowly(svc, slot, want.Weight); err != nil {
			return fmt.Errorf("edit real server %s of %s: %w", want.RealServerKey, key, err)
		}
	}
	lastWeight := p.view.servers.elements[slot].LastWeight
	if err := p.writeServer(slot, want); err != nil {
		return fmt.Errorf("edit real server %s of %s: %w", want.RealServerKey, key, err)
	}
	if svc.Scheduler != lvs.WeightedRoundRobin && !tableHasWeights(svc.Scheduler) && want.Method == was.Method {
		return nil
	}
	if err := p.publish(svc, svc.servers, lvs.Counters{}, keepCursor); err != nil {
		err = errors.Join(err, p.writeServer(slot, was))
		p.view.servers.elements[slot].LastWeight = lastWeight
		return fmt.Errorf("edit real server %s of %s: %w", want.RealServerKey, key, err)
	}
	return nil
}

// DeleteServer takes a real server out of its service. Packets of its
// connections are dropped until they end or it returns, as in IPVS. It wraps
// lvs.ErrNoService and lvs.ErrNoServer.
func (p *Plane) DeleteServer(key lvs.ServiceKey, server lvs.RealServerKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, at, slot, err := p.findListed(key, server)
	if err != nil {
		return err
	}
	raw, err := p.rawCounters(slot)
	if err == nil {
		servers := slices.Delete(slices.Clone(svc.servers), at, at+1)
		err = p.publish(svc, servers, raw, func(position scheduler.Position) scheduler.Position {
			return position.AfterRemove(at)
		})
	}
	if err == nil {
		err = p.retire(key, slot)
	}
	if err != nil {
		return fmt.Errorf("delete real server %s of %s: %w", server, key, err)
	}
	return nil
}

func (p *Plane) serverStatus(slot uint32, counters lvs.Counters) lvs.RealServerStatus {
	rs := &p.view.servers.elements[slot]
	holds := p.way(slot)
	hop := fromNextHop(holds.hop)
	hop.Problem = p.problems[slot]
	if source := fromAddress(holds.tunnel.Source); holds.hop.Ifindex != 0 && source != netip.IPv6Unspecified() {
		hop.SourceIP = source
	}
	server := lvs.RealServer{
		RealServerKey:  p.serverKey(slot),
		Method:         lvs.ForwardingMethod(rs.Method),
		Weight:         rs.Weight,
		UpperThreshold: rs.Upper,
		LowerThreshold: rs.Lower,
	}
	if server.Method == lvs.Tunnelling {
		server.Tunnel = fromTunnel(holds.tunnel)
	}
	server.TOA = rs.Toa != 0
	return lvs.RealServerStatus{
		RealServer: server,
		Active:     atomic.LoadUint32(&rs.Active),
		Inactive:   atomic.LoadUint32(&rs.Inactive),
		Persistent: atomic.LoadUint32(&rs.Persistent),
		Retries:    atomic.LoadUint32(&rs.Retries),
		Resets:     atomic.LoadUint32(&rs.Resets),
		Counters:   counters,
		NextHop:    server.Judge(hop),
	}
}

// SetNextHop changes where packets to every real server with that address go. A
// hop that is not usable lets its packets be dropped and counted.
func (p *Plane) SetNextHop(addr netip.Addr, hop lvs.NextHop) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for slot := range p.addresses[toAddress(addr)] {
		if p.view.servers.elements[slot].State == directorServerStateSERVER_FREE {
			continue
		}
		if err := p.setNextHop(slot, hop); err != nil {
			return fmt.Errorf("set the next hop of %s: %w", addr, err)
		}
	}
	return nil
}

// SetServerNextHop changes where packets to one real server of one service go, and leaves
// others of its address alone: for one that was just added. It wraps lvs.ErrNoService and
// lvs.ErrNoServer.
func (p *Plane) SetServerNextHop(key lvs.ServiceKey, server lvs.RealServerKey, hop lvs.NextHop) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _, slot, err := p.findListed(key, server)
	if err == nil {
		err = p.setNextHop(slot, hop)
	}
	if err != nil {
		return fmt.Errorf("set the next hop of %s of %s: %w", server, key, err)
	}
	return nil
}

func (p *Plane) setNextHop(slot uint32, hop lvs.NextHop) error {
	var source directorAddress
	if hop.SourceIP.IsValid() {
		source = toAddress(hop.SourceIP)
	}
	if err := p.setWay(slot, way{toNextHop(hop), p.way(slot).tunnel.from(source)}); err != nil {
		return err
	}
	p.problems[slot] = hop.Problem
	return nil
}
