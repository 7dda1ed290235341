package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Mode says how the program is attached to interfaces.
type Mode string

// The modes. Auto is native where the driver has it, else generic.
const (
	ModeAuto    Mode = "auto"
	ModeNative  Mode = "xdp"         // in the driver
	ModeGeneric Mode = "xdp-generic" // for any driver: the kernel's own packets
	ModeTC      Mode = "tc"          // behind that: aggregates (GRO), marks; Linux 6.6
)

// Modes are all of them.
func Modes() []Mode { return []Mode{ModeAuto, ModeNative, ModeGeneric, ModeTC} }

// DefaultConnections is how many connections fit unless Config says otherwise.
const DefaultConnections = 500_000

// maxConnections keeps the table below 2^28 entries, 16 GiB: what the flow hash
// has bits for.
const maxConnections = 1 << 27

// Config is what Open is given.
type Config struct {
	// PinDir is a directory on a bpffs.
	PinDir string
	// Connections is how many must fit; 0 is DefaultConnections. The table gets
	// the next power of two above one and a half times that: a table that is
	// taken over keeps its size.
	Connections int
	// Mode is for Attach; "" is ModeAuto.
	Mode Mode
}

// The names below PinDir. State is built in the second and renamed to the first,
// so that it is there as a whole or not at all.
const (
	stateDir    = "state"
	newStateDir = "new"
	linksDir    = "links"
)

// ErrLayout is wrapped by the error of Open when what is pinned was made by
// another version of fairlead and can't be read by this one.
var ErrLayout = errors.New("layout of another version")

// Open takes over what is pinned below cfg.PinDir, or creates and pins it. In
// the first case programs that run go on with the old code until Attach.
func Open(cfg Config) (*Plane, error) {
	if cfg.Mode == "" {
		cfg.Mode = ModeAuto
	}
	state := filepath.Join(cfg.PinDir, stateDir)
	_, err := os.Stat(state)
	switch {
	case err == nil:
		return takeOver(cfg, state)
	case errors.Is(err, fs.ErrNotExist):
		return create(cfg, state)
	}
	return nil, fmt.Errorf("look for pinned state: %w", err)
}

// Unload detaches and removes all that is pinned below pinDir. It is no error if
// nothing is.
func Unload(pinDir string) error {
	var errs []error
	for _, dir := range []string{linksDir, newStateDir, stateDir} {
		if err := os.RemoveAll(filepath.Join(pinDir, dir)); err != nil {
			errs = append(errs, fmt.Errorf("remove pinned state: %w", err))
		}
	}
	return errors.Join(errs...)
}

func create(cfg Config, state string) (*Plane, error) {
	groups, err := tableGroups(cfg.Connections)
	if err != nil {
		return nil, err
	}
	spec, err := withVariables(loadDirector())
	if err != nil {
		return nil, err
	}
	spec.Maps[directorMapConnections].MaxEntries = groups
	spec.Maps[directorMapBonds].MaxEntries = groups

	p := newPlane(cfg)
	if err := p.load(spec, nil); err != nil {
		return nil, err
	}
	hz, err := p.measureHZ()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p.begin(groups, hz, state)
}

