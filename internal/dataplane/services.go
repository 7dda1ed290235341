package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/scheduler"
)

// A service is a virtual service as it stands in the maps.
type service struct {
	lvs.Service
	index    uint32 // into service_table
	edition  uint32 // into editions
	sequence uint64
	servers  []uint32 // into real_servers, in the order of the list
	cache    cache    // of lblc and lblcr
}

func (p *Plane) findService(key lvs.ServiceKey) (*service, error) {
	svc := p.services[key]
	if svc == nil {
		return nil, fmt.Errorf("find service %s: %w", key, lvs.ErrNoService)
	}
	return svc, nil
}

// AddService adds a virtual service without real servers. It wraps
// lvs.ErrServiceExists and lvs.ErrTableFull.
func (p *Plane) AddService(want lvs.Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.services[want.ServiceKey] != nil {
		return fmt.Errorf("add service %s: %w", want.ServiceKey, lvs.ErrServiceExists)
	}
	if err := p.addService(want); err != nil {
		return fmt.Errorf("add service %s: %w", want.ServiceKey, err)
	}
	return nil
}

func (p *Plane) addService(want lvs.Service) error {
	index, err := p.take(&p.free.services, "service")
	if err != nil {
		return err
	}
	edition, err := p.take(&p.free.editions, "edition of a service")
	if err != nil {
		p.free.services = append(p.free.services, index)
		return err
	}
	giveBack := func() {
		p.free.services = append(p.free.services, index)
		p.free.editions = append(p.free.editions, edition)
	}
	if err := p.setEditionCarry(edition, lvs.Counters{}); err != nil {
		giveBack()
		return err
	}
	cache, err := p.newCache(want.Scheduler)
	if err != nil {
		giveBack()
		return err
	}
	p.sequence++
	svc := &service{Service: want, index: index, edition: edition, sequence: p.sequence, cache: cache}
	p.writeEdition(svc, edition, 0, span{}, nil, nil)
	p.forgetPolicy(svc.policyIndex())
	p.view.services.elements[index] = directorService{
		Edition:  edition,
		Used:     1,
		Sequence: svc.sequence,
		Key:      toServiceKey(want.ServiceKey),
	}
	err = p.parties.addService(want.ServiceKey)
	if err == nil {
		if err = p.enterService(toServiceKey(want.ServiceKey), index); err != nil {
			err = errors.Join(err, p.parties.deleteService(want.ServiceKey))
		}
	}
	if err != nil {
		p.view.services.elements[index].Used = 0
		giveBack()
		return err
	}
	p.services[want.ServiceKey] = svc
	p.countServices()
	return nil
}

// EditService changes a virtual service; its real servers and connections stay.
// It wraps lvs.ErrNoService.
func (p *Plane) EditService(want lvs.Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, err := p.findService(want.ServiceKey)
	if err != nil {
		return err
	}
	was := svc.Service
	wasCache := svc.cache
	if want.Scheduler != was.Scheduler {
		if svc.cache, err = p.newCache(want.Scheduler); err != nil {
			return fmt.Errorf("edit service %s: %w", want.ServiceKey, err)
		}
		p.cachesLeft = p.cachesLeft || wasCache.number != 0
	}
	svc.Service = want
	edition, err := p.prepare(svc, svc.servers, lvs.Counters{}, nil)
	if err != nil {
		svc.Service, svc.cache = was, wasCache
		return fmt.Errorf("edit service %s: %w", want.ServiceKey, err)
	}
	if want.Scheduler == was.Scheduler { // it hears of nothing, wrr either
		editions := p.view.editions.elements
		editions[edition].Cursor = atomic.LoadUint64(&editions[svc.edition].Cursor)
	}
	p.turnTo(svc, edition, svc.servers)
	return nil
}

// DeleteService removes a virtual service with its real servers. Connections
// stay until they end or the server returns, as in IPVS. It wraps
// lvs.ErrNoService.
func (p *Plane) DeleteService(key lvs.ServiceKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, err := p.findService(key)
	if err != nil {
		return err
	}
	p.leaveService(toServiceKey(key), svc.index)
	delete(p.services, key)
	if err := p.parties.deleteService(key); err != nil {
		return fmt.Errorf("delete service %s: %w", key, err)
	}
	p.cachesLeft = p.cachesLeft || svc.cache.number != 0
	p.countServices()
	for _, slot := range svc.servers {
		err := p.zeroServer(slot) // if it comes back, it is to another service
		if err == nil {
			err = p.retire(key, slot)
		}
		if err != nil {
			return fmt.Errorf("delete service %s: %w", key, err)
		}
	}
	p.view.services.elements[svc.index].Used = 0
	p.throwAway(func() { p.free.services = append(p.free.services, svc.index) })
	p.throwAwayEdition(svc.edition)
	return nil
}

