package dataplane

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// The verifier looks at the program for a second, and at nothing that differs from test
// to test. So a new plane gets the programs of one whose test has ended, and its maps,
// empty again; what [Open] does but for that, it does.

// loadedPlanes are those that no test has at the moment.
var loadedPlanes = planePool{idle: map[uint32][]*loadedPlane{}, lent: map[string]*loadedPlane{}}

// A planePool keeps what planes loaded. It is safe for concurrent use.
type planePool struct {
	mu   sync.Mutex
	idle map[uint32][]*loadedPlane // by the size of the connection table
	lent map[string]*loadedPlane   // by where they are pinned
}

// A loadedPlane is what a plane loads and measures: the programs go with these maps.
type loadedPlane struct {
	maps  planeMaps
	progs directorPrograms
	hz    uint32
}

// create returns a new plane. What it loaded is in the pool again when the test has ended.
func (pool *planePool) create(t testing.TB, cfg Config, state string) (*Plane, error) {
	groups, err := tableGroups(cfg.Connections)
	if err != nil {
		return nil, err
	}
	loaded, err := pool.take(groups, cfg.PinDir)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := loaded.empty(); err != nil {
			t.Errorf("empty a plane's maps: %v", err)
			return
		}
		pool.giveBack(groups, loaded, cfg.PinDir)
	})
	p := newPlane(cfg)
	if err := loaded.giveTo(p); err != nil {
		return nil, err
	}
	return p.begin(groups, loaded.hz, state)
}

// takeOver returns the successor of a plane of the pool.
func (pool *planePool) takeOver(cfg Config) (*Plane, error) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	p := newPlane(cfg)
	p.tookOver = true
	if err := pool.lent[cfg.PinDir].giveTo(p); err != nil {
		return nil, err
	}
	return p.readPinned()
}

func (pool *planePool) take(groups uint32, dir string) (loaded *loadedPlane, err error) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if idle := pool.idle[groups]; len(idle) > 0 {
		last := len(idle) - 1
		loaded, pool.idle[groups] = idle[last], idle[:last]
	} else if loaded, err = loadPlane(groups); err != nil {
		return nil, err
	}
	pool.lent[dir] = loaded
	return loaded, nil
}

func (pool *planePool) giveBack(groups uint32, loaded *loadedPlane, dir string) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	pool.idle[groups] = append(pool.idle[groups], loaded)
	if pool.lent[dir] == loaded { // and not one that was pinned there afterwards
		delete(pool.lent, dir)
	}
}

func loadPlane(groups uint32) (*loadedPlane, error) {
	spec, err := withVariables(loadDirector())
	if err != nil {
		return nil, err
	}
	spec.Maps[directorMapConnections].MaxEntries = groups
	spec.Maps[directorMapBonds].MaxEntries = groups
	p := &Plane{}
	if err := p.load(spec, nil); err != nil {
		return nil, err
	}
	hz, err := p.measureHZ()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &loadedPlane{p.maps, p.progs, hz}, p.view.unmap()
}

// giveTo gives a plane maps and programs that it may close.
func (l *loadedPlane) giveTo(p *Plane) error {
	var maps planeMaps
	var progs directorPrograms
	err := errors.Join(cloneAll[*ebpf.Map](&maps.directorMaps, &l.maps.directorMaps), cloneAll[*ebpf.Program](&progs, &l.progs))
	if err == nil {
		maps.Settings, err = l.maps.Settings.Clone()
	}
	if err == nil {
		maps.Interfaces, err = l.maps.Interfaces.Clone()
	}
	if err != nil {
		return errors.Join(err, maps.Close(), progs.Close())
	}
	return p.use(maps, progs)
}

// cloneAll sets the fields of one struct to clones of those of another.
func cloneAll[T interface{ Clone() (T, error) }](to, from any) error {
	source, target := reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem()
	for i := range source.NumField() {
		clone, err := source.Field(i).Interface().(T).Clone()
		if err != nil {
			return err
		}
		target.Field(i).Set(reflect.ValueOf(clone))
	}
	return nil
}

// empty makes the maps as they were before the first plane had them.
func (l *loadedPlane) empty() error {
	maps := reflect.ValueOf(l.maps.directorMaps)
	errs := []error{emptyMap(l.maps.Settings)}
	for i := range maps.NumField() {
		errs = append(errs, emptyMap(maps.Field(i).Interface().(*ebpf.Map)))
	}
	return errors.Join(errs...)
}

func emptyMap(m *ebpf.Map) error {
	switch m.Type() {
	case ebpf.Array, ebpf.PerCPUArray:
		if m.Flags()&unix.BPF_F_MMAPABLE != 0 {
			return zeroMemory(m)
		}
		return zeroElements(m)
	case ebpf.RingBuf:
		return readOut(m)
	}
	return deleteAll(m)
}

func zeroMemory(m *ebpf.Map) error {
	length := int(m.MaxEntries()) * int(m.ValueSize())
	memory, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	clear(memory)
	return unix.Munmap(memory)
}

func zeroElements(m *ebpf.Map) error {
	keys := make([]uint32, m.MaxEntries())
	for i := range keys {
		keys[i] = uint32(i)
	}
	_, err := m.BatchUpdate(keys, zeros(m), nil)
	return err
}

// zeros returns the values of an empty array, as batches take them.
func zeros(m *ebpf.Map) any {
	values := int(m.MaxEntries())
	if m.Type() == ebpf.Array {
		value := reflect.ArrayOf(int(m.ValueSize()), reflect.TypeFor[byte]())
		return reflect.MakeSlice(reflect.SliceOf(value), values, values).Interface()
	}
	return slices.Repeat([][]byte{make([]byte, m.ValueSize())}, values*ebpf.MustPossibleCPU())
}

func readOut(m *ebpf.Map) error {
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	defer reader.Close()
	reader.SetDeadline(time.Now())
	var record ringbuf.Record
	for err == nil {
		err = reader.ReadInto(&record)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func deleteAll(m *ebpf.Map) error {
	var keys [][]byte
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		keys = append(keys, bytes.Clone(key))
	}
	errs := []error{entries.Err()}
	for _, key := range keys {
		errs = append(errs, m.Delete(key))
	}
	return errors.Join(errs...)
}
