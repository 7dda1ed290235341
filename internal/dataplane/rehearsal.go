package dataplane

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// A rehearsal runs the director's program on copies of what a packet can meet.
//
// The program is the same, instruction for instruction; its maps are not: each
// large array is a hash map from the same indexes to the same values, which
// holds the few that matter. So no size, mask or index differs from the real
// ones, and a copy of a table of 16 GiB takes 8 KiB. What is missing reads as a
// look-up that missed; only the bookkeeping of other flows' ways ever does that. The
// interfaces alone, which no packet changes, are the plane's own.
type rehearsal struct {
	objects rehearsalObjects
	ahead   struct {
		Program *ebpf.Program `ebpf:"look_ahead"`
		Back    *ebpf.Program `ebpf:"look_back"`
		Sights  *ebpf.Map     `ebpf:"sights"`
	}
	// held is what the copies hold, to be taken out again.
	held []heldKey
}

type rehearsalObjects struct {
	Director       *ebpf.Program `ebpf:"director"`
	Bonds          *ebpf.Map     `ebpf:"bonds"`
	Caches         *ebpf.Map     `ebpf:"caches"`
	Connections    *ebpf.Map     `ebpf:"connections"`
	Editions       *ebpf.Map     `ebpf:"editions"`
	Lists          *ebpf.Map     `ebpf:"lists"`
	LocalAddresses *ebpf.Map     `ebpf:"local_addresses"`
	MarkRules      *ebpf.Map     `ebpf:"mark_rules"`
	Policies       *ebpf.Map     `ebpf:"policies"`
	RealServers    *ebpf.Map     `ebpf:"real_servers"`
	ServerCounters *ebpf.Map     `ebpf:"server_counters"`
	ServiceTable   *ebpf.Map     `ebpf:"service_table"`
	Services       *ebpf.Map     `ebpf:"services"`
	Settings       *ebpf.Map     `ebpf:"settings"`
	Tables         *ebpf.Map     `ebpf:"tables"`
	Tunnels        *ebpf.Map     `ebpf:"tunnels"`
	Verdicts       *ebpf.Map     `ebpf:"verdicts"`
}

type heldKey struct {
	m   *ebpf.Map
	key any
}

// How many elements of each array one packet can meet: the groups of its way, one
// service, and that service's list beside the servers of the way's connections.
const (
	rehearsedServers = uint32(directorLimitMAX_LIST) + rehearsedGroups*uint32(directorLimitGROUP_SLOTS)
	rehearsedGroups  = 3*uint32(directorLimitPROBE_GROUPS) + 1 // of its way, its template's, its replies'; and where its second entry lies
	rehearsedLines   = uint32(directorLimitMAGLEV_TABLE_SLOTS)/uint32(directorLimitTABLE_LINE_SLOTS) + 1
	// One of the service, those of the way's connections.
	rehearsedPolicies = 1 + rehearsedGroups*uint32(directorLimitGROUP_SLOTS)
)

func newRehearsal(p *Plane) (*rehearsal, error) {
	r := &rehearsal{}
	err := r.loadDirector(p)
	if err == nil {
		err = r.loadLookAhead(p)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load a copy of the data plane: %w", err), r.close())
	}
	return r, nil
}