// countServices tells the data plane which look-ups can find something.
func (p *Plane) countServices() {
	var ftp, anyPort uint32
	for key := range p.services {
		switch {
		case key.Protocol == lvs.TCP && key.Port == 21:
			ftp++
		case key.Mark == 0 && key.Port == 0:
			anyPort++
		}
	}
	set := p.settings()
	atomic.StoreUint32(&set.FtpServices, ftp)
	atomic.StoreUint32(&set.AnyPortServices, anyPort)
	atomic.StoreUint32(&set.Services, uint32(len(p.services)))
}

// Services returns all services in the order in which they were added, with
// what was counted. Rates are zero: a Plane knows no past.
func (p *Plane) Services() ([]lvs.ServiceStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.SortedFunc(maps.Values(p.services), func(a, b *service) int {
		return cmp.Compare(a.sequence, b.sequence)
	})
	counters, err := p.readCounters()
	if err != nil {
		return nil, err
	}
	statuses := make([]lvs.ServiceStatus, 0, len(all))
	for _, svc := range all {
		status, err := p.serviceStatus(svc, counters)
		if err != nil {
			return nil, fmt.Errorf("read service %s: %w", svc.ServiceKey, err)
		}
		statuses = append(statuses, status)
	}
	return statuses, nil
}

// Configured returns all services, in no order, without what was counted.
func (p *Plane) Configured() []lvs.Service {
	p.mu.Lock()
	defer p.mu.Unlock()
	services := make([]lvs.Service, 0, len(p.services))
	for _, svc := range p.services {
		services = append(services, svc.Service)
	}
	return services
}

func (p *Plane) serviceStatus(svc *service, counters counterReader) (lvs.ServiceStatus, error) {
	sum, err := p.editionCarry(svc.edition)
	if err != nil {
		return lvs.ServiceStatus{}, err
	}
	status := lvs.ServiceStatus{Service: svc.Service}
	for _, slot := range svc.servers {
		raw, carry, err := counters(slot)
		if err != nil {
			return lvs.ServiceStatus{}, err
		}
		sum = sum.Add(raw)
		status.Servers = append(status.Servers, p.serverStatus(slot, raw.Add(carry)))
	}
	status.Counters = sum
	return status, nil
}

// zeroServer sets what is shown of a server's counters to zero.
func (p *Plane) zeroServer(slot uint32) error {
	raw, err := p.rawCounters(slot)
	if err != nil {
		return err
	}
	return p.setServerCarry(slot, lvs.Counters{}.Sub(raw))
}

// Zero sets the counters of a service and of its servers to zero. It wraps
// lvs.ErrNoService.
func (p *Plane) Zero(key lvs.ServiceKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	svc, err := p.findService(key)
	if err != nil {
		return err
	}
	var sum lvs.Counters
	for _, slot := range svc.servers {
		raw, err := p.rawCounters(slot)
		if err == nil {
			err = p.setServerCarry(slot, lvs.Counters{}.Sub(raw))
		}
		if err != nil {
			return fmt.Errorf("zero service %s: %w", key, err)
		}
		sum = sum.Add(raw)
	}
	return p.setEditionCarry(svc.edition, lvs.Counters{}.Sub(sum))
}

// A cursorMove tells where the walk over a server list goes on in a new edition;
// nil begins anew.
type cursorMove func(scheduler.Position) scheduler.Position

func keepCursor(at scheduler.Position) scheduler.Position { return at }

// publish makes a list of servers hold for a service, in one store. What was
// counted is added to the service's counters in the same store: that of servers
// that went, less that of servers that came.
func (p *Plane) publish(svc *service, servers []uint32, counted lvs.Counters, move cursorMove) error {
	edition, err := p.prepare(svc, servers, counted, move)
	if err != nil {
		return err
	}
	p.turnTo(svc, edition, servers)
	return nil
}