// begin makes a plane whose maps are empty one to take over; it closes it if it can't.
func (p *Plane) begin(groups, hz uint32, state string) (*Plane, error) {
	err := p.initialize(groups, hz)
	if err == nil {
		err = p.pin(filepath.Join(p.dir, newStateDir), state)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// tableGroups returns the size of a connection table in which that many
// connections fit at ease: two thirds full.
func tableGroups(connections int) (uint32, error) {
	if connections == 0 {
		connections = DefaultConnections
	}
	if connections < 1 || connections > maxConnections {
		return 0, fmt.Errorf("connection table for %d connections: must be 1 to %d: %w",
			connections, maxConnections, lvs.ErrRange)
	}
	slots := uint32(connections) + uint32(connections)/2
	groups := max(slots/uint32(directorLimitGROUP_SLOTS), uint32(directorLimitPROBE_GROUPS))
	return 1 << bits.Len32(groups-1), nil
}

func newPlane(cfg Config) *Plane {
	p := &Plane{
		dir:        cfg.PinDir,
		mode:       cfg.Mode,
		services:   map[lvs.ServiceKey]*service{},
		removed:    map[serverIdentity]uint32{},
		flipped:    map[uint32]bool{},
		slowStarts: map[uint32]bool{},
		paths:      map[uint32]path{},
		problems:   map[uint32]string{},
		addresses:  addressIndex{},
		links:      map[string]*attachment{},
	}
	p.free.lists = newSlotAllocator(uint32(directorLimitMAX_LIST_SLOTS))
	p.free.tables = newSlotAllocator(uint32(directorLimitMAX_TABLE_LINES))
	return p
}

// load loads programs and maps; those in pinned are used instead of new ones.
func (p *Plane) load(spec *ebpf.CollectionSpec, pinned map[string]*ebpf.Map) error {
	var objects struct {
		planeMaps
		directorPrograms
	}
	opts := ebpf.CollectionOptions{MapReplacements: pinned}
	if err := spec.LoadAndAssign(&objects, &opts); err != nil {
		return fmt.Errorf("load the data plane: %w", err)
	}
	return p.use(objects.planeMaps, objects.directorPrograms)
}

// use makes maps and programs the plane's own, which it closes.
func (p *Plane) use(maps planeMaps, progs directorPrograms) error {
	p.maps, p.progs = maps, progs
	p.parties = newParties(p.maps.Parties)
	var err error
	if p.view, err = newViews(&p.maps); err != nil {
		return errors.Join(err, p.progs.Close(), p.maps.Close())
	}
	return nil
}

// The kernel's defaults: icmp_msgs_per_sec and icmp_msgs_burst of
// net/ipv4/icmp.c, and where unprivileged ports begin.
const (
	icmpInterval              = time.Millisecond
	icmpBurst                 = 50
	defaultUnprivilegedPort   = 1024
	unprivilegedPortStartFile = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
)

func (p *Plane) initialize(groups, hz uint32) error {
	set := p.settings()
	for i := range set.HashKeys {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("draw the hash keys: %w", err)
		}
		set.HashKeys[i] = binary.NativeEndian.Uint64(b[:]) | 1
	}
	set.Hz = hz
	set.GroupMask = groups - 1
	set.GroupShift = uint32(65 - bits.Len32(groups))
	set.Abi = directorAbiABI_VERSION
	set.ProbeSlots = directorLimitPROBE_SLOTS
	set.IcmpInterval = uint32(icmpInterval)
	set.IcmpBurst = icmpBurst
	set.FirstUnprivilegedPort = firstUnprivilegedPort()
	if err := p.setDefaultSysctls(); err != nil {
		return err
	}

	for i := range uint32(directorLimitMAX_SERVICES) {
		p.free.services = append(p.free.services, i)
	}
	for i := range uint32(directorLimitMAX_EDITIONS) {
		p.free.editions = append(p.free.editions, i)
	}
	for i := range uint32(directorLimitMAX_SERVERS) {
		p.free.servers = append(p.free.servers, i)
	}
	return nil
}

func firstUnprivilegedPort() uint32 {
	text, err := os.ReadFile(unprivilegedPortStartFile)
	if err != nil {
		return defaultUnprivilegedPort
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil {
		return defaultUnprivilegedPort
	}
	return uint32(port)
}

// pinnedMaps are the maps by the names under which they are pinned.
func (p *Plane) pinnedMaps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		directorMapBonds:          p.maps.Bonds,
		directorMapCaches:         p.maps.Caches,
		directorMapCallIds:        p.maps.CallIds,
		directorMapConnections:    p.maps.Connections,
		directorMapDatagrams:      p.maps.Datagrams,
		directorMapEditionCarry:   p.maps.EditionCarry,
		directorMapEditions:       p.maps.Editions,
		directorMapInterfaces:     p.maps.Interfaces,
		directorMapLists:          p.maps.Lists,
		directorMapLocalAddresses: p.maps.LocalAddresses,
		directorMapMarkRules:      p.maps.MarkRules,
		directorMapParties:        p.maps.Parties,
		directorMapPeerMacs:       p.maps.PeerMacs,
		directorMapPeers:          p.maps.Peers,
		directorMapPolicies:       p.maps.Policies,
		directorMapRealServers:    p.maps.RealServers,
		directorMapServerCarry:    p.maps.ServerCarry,
		directorMapServerCounters: p.maps.ServerCounters,
		directorMapServiceTable:   p.maps.ServiceTable,
		directorMapServices:       p.maps.Services,
		directorMapSettings:       p.maps.Settings,
		directorMapTables:         p.maps.Tables,
		directorMapTunnels:        p.maps.Tunnels,
		directorMapVerdicts:       p.maps.Verdicts,
	}
}