func (r *rehearsal) loadDirector(p *Plane) error {
	spec, err := withVariables(loadDirector())
	if err != nil {
		return err
	}
	for name, entries := range map[string]uint32{
		directorMapBonds:          rehearsedGroups,
		directorMapCaches:         1,
		directorMapConnections:    rehearsedGroups,
		directorMapEditions:       1,
		directorMapLists:          uint32(directorLimitMAX_LIST),
		directorMapLocalAddresses: uint32(directorLimitMAX_LOCAL_ADDRESSES),
		directorMapMarkRules:      uint32(directorLimitMAX_MARK_RULES),
		directorMapPolicies:       rehearsedPolicies,
		directorMapRealServers:    rehearsedServers,
		directorMapServerCounters: rehearsedServers,
		directorMapServiceTable:   1,
		directorMapServices:       1,
		directorMapTables:         rehearsedLines,
		directorMapTunnels:        rehearsedServers,
	} {
		m := spec.Maps[name]
		m.MaxEntries, m.Flags = entries, 0
		if m.Type == ebpf.PerCPUArray {
			m.Type = ebpf.PerCPUHash
		} else {
			m.Type = ebpf.Hash
		}
	}
	interfaces := map[string]*ebpf.Map{directorMapInterfaces: p.maps.Interfaces}
	return spec.LoadAndAssign(&r.objects, &ebpf.CollectionOptions{MapReplacements: interfaces})
}

// loadLookAhead loads the program that reads the plane's own maps.
func (r *rehearsal) loadLookAhead(p *Plane) error {
	spec, err := withVariables(loadExplain())
	if err != nil {
		return err
	}
	shared := p.pinnedMaps()
	for name := range shared {
		switch name {
		case directorMapConnections, directorMapEditions, directorMapInterfaces, directorMapLocalAddresses, directorMapMarkRules,
			directorMapRealServers, directorMapServiceTable, directorMapServices, directorMapSettings:
		default:
			delete(shared, name)
		}
	}
	spec.Maps[directorMapConnections].MaxEntries = p.maps.Connections.MaxEntries()
	return spec.LoadAndAssign(&r.ahead, &ebpf.CollectionOptions{MapReplacements: shared})
}