// prepare fills an edition that no packet can be at yet.
func (p *Plane) prepare(svc *service, servers []uint32, counted lvs.Counters, move cursorMove) (uint32, error) {
	edition, err := p.take(&p.free.editions, "edition of a service")
	if err != nil {
		return 0, err
	}
	carry, err := p.editionCarry(svc.edition)
	if err == nil {
		err = p.setEditionCarry(edition, carry.Add(counted))
	}
	var list uint32
	if err == nil {
		list, err = p.writeList(servers)
	}
	var table span
	if err == nil {
		if table, err = p.writeTable(p.table(svc, servers), servers); err != nil {
			p.free.lists.release(list, uint32(len(servers)))
		}
	}
	if err != nil {
		p.free.editions = append(p.free.editions, edition)
		return 0, err
	}
	p.writeEdition(svc, edition, list, table, servers, move)
	return edition, nil
}

// turnTo makes an edition hold that was prepared.
func (p *Plane) turnTo(svc *service, edition uint32, servers []uint32) {
	old := svc.edition
	atomic.StoreUint32(&p.view.services.elements[svc.index].Edition, edition)
	svc.edition, svc.servers = edition, servers
	p.throwAwayEdition(old)
}

// allocate returns the start of a run of free slots; first those that wait for a
// grace period if there is none.
func (p *Plane) allocate(free *slotAllocator, n uint32) (uint32, error) {
	start, err := free.allocate(n)
	if err == nil {
		return start, nil
	}
	if err := p.settle(); err != nil {
		return 0, err
	}
	return free.allocate(n)
}

func (p *Plane) writeList(servers []uint32) (uint32, error) {
	n := uint32(len(servers))
	start, err := p.allocate(p.free.lists, n)
	if err != nil {
		return 0, err
	}
	for i, slot := range servers {
		p.view.lists.elements[start+uint32(i)] = directorListSlot{Server: slot}
	}
	return start, nil
}

// writeEdition stores what an edition is made of: what svc is, its servers and
// where they are listed, the lines of the scheduler's table, and where the walk of
// the edition that holds has come to.
func (p *Plane) writeEdition(svc *service, edition, list uint32, table span, servers []uint32, move cursorMove) {
	var position scheduler.Position
	var weight uint32
	if move != nil {
		cursor := atomic.LoadUint64(&p.view.editions.elements[svc.edition].Cursor)
		position, weight = move(scheduler.Position(uint32(cursor))), uint32(cursor>>32)
	}
	rounds := scheduler.NewWRR(p.weights(servers))
	if svc.Scheduler == lvs.WeightedRoundRobin {
		position, weight = 0, rounds.CarryOver(weight)
	}
	p.view.editions.elements[edition] = directorEdition{
		List:        list,
		Servers:     uint32(len(servers)),
		Scheduler:   schedulers[svc.Scheduler],
		WrrStep:     rounds.Step,
		WrrTop:      rounds.Top,
		Flags:       p.editionFlags(svc.Service, servers),
		Cursor:      uint64(weight)<<32 | uint64(position),
		Table:       table.start,
		TableLines:  table.end - table.start,
		Cache:       svc.cache.number,
		ClientMask:  toClientMask(svc.Address, svc.PersistenceMask),
		Persistence: p.toTicks(svc.PersistenceTimeout),
	}
}

func (p *Plane) editionFlags(svc lvs.Service, servers []uint32) directorSchedulerFlag {
	flags := directorSchedulerFlag(svc.SchedulerFlags)
	if svc.OnePacket {
		flags |= directorSchedulerFlagFLAG_ONE_PACKET
	}
	if svc.PersistenceEngine == lvs.EngineSIP {
		flags |= directorSchedulerFlagFLAG_CALL_ID
	}
	if slices.ContainsFunc(servers, func(slot uint32) bool {
		return lvs.ForwardingMethod(p.view.servers.elements[slot].Method).Translates()
	}) {
		flags |= directorSchedulerFlagFLAG_MASQUERADING
	}
	return flags
}

func (p *Plane) weights(servers []uint32) []uint32 {
	weights := make([]uint32, len(servers))
	for i, slot := range servers {
		weights[i] = p.view.servers.elements[slot].Weight
	}
	return weights
}

func (p *Plane) throwAwayEdition(edition uint32) {
	e := p.view.editions.elements[edition]
	p.throwAway(func() {
		p.free.editions = append(p.free.editions, edition)
		p.free.lists.release(e.List, e.Servers)
		p.free.tables.release(e.Table, e.TableLines)
	})
}
