package dataplane

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Plane is the data plane of one director: its maps, its programs, and what it
// was told. It is safe for concurrent use.
//
// What it was told stands in the maps themselves: a Plane that takes over pinned
// maps finds everything there.
type Plane struct {
	dir      string
	tookOver bool
	mode     Mode

	// mu guards everything below but the maps' memory that the data plane
	// writes too.
	mu    sync.Mutex
	maps  planeMaps
	progs directorPrograms
	tc    *ebpf.Program // nil until it is needed
	view  views

	services map[lvs.ServiceKey]*service
	sequence uint64
	// removed are the slots of real servers that left their service, and whose
	// connections wait for their return.
	removed map[serverIdentity]uint32
	parties *parties
	// collectAt is the tick at which those are looked through next.
	collectAt uint32
	free      struct {
		services, editions, servers []uint32
		lists, tables               *slotAllocator
	}
	// used is how many entries the last sweep found in use.
	used int
	// defended: the next sweep gives entries up where drop_entry asks for it.
	defended bool
	// expiring is how many real servers' connections the sweeps end.
	expiring int
	// addresses finds the slots of real servers.
	addresses addressIndex
	// limbo holds what goes back to free after the next grace period.
	limbo []func()
	// flipped are the servers whose next hop changed since the last one.
	flipped map[uint32]bool
	// problems says why a next hop is missing: the maps hold no words.
	problems map[uint32]string
	links    map[string]*attachment
	// cacheNumber is that of the last cache that was made; cachesLeft says that
	// there are some whose service is gone.
	cacheNumber uint32
	cachesLeft  bool
	// slowStarts are the servers that start slowly.
	slowStarts map[uint32]bool
	// paths are the ways of tunnels, whose MTU the data plane may have lowered.
	paths map[uint32]path
	// rehearsal is nil until Explain needs it.
	rehearsal *rehearsal
	// tracer is nil unless somebody traces.
	tracer *tracer
	closed bool
}

// views are the maps in memory.
type views struct {
	connections array[directorConnectionGroup]
	services    array[directorService]
	places      array[directorServicePlace]
	policies    array[directorPolicy]
	editions    array[directorEdition]
	servers     array[directorRealServer]
	lists       array[directorListSlot]
	tables      array[directorTableLine]
	interfaces  array[directorInterface]
	settings    array[directorSettings]
	marks       array[directorMarkRule]
	tunnels     array[directorTunnelPair]
	locals      array[directorLocalAddress]
	bonds       array[directorBondGroup]
}

func newViews(maps *planeMaps) (v views, err error) {
	v.connections, err = mapArray[directorConnectionGroup](maps.Connections)
	if err == nil {
		v.services, err = mapArray[directorService](maps.ServiceTable)
	}
	if err == nil {
		v.places, err = mapArray[directorServicePlace](maps.Services)
	}
	if err == nil {
		v.policies, err = mapArray[directorPolicy](maps.Policies)
	}
	if err == nil {
		v.editions, err = mapArray[directorEdition](maps.Editions)
	}
	if err == nil {
		v.servers, err = mapArray[directorRealServer](maps.RealServers)
	}
	if err == nil {
		v.lists, err = mapArray[directorListSlot](maps.Lists)
	}
	if err == nil {
		v.tables, err = mapArray[directorTableLine](maps.Tables)
	}
	if err == nil {
		v.interfaces, err = mapVariable[directorInterface](maps.Interfaces, int(directorLimitMAX_INTERFACES))
	}
	if err == nil {
		v.settings, err = mapVariable[directorSettings](maps.Settings, 1)
	}
	if err == nil {
		v.marks, err = mapArray[directorMarkRule](maps.MarkRules)
	}
	if err == nil {
		v.tunnels, err = mapArray[directorTunnelPair](maps.Tunnels)
	}
	if err == nil {
		v.locals, err = mapArray[directorLocalAddress](maps.LocalAddresses)
	}
	if err == nil {
		v.bonds, err = mapArray[directorBondGroup](maps.Bonds)
	}
	if err != nil {
		err = errors.Join(err, v.unmap())
	}
	return v, err
}

func (v *views) unmap() error {
	return errors.Join(v.connections.unmap(), v.services.unmap(), v.places.unmap(), v.policies.unmap(), v.editions.unmap(),
		v.servers.unmap(), v.lists.unmap(), v.tables.unmap(), v.interfaces.unmap(), v.settings.unmap(),
		v.marks.unmap(), v.tunnels.unmap(), v.locals.unmap(), v.bonds.unmap())
}

func (p *Plane) settings() *directorSettings { return &p.view.settings.elements[0] }

// TookOver reports whether Open found pinned state and went on with it.
func (p *Plane) TookOver() bool { return p.tookOver }

// TableSize returns how many entries the connection table has.
func (p *Plane) TableSize() int {
	return len(p.view.connections.elements) * int(directorLimitGROUP_SLOTS)
}

// Close ends traces, and lets go of maps and programs. What is pinned stays, and
// forwarding goes on. A Plane can't be used afterwards.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	if p.tracer != nil {
		errs = append(errs, p.stopTracer())
	}
	for _, a := range p.links {
		errs = append(errs, a.link.Close())
	}
	if p.rehearsal != nil {
		errs = append(errs, p.rehearsal.close())
	}
	return errors.Join(append(errs, p.view.unmap(), p.tc.Close(), p.progs.Close(), p.maps.Close())...)
}

// throwAway keeps a resource that packets may still be at until the next grace
// period, and then gives it back.
func (p *Plane) throwAway(giveBack func()) { p.limbo = append(p.limbo, giveBack) }

// settle waits for a grace period and gives back what was thrown away before.
func (p *Plane) settle() error {
	if err := gracePeriod(); err != nil {
		return err
	}
	for _, giveBack := range p.limbo {
		giveBack()
	}
	p.limbo = nil
	clear(p.flipped)
	return nil
}

// take returns a free slot out of a list of them; first those that wait for a
// grace period if there is none.
func (p *Plane) take(free *[]uint32, what string) (uint32, error) {
	if len(*free) == 0 {
		if err := p.settle(); err != nil {
			return 0, err
		}
	}
	if len(*free) == 0 {
		return 0, fmt.Errorf("find room for one more %s: %w", what, lvs.ErrTableFull)
	}
	last := len(*free) - 1
	slot := (*free)[last]
	*free = (*free)[:last]
	return slot, nil
}

// Run runs the director program once on a frame that came in on an interface,
// as the kernel would, and returns the XDP action and the frame as it is then.
// Counters and connections change as with any packet.
func (p *Plane) Run(frame []byte, ifindex int) (action uint32, out []byte, err error) {
	return runProgram(p.progs.Director, frame, ifindex)
}

func runProgram(prog *ebpf.Program, frame []byte, ifindex int) (uint32, []byte, error) {
	opts := ebpf.RunOptions{
		Data:    frame,
		DataOut: make([]byte, len(frame)+256),
		Context: xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(ifindex)},
	}
	action, err := prog.Run(&opts)
	return action, opts.DataOut, err
}

// xdpContext is the kernel's struct xdp_md.
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// SetClockOffset moves the data plane's clock ahead of the kernel's, for the
// programs and for the sweep alike: hours of timers pass at once.
func (p *Plane) SetClockOffset(offset time.Duration) {
	atomic.StoreUint32(&p.settings().ClockOffset, p.toTicks(offset))
}