// sharedMaps are the maps that other programs than the director's use, too.
func (p *Plane) sharedMaps() map[string]*ebpf.Map {
	shared := p.pinnedMaps()
	shared[directorMapHeldFragments] = p.maps.HeldFragments
	shared[directorMapOversizedPackets] = p.maps.OversizedPackets
	return shared
}

func (p *Plane) pin(temporary, state string) error {
	if err := os.RemoveAll(temporary); err != nil {
		return fmt.Errorf("clear unfinished pinned state: %w", err)
	}
	if err := os.MkdirAll(temporary, 0o700); err != nil {
		return fmt.Errorf("pin the maps: %w", err)
	}
	for name, m := range p.pinnedMaps() {
		if err := m.Pin(filepath.Join(temporary, name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	if err := os.Rename(temporary, state); err != nil {
		return fmt.Errorf("pin the maps: %w", err)
	}
	return nil
}

func takeOver(cfg Config, state string) (*Plane, error) {
	p, err := loadPinned(cfg, state)
	if err != nil {
		return nil, err
	}
	return p.readPinned()
}

// readPinned makes a plane that was loaded with pinned maps the one that they are of.
func (p *Plane) readPinned() (*Plane, error) {
	err := p.readBack()
	if err == nil {
		err = p.openLinks()
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// A Successor is a plane that could take over what is pinned: the layout is this
// version's, and the kernel has taken its programs.
type Successor struct{ plane *Plane }

// Prepare returns the successor of what is pinned below cfg.PinDir. It changes
// nothing, whoever uses that at the moment.
func Prepare(cfg Config) (*Successor, error) {
	p, err := loadPinned(cfg, filepath.Join(cfg.PinDir, stateDir))
	if err != nil {
		return nil, err
	}
	return &Successor{p}, nil
}

// TakeOver does what [Open] does, when nobody else uses what is pinned. The successor
// can't be used afterwards, nor has it to be closed.
func (s *Successor) TakeOver() (*Plane, error) { return s.plane.readPinned() }

// Close lets go of everything, if the successor does not take over.
func (s *Successor) Close() error { return s.plane.Close() }

// loadPinned loads the programs with the maps that are pinned, if their layout is
// known, and changes nothing in them.
func loadPinned(cfg Config, state string) (*Plane, error) {
	spec, err := withVariables(loadDirector())
	if err != nil {
		return nil, err
	}
	pinned := map[string]*ebpf.Map{}
	closeAll := func() {
		for _, m := range pinned {
			m.Close()
		}
	}
	defer closeAll()
	for name := range (&Plane{}).pinnedMaps() {
		m, err := ebpf.LoadPinnedMap(filepath.Join(state, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("take over pinned map %s: %w: it is missing", name, ErrLayout)
		}
		if err != nil {
			return nil, fmt.Errorf("take over pinned map %s: %w", name, err)
		}
		pinned[name] = m
	}
	if err := checkLayout(cfg.PinDir, pinned[directorMapSettings]); err != nil {
		return nil, err
	}
	spec.Maps[directorMapConnections].MaxEntries = pinned[directorMapConnections].MaxEntries()
	spec.Maps[directorMapBonds].MaxEntries = pinned[directorMapBonds].MaxEntries()

	if cfg.Mode == "" {
		cfg.Mode = ModeAuto
	}
	p := newPlane(cfg)
	p.tookOver = true
	if err := p.load(spec, pinned); err != nil {
		if errors.Is(err, ebpf.ErrMapIncompatible) {
			err = fmt.Errorf("%w: %w", ErrLayout, err)
		}
		return nil, err
	}
	return p, nil
}

// checkLayout tells by its settings whether this version can read what is pinned.
func checkLayout(dir string, settings *ebpf.Map) error {
	var set directorSettings
	if size := uint32(binary.Size(set)); settings.ValueSize() != size {
		return fmt.Errorf("pinned state below %s has settings of %d bytes, this program knows %d: %w", dir, settings.ValueSize(), size, ErrLayout)
	}
	if err := settings.Lookup(uint32(0), &set); err != nil {
		return fmt.Errorf("read the layout of the state below %s: %w", dir, err)
	}
	if set.Abi != directorAbiABI_VERSION || set.ProbeSlots != directorLimitPROBE_SLOTS {
		return fmt.Errorf("pinned state below %s has layout %d, this program knows %d: %w",
			dir, set.Abi, directorAbiABI_VERSION, ErrLayout)
	}
	return nil
}
