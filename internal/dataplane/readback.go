package dataplane

import (
	"fmt"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// readBack learns from taken-over maps what they hold. A director may have been
// killed within a change: what a packet can reach (key, service, edition, list)
// is what holds, and the rest is mended to fit.
func (p *Plane) readBack() error {
	if err := gracePeriod(); err != nil {
		return err
	}
	if err := p.readServices(); err != nil {
		return err
	}
	listed := p.mendServers()
	if err := p.readFree(listed); err != nil {
		return err
	}
	for slot := range p.view.servers.elements {
		if raddr := p.view.servers.elements[slot].Raddr; raddr != (directorAddress{}) {
			p.addresses.move(uint32(slot), directorAddress{}, raddr)
		}
	}
	p.readPolicies()
	p.readDrains()
	if err := p.readCacheNumber(); err != nil {
		return err
	}
	p.countServices()
	if err := p.readParties(); err != nil {
		return err
	}
	if err := p.scheduleCollection(); err != nil {
		return err
	}
	return p.filterPeers()
}

// readPolicies turns all real servers to the policies that their services have. One
// whose service is gone keeps its policy, unless the place is another's by now.
func (p *Plane) readPolicies() {
	for i := range p.view.servers.elements {
		rs := &p.view.servers.elements[i]
		policy := rs.Policy
		if svc := p.services[fromServiceKey(rs.Service)]; svc != nil {
			policy = p.view.services.elements[svc.index].Policy
		} else if policy > uint32(directorLimitMAX_SERVICES) || policy != noPolicy && p.view.services.elements[policy-1].Used != 0 {
			policy = noPolicy
		}
		if rs.Policy != policy {
			p.setServerPolicy(uint32(i), policy)
		}
	}
	p.defend()
}

func (p *Plane) readServices() error {
	found := p.foundServices()
	for i := range p.view.services.elements {
		slot := &p.view.services.elements[i]
		if !found[uint32(i)] {
			slot.Used = 0
			continue
		}
		svc, err := p.readService(fromServiceKey(slot.Key), uint32(i), slot)
		if err != nil {
			return err
		}
		p.services[svc.ServiceKey] = svc
		p.sequence = max(p.sequence, svc.sequence)
	}
	return nil
}

func (p *Plane) readService(key lvs.ServiceKey, index uint32, slot *directorService) (*service, error) {
	if slot.Edition >= uint32(directorLimitMAX_EDITIONS) {
		return nil, fmt.Errorf("read service %s back: edition %d is out of range", key, slot.Edition)
	}
	edition := &p.view.editions.elements[slot.Edition]
	if slot.Policy != noPolicy && slot.Policy != index+1 {
		return nil, fmt.Errorf("read service %s back: policy %d is another's", key, slot.Policy)
	}
	name := fromScheduler(edition.Scheduler)
	if name == "" {
		return nil, fmt.Errorf("read service %s back: scheduler %d is unknown", key, edition.Scheduler)
	}
	if err := p.free.lists.reserve(edition.List, edition.Servers); err != nil {
		return nil, fmt.Errorf("read service %s back: %w", key, err)
	}
	if err := p.free.tables.reserve(edition.Table, edition.TableLines); err != nil {
		return nil, fmt.Errorf("read service %s back: %w", key, err)
	}
	cache, err := p.timedCache(edition.Cache)
	if err != nil {
		return nil, fmt.Errorf("read service %s back: %w", key, err)
	}
	return &service{
		Service: lvs.Service{
			ServiceKey:         key,
			Scheduler:          name,
			PersistenceTimeout: p.fromTicks(edition.Persistence).Round(time.Second),
			PersistenceMask:    fromClientMask(key.Address, edition.ClientMask),
			PersistenceEngine:  engineOf(edition.Flags),
			SchedulerFlags:     lvs.SchedulerFlags(edition.Flags),
			OnePacket:          edition.Flags&directorSchedulerFlagFLAG_ONE_PACKET != 0,
		},
		cache:    cache,
		index:    index,
		edition:  slot.Edition,
		sequence: slot.Sequence,
		servers:  p.readList(edition),
	}, nil
}

func engineOf(flags directorSchedulerFlag) string {
	if flags&directorSchedulerFlagFLAG_CALL_ID != 0 {
		return lvs.EngineSIP
	}
	return ""
}

func (p *Plane) readList(edition *directorEdition) []uint32 {
	servers := make([]uint32, 0, edition.Servers)
	for _, slot := range p.view.lists.elements[edition.List : edition.List+edition.Servers] {
		servers = append(servers, slot.Server)
	}
	return servers
}

// mendServers makes the states of real servers fit the lists, and returns those
// that are on one.
func (p *Plane) mendServers() map[uint32]bool {
	listed := map[uint32]bool{}
	for _, svc := range p.services {
		for _, slot := range svc.servers {
			listed[slot] = true
			p.setServerState(slot, directorServerStateSERVER_LISTED)
		}
	}
	for i := range p.view.servers.elements {
		slot, rs := uint32(i), &p.view.servers.elements[i]
		if rs.SlowStartTicks != 0 {
			p.slowStarts[slot] = true
		}
		if rs.State == directorServerStateSERVER_FREE || listed[slot] {
			continue
		}
		p.setServerState(slot, directorServerStateSERVER_REMOVED)
		p.removed[serverIdentity{fromServiceKey(rs.Service), p.serverKey(slot)}] = slot
	}
	return listed
}

func (p *Plane) readFree(listed map[uint32]bool) error {
	editions := map[uint32]bool{}
	for _, svc := range p.services {
		if editions[svc.edition] {
			return fmt.Errorf("read service %s back: edition %d is in use twice", svc.ServiceKey, svc.edition)
		}
		editions[svc.edition] = true
	}
	for i := range p.view.editions.elements {
		if !editions[uint32(i)] {
			p.free.editions = append(p.free.editions, uint32(i))
		}
	}
	for i := range p.view.services.elements {
		if p.view.services.elements[i].Used == 0 {
			p.free.services = append(p.free.services, uint32(i))
		}
	}
	for i := range p.view.servers.elements {
		if p.view.servers.elements[i].State == directorServerStateSERVER_FREE {
			p.free.servers = append(p.free.servers, uint32(i))
		} else if p.view.servers.elements[i].nextHop() == (directorNextHop{}) {
			p.problems[uint32(i)] = "its next hop is not known yet"
		}
	}
	return nil
}
