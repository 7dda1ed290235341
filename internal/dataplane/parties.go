package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// parties are the addresses whose fragments can be a service's: before a
// datagram's first fragment has come, there are no ports to find a service or a
// connection by. Services of marks are found by the rules.
type parties struct {
	entries *ebpf.Map
	virtual map[netip.Addr]int  // how many services have it
	servers map[netip.Addr]int  // how many slots of real servers
	entered map[uint32]struct{} // those slots
}

func newParties(entries *ebpf.Map) *parties {
	return &parties{
		entries: entries,
		virtual: map[netip.Addr]int{},
		servers: map[netip.Addr]int{},
		entered: map[uint32]struct{}{},
	}
}

// roles are what an address is at the moment.
func (p *parties) roles(addr netip.Addr) directorParty {
	var roles directorParty
	if p.virtual[addr] > 0 {
		roles |= directorPartyPARTY_VIRTUAL
	}
	if p.servers[addr] > 0 {
		roles |= directorPartyPARTY_SERVER
	}
	return roles
}

// count adds to how often an address has a role, and stores what it is then.
func (p *parties) count(role map[netip.Addr]int, addr netip.Addr, n int) error {
	was := p.roles(addr)
	if role[addr] += n; role[addr] == 0 {
		delete(role, addr)
	}
	if p.roles(addr) == was {
		return nil
	}
	if err := p.store(addr); err != nil {
		role[addr] -= n
		return err
	}
	return nil
}

func (p *parties) store(addr netip.Addr) error {
	roles := p.roles(addr)
	if roles != 0 {
		if err := p.entries.Put(toAddress(addr), roles); err != nil {
			return fmt.Errorf("enter the address %s for fragments: %w", addr, tableFull(err))
		}
		return nil
	}
	if err := p.entries.Delete(toAddress(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take out the address %s for fragments: %w", addr, err)
	}
	return nil
}

// addService enters the address of a service.
func (p *parties) addService(key lvs.ServiceKey) error {
	if key.Mark != 0 {
		return nil
	}
	return p.count(p.virtual, key.Address, 1)
}

// deleteService takes out the address of a service that is gone.
func (p *parties) deleteService(key lvs.ServiceKey) error {
	if key.Mark != 0 {
		return nil
	}
	return p.count(p.virtual, key.Address, -1)
}

// addServer enters the address of the real server in a slot, whose replies pass the
// director. It stays until the slot is free: connections keep the method that they
// began with.
func (p *parties) addServer(slot uint32, addr netip.Addr) error {
	if _, is := p.entered[slot]; is {
		return nil
	}
	if err := p.count(p.servers, addr, 1); err != nil {
		return err
	}
	p.entered[slot] = struct{}{}
	return nil
}

// deleteServer takes out the address of the real server in a slot that becomes
// free.
func (p *parties) deleteServer(slot uint32, addr netip.Addr) error {
	if _, is := p.entered[slot]; !is {
		return nil
	}
	delete(p.entered, slot)
	return p.count(p.servers, addr, -1)
}

// storedParties returns the addresses in the data plane.
func (p *Plane) storedParties() (map[netip.Addr]directorParty, error) {
	stored := map[netip.Addr]directorParty{}
	var raw directorAddress
	var roles directorParty
	entries := p.maps.Parties.Iterate()
	for entries.Next(&raw, &roles) {
		stored[fromAddress(raw)] = roles
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read the addresses for fragments: %w", err)
	}
	return stored, nil
}

// readParties makes the addresses fit the services and real servers that were read
// back.
func (p *Plane) readParties() error {
	stored, err := p.storedParties()
	if err != nil {
		return err
	}
	for key := range p.services {
		if err := p.parties.addService(key); err != nil {
			return err
		}
	}
	for i := range p.view.servers.elements {
		slot, rs := uint32(i), &p.view.servers.elements[i]
		addr := fromAddress(rs.Raddr)
		if rs.State == directorServerStateSERVER_FREE ||
			!lvs.ForwardingMethod(rs.Method).Translates() && stored[addr]&directorPartyPARTY_SERVER == 0 {
			continue
		}
		if err := p.parties.addServer(slot, addr); err != nil {
			return err
		}
	}
	for addr := range stored {
		if err := p.parties.store(addr); err != nil {
			return err
		}
	}
	return nil
}