func (r *rehearsal) close() error {
	o := &r.objects
	maps := []*ebpf.Map{o.Bonds, o.Caches, o.Connections, o.Editions, o.Lists, o.LocalAddresses, o.MarkRules, o.Policies, o.RealServers, o.ServerCounters,
		o.ServiceTable, o.Services, o.Settings, o.Tables, o.Tunnels, o.Verdicts, r.ahead.Sights}
	errs := []error{o.Director.Close(), r.ahead.Program.Close(), r.ahead.Back.Close()}
	for _, m := range maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// lookAhead tells what a frame can meet. It changes nothing.
func (r *rehearsal) lookAhead(frame []byte, ifindex int) (explainSight, error) {
	if _, _, err := runProgram(r.ahead.Program, frame, ifindex); err != nil {
		return explainSight{}, fmt.Errorf("look ahead: %w", err)
	}
	var sight explainSight
	err := r.ahead.Sights.Lookup(uint32(0), &sight)
	return sight, err
}

func (r *rehearsal) put(m *ebpf.Map, key, value any) error {
	if err := m.Put(key, value); err != nil {
		return fmt.Errorf("copy into %s: %w", m, err)
	}
	r.held = append(r.held, heldKey{m, key})
	return nil
}

// clear empties the copies.
func (r *rehearsal) clear() error {
	var errs []error
	for _, h := range r.held {
		if err := h.m.Delete(h.key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	r.held = nil
	zeros := make([]uint64, ebpf.MustPossibleCPU())
	for v := range uint32(directorVerdictVERDICTS) {
		errs = append(errs, r.objects.Verdicts.Put(v, zeros))
	}
	return errors.Join(errs...)
}

// A stage is what was copied for one packet, as it was before.
type stage struct {
	groups  map[uint32]directorConnectionGroup // of the packet's way
	servers map[uint32]directorRealServer
	service *service // nil: none
	edition directorEdition
	// passed: the packet has passed; this is not a rehearsal.
	passed bool
}

// copyIn copies what a packet can meet.
func (r *rehearsal) copyIn(p *Plane, sight *explainSight) (*stage, error) {
	err := r.objects.Settings.Put(uint32(0), *p.settings())
	s := &stage{groups: map[uint32]directorConnectionGroup{}, servers: map[uint32]directorRealServer{}}
	if err != nil || sight.Verdict != uint32(directorVerdictCONTINUE) {
		return s, err
	}
	if err := r.copyMarkRules(p); err != nil {
		return nil, err
	}
	if err := r.copyLocalAddresses(p); err != nil {
		return nil, err
	}
	if err := r.copyGroups(p, sight.Groups[:], s); err != nil {
		return nil, err
	}
	if err := r.copySecond(p, sight, s); err != nil {
		return nil, err
	}
	if sight.HasReply != 0 {
		if err := r.copyGroups(p, sight.ReplyGroups[:], s); err != nil {
			return nil, err
		}
	}
	if sight.HasTemplate != 0 {
		if err := r.copyGroups(p, sight.TemplateGroups[:], s); err != nil {
			return nil, err
		}
	}
	if sight.HasService != 0 {
		if err := r.copyService(p, sight, s); err != nil {
			return nil, err
		}
	}
	if err := r.copyPolicies(p, s); err != nil {
		return nil, err
	}
	return s, r.copyServers(p, s)
}

func (r *rehearsal) copyMarkRules(p *Plane) error {
	first, count := p.markRules()
	for index := first; index < first+count; index++ {
		if err := r.put(r.objects.MarkRules, index, p.view.marks.elements[index]); err != nil {
			return err
		}
	}
	return nil
}

func (r *rehearsal) copyGroups(p *Plane, indexes []uint32, s *stage) error {
	for _, index := range indexes {
		if _, ok := s.groups[index]; ok {
			continue
		}
		group := p.view.connections.elements[index]
		s.groups[index] = group
		if err := r.put(r.objects.Connections, index, group); err != nil {
			return err
		}
		var bonds directorBondGroup
		if err := p.maps.Bonds.Lookup(index, &bonds); err != nil {
			return fmt.Errorf("copy bonds: %w", err)
		}
		if err := r.put(r.objects.Bonds, index, bonds); err != nil {
			return err
		}
		for _, entry := range group.Slots {
			if entry.Control&directorControlCONTROL_STATUS == directorControlCONTROL_LIVE {
				s.servers[entry.Server] = p.view.servers.elements[entry.Server]
			}
		}
	}
	return nil
}

func (r *rehearsal) copyService(p *Plane, sight *explainSight, s *stage) error {
	key := fromServiceKey(sameLayout[directorServiceKey](sight.Service))
	svc, err := p.findService(key)
	if err != nil {
		return err
	}
	s.service, s.edition = svc, p.view.editions.elements[svc.edition]
	err = r.put(r.objects.Services, p.homeOf(toServiceKey(key)), directorServicePlace{Service: svc.index + 1})
	if err == nil {
		err = r.put(r.objects.ServiceTable, svc.index, p.view.services.elements[svc.index])
	}
	if err == nil {
		err = r.put(r.objects.Editions, svc.edition, s.edition)
	}
	for i, slot := range svc.servers {
		if err == nil {
			err = r.put(r.objects.Lists, s.edition.List+uint32(i), directorListSlot{Server: slot})
		}
		s.servers[slot] = p.view.servers.elements[slot]
	}
	for line := s.edition.Table; line < s.edition.Table+s.edition.TableLines && err == nil; line++ {
		err = r.put(r.objects.Tables, line, p.view.tables.elements[line])
	}
	if err == nil && s.edition.Cache != 0 {
		err = r.copyCached(p, directorCacheKey{Vaddr: directorAddress(sight.Vaddr), Cache: s.edition.Cache})
	}
	return err
}

// copyPolicies copies those of the service and of the servers.
func (r *rehearsal) copyPolicies(p *Plane, s *stage) error {
	needed := map[uint32]bool{}
	if s.service != nil {
		needed[p.view.services.elements[s.service.index].Policy] = true
	}
	for _, rs := range s.servers {
		needed[rs.Policy] = true
	}
	delete(needed, noPolicy)
	for index := range needed {
		if err := r.put(r.objects.Policies, index, p.view.policies.elements[index]); err != nil {
			return err
		}
	}
	return nil
}

// copyCached copies what lblc and lblcr remember of the packet's virtual address.
func (r *rehearsal) copyCached(p *Plane, key directorCacheKey) error {
	var entry directorCacheEntry
	err := p.maps.Caches.Lookup(key, &entry)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		r.held = append(r.held, heldKey{r.objects.Caches, key}) // the packet may add it
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy what is remembered of %s: %w", fromAddress(key.Vaddr), err)
	}
	return r.put(r.objects.Caches, key, entry)
}

func (r *rehearsal) copyServers(p *Plane, s *stage) error {
	none := make([]directorCounters, ebpf.MustPossibleCPU())
	for slot, rs := range s.servers {
		err := r.put(r.objects.RealServers, slot, rs)
		if err == nil {
			err = r.put(r.objects.Tunnels, slot, p.view.tunnels.elements[slot])
		}
		if err == nil {
			err = r.put(r.objects.ServerCounters, slot, none)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// An outcome is what a rehearsed packet did.
type outcome struct {
	action  uint32
	frame   []byte
	verdict directorVerdict
	// server is the slot that counted the packet; noServer: none did.
	server uint32
	// scheduled: server was chosen for a new connection.
	scheduled bool
	// template: what sent the packet there in the scheduler's place, or nil.
	template *directorConnection
	// nobody: the scheduler or the hash was asked, and found no server.
	nobody bool
	groups map[uint32]directorConnectionGroup
	cursor uint64 // of the service's edition
}

const noServer = ^uint32(0)

// rehearse copies what a frame can meet and runs it there. Where replies have their entry is
// known when the frame's server is: then it starts once more, with that.
func (r *rehearsal) rehearse(p *Plane, frame []byte, sight *explainSight, ifindex int) (*stage, outcome, error) {
	for {
		s, err := r.copyIn(p, sight)
		if err != nil {
			return nil, outcome{}, err
		}
		o, err := r.run(frame, ifindex, s)
		if err != nil {
			return nil, o, err
		}
		again, err := r.lookBack(sight, s, &o)
		if err == nil && again {
			err = r.clear()
		}
		if err != nil || !again {
			return s, o, err
		}
	}
}

// run runs the frame on the copies.
func (r *rehearsal) run(frame []byte, ifindex int, s *stage) (o outcome, err error) {
	if o.action, o.frame, err = runProgram(r.objects.Director, frame, ifindex); err != nil {
		return o, fmt.Errorf("run the program on a copy: %w", err)
	}
	if o.verdict, err = r.verdict(); err != nil {
		return o, err
	}
	o.server = noServer
	for slot := range s.servers {
		var perCPU []directorCounters
		if err := r.objects.ServerCounters.Lookup(slot, &perCPU); err != nil {
			return o, err
		}
		if counted := sumCounters(perCPU); counted.InPackets != 0 || counted.Connections != 0 {
			o.server, o.scheduled = slot, counted.Connections != 0
		}
	}
	o.groups = map[uint32]directorConnectionGroup{}
	for index := range s.groups {
		var group directorConnectionGroup
		if err := r.objects.Connections.Lookup(index, &group); err != nil {
			return o, err
		}
		o.groups[index] = group
	}
	if s.service != nil {
		var edition directorEdition
		if err := r.objects.Editions.Lookup(s.service.edition, &edition); err != nil {
			return o, err
		}
		o.cursor = edition.Cursor
	}
	return o, nil
}

// verdict is the only one that was counted.
func (r *rehearsal) verdict() (directorVerdict, error) {
	for v := range uint32(directorVerdictVERDICTS) {
		var perCPU []uint64
		if err := r.objects.Verdicts.Lookup(v, &perCPU); err != nil {
			return 0, err
		}
		if slices.Max(perCPU) != 0 {
			return directorVerdict(v), nil
		}
	}
	return directorVerdictCONTINUE, nil
}
