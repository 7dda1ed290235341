package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A BenchCase is one thing that Bench measures.
type BenchCase struct {
	Name      string // "established/ipv4/65536", "new/ipv4/wlc", "hash-map/ipv4/524288"
	IPv6      bool
	Flows     int           // a power of two
	Scheduler lvs.Scheduler // of a case of new connections
	HashMap   bool          // with a kernel hash map for a connection table
	Tunnel    *lvs.Tunnel   // nil: another method
	// Masqueraded connections, whose packets go in the direction, and whose clients have a
	// local address at the real server.
	Masqueraded bool
	FullNAT     bool
	Direction   benchDirection
}

// A BenchResult is the cost per packet of one case, in ns. Both figures were
// measured in turn, behind the same packet generator, whose share is in both: of a
// tunnel, so is what it takes to have the frame back without the outer header.
type BenchResult struct {
	Case string
	NS   float64 // the director
	Bare float64 // a program that rewrites the MAC addresses only
	// Above is the median of what the director cost above the bare program in
	// the same round: a machine that slows down between rounds does not count.
	Above float64
}

// The sizes of the benchmark.
const (
	benchServers  = 16
	benchRuns     = 5              // of each program in a round
	benchPackets  = 40 * benchTurn // of established connections in a run
	benchNewFlows = 1 << 12        // first packets of new ones in a run
	benchTurn     = 1 << 9         // packets of a turn; the quickest of a round counts
	benchLongTurn = 1 << 13        // the same of so many flows that memory matters, which a short turn could be lucky with
	benchStride   = 0x9e3779b1     // odd: from flow to flow, visiting each
	benchTTL      = 64
)

// BenchCases returns what is measured, in order.
func BenchCases() []BenchCase {
	var cases []BenchCase
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, flows := range []int{1, 1 << 16, 1 << 19, 1 << 22} {
			cases = append(cases, BenchCase{
				Name: fmt.Sprintf("established/%s/%d", family, flows), IPv6: family == "ipv6", Flows: flows,
			})
		}
	}
	for _, c := range []struct {
		name   string
		ipv6   bool
		tunnel lvs.Tunnel
	}{
		{"tun-ipip/ipv4/1", false, lvs.Tunnel{}},
		{"tun-ipip/ipv6/1", true, lvs.Tunnel{}},
		{"tun-gue/ipv4/1", false, lvs.Tunnel{Type: lvs.GUE, Port: 6080}},
		{"tun-gre/ipv4/1", false, lvs.Tunnel{Type: lvs.GRE}},
	} {
		cases = append(cases, BenchCase{Name: c.name, IPv6: c.ipv6, Flows: 1, Tunnel: &c.tunnel})
	}
	cases = append(cases, masqueradeCases()...)
	for _, flows := range []int{1, 1 << 16, 1 << 19} {
		cases = append(cases, BenchCase{
			Name: fmt.Sprintf("hash-map/ipv4/%d", flows), Flows: flows, HashMap: true,
		})
	}
	for _, scheduler := range lvs.Schedulers() {
		if HasScheduler(scheduler) {
			cases = append(cases, BenchCase{
				Name: "new/ipv4/" + string(scheduler), Flows: benchNewFlows, Scheduler: scheduler,
			})
		}
	}
	return cases
}

// BenchRounds are enough rounds for medians that hold on a shared machine.
const BenchRounds = 31

// Bench measures one case on tables of its own, with BPF_PROG_RUN: medians of that
// many rounds, at least one, in which the director and the bare program take turns.
func Bench(ctx context.Context, c BenchCase, rounds int) (BenchResult, error) {
	loads := min(c.loads(), rounds)
	var costs benchCosts
	for load := range loads {
		if err := costs.add(ctx, c, (rounds+load)/loads); err != nil {
			return BenchResult{}, fmt.Errorf("benchmark %s: %w", c.Name, err)
		}
	}
	return costs.of(c), nil
}

// loads returns how many times the programs and maps of a case are loaded: where they come to
// lie makes packets a ns quicker or slower, and what disturbs one load may be over in the next.
// The tables of many flows take too long to fill for that, and memory matters more there.
func (c BenchCase) loads() int {
	const few, several = 1 << 16, 3
	if c.Flows > few {
		return 1
	}
	return several
}

// turn returns how many packets are timed together.
func (c BenchCase) turn() int {
	if c.Flows > benchNewFlows {
		return benchLongTurn
	}
	return benchTurn
}

// benchCosts are what packets cost, in ns, by round.
type benchCosts struct{ tested, bare, above []float64 }

// of returns the medians.
func (costs *benchCosts) of(c BenchCase) BenchResult {
	return BenchResult{Case: c.Name, NS: median(costs.tested), Bare: median(costs.bare), Above: median(costs.above)}
}

// add loads everything and measures so many rounds.
func (costs *benchCosts) add(ctx context.Context, c BenchCase, rounds int) error {
	plane, err := newBenchPlane(c)
	if err != nil {
		return err
	}
	return errors.Join(costs.addPlane(ctx, plane, c, rounds), plane.Close())
}

// addPlane measures on a plane that has nothing to do yet.
func (costs *benchCosts) addPlane(ctx context.Context, plane *Plane, c BenchCase, rounds int) error {
	release, err := stayOnCPU()
	if err != nil {
		return err
	}
	defer release()
	b, err := newBench(plane, c)
	if err != nil {
		return err
	}
	return errors.Join(b.measure(ctx, rounds, costs), b.close())
}

// tableSize returns how many connections the table is made for. New ones find it
// in the cache, as established/ipv4/1 does its entry: what a large table costs
// besides is told by the cases of established connections.
func (c BenchCase) tableSize() int {
	if c.Scheduler != "" {
		return c.Flows
	}
	return max(c.Flows, DefaultConnections)
}

type bench struct {
	BenchCase
	plane   *Plane
	objects struct {
		NextPacket *ebpf.Program `ebpf:"next_packet"`
		Bare       *ebpf.Program `ebpf:"bare"`
		Programs   *ebpf.Map     `ebpf:"bench_programs"`
		Runs       *ebpf.Map     `ebpf:"bench_runs"`
	}
	hashing struct {
		Director *ebpf.Program `ebpf:"director_with_hash_map"`
	}
	tested  *ebpf.Program
	service lvs.Service
	clock   time.Duration // how far ahead the data plane's clock was moved
	next    uint64        // where the packet generator goes on
	stride  uint32        // and by how much
}

// The interface that packets seem to come in on: loopback, under another MAC.
const benchIfindex = 1

var benchMAC = [6]byte{2, 0, 0, 0, 0, 1}

// newBenchPlane returns the plane for a case, which is pinned nowhere.
func newBenchPlane(c BenchCase) (*Plane, error) {
	spec, err := withVariables(loadDirector())
	if err != nil {
		return nil, err
	}
	groups, err := tableGroups(c.tableSize())
	if err != nil {
		return nil, err
	}
	spec.Maps[directorMapConnections].MaxEntries = groups
	spec.Maps[directorMapBonds].MaxEntries = groups
	p := newPlane(Config{})
	if err := p.load(spec, nil); err != nil {
		return nil, err
	}
	hz, err := p.measureHZ()
	if err == nil {
		err = p.initialize(groups, hz)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// newBench prepares a case. The plane is the caller's to close, after the case.
func newBench(plane *Plane, c BenchCase) (*bench, error) {
	b := &bench{BenchCase: c, plane: plane, stride: benchStride}
	err := b.loadPrograms()
	if err == nil {
		err = b.configure()
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error {
	o := &b.objects
	return errors.Join(o.NextPacket.Close(), o.Bare.Close(), o.Programs.Close(), o.Runs.Close(), b.hashing.Director.Close())
}

func (b *bench) loadPrograms() error {
	spec, err := withVariables(loadBench())
	if err != nil {
		return err
	}
	shared := b.plane.pinnedMaps()
	for _, name := range []string{directorMapConnections, directorMapBonds} {
		spec.Maps[name].MaxEntries = shared[name].MaxEntries()
	}
	spec.Maps["hash_connections"].MaxEntries = uint32(max(b.Flows, DefaultConnections))
	for name := range shared {
		if spec.Maps[name] == nil {
			delete(shared, name)
		}
	}
	options := &ebpf.CollectionOptions{MapReplacements: shared}
	b.tested = b.plane.progs.Director
	err = spec.LoadAndAssign(&b.objects, options)
	if err == nil && b.HashMap {
		err = spec.LoadAndAssign(&b.hashing, options)
		b.tested = b.hashing.Director
	}
	if err != nil {
		return fmt.Errorf("load the benchmark's programs: %w", err)
	}
	return nil
}

// Offsets in a frame, of what the packet generator writes.
const (
	ethernetHeader = 14
	ipv4TTL        = ethernetHeader + 8
	ipv4Check      = ethernetHeader + 10
	ipv6TTL        = ethernetHeader + 7
)

func (b *bench) addresses() (vip, server, client netip.Addr) {
	if b.IPv6 {
		return netip.MustParseAddr("2001:db8:2::10"), netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:3::")
	}
	return netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.18.0.0")
}

func (b *bench) configure() error {
	b.plane.view.interfaces.elements[benchIfindex] = directorInterface{Ifindex: benchIfindex, TxIfindex: benchIfindex, Mac: benchMAC, Mtu: 1500}
	if b.FullNAT {
		if err := b.plane.SetLocalAddresses(b.localAddresses()); err != nil {
			return err
		}
	}
	vip, server, _ := b.addresses()
	b.service = lvs.Service{
		ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: vip, Port: 80},
		Scheduler:  b.Scheduler,
	}
	if b.Scheduler == "" {
		b.service.Scheduler = lvs.WeightedLeastConnection
	}
	if err := b.plane.AddService(b.service); err != nil {
		return err
	}
	for i := range b.servers() {
		if err := b.plane.AddServer(b.service.ServiceKey, b.server(i, server)); err != nil {
			return err
		}
		hop := lvs.NextHop{InterfaceIndex: benchIfindex, MTU: 1500, Source: benchMAC, Destination: lvs.MAC{2, 0, 0, 0, 1, byte(i)},
			SourceIP: benchSource(server)}
		if err := b.plane.SetNextHop(server, hop); err != nil {
			return err
		}
		server = server.Next()
	}
	if b.Masqueraded {
		return b.routeReplies()
	}
	return nil
}

// benchSource is where outer packets to a server come from.
func benchSource(server netip.Addr) netip.Addr {
	if server.Is4() {
		return netip.AddrFrom4([4]byte{198, 51, 100, 254})
	}
	return netip.MustParseAddr("2001:db8:1::fe")
}

// benchWeight is the weight of the i-th server. ovf takes it for a number of
// connections too: nobody is to have too many.
func benchWeight(name lvs.Scheduler, i int) uint32 {
	weight := uint32(1 + i%4)
	if name == lvs.WeightedOverflow {
		weight += benchNewFlows
	}
	return weight
}

// TCP flags.
const (
	flagSYN = 0x02
	flagACK = 0x10
)

// frame returns a segment from the first client to the VIP, or back.
func (b *bench) frame(flags byte, direction benchDirection) (frame [74]byte) {
	from, to := b.ends(direction)
	copy(frame[:], benchMAC[:])
	copy(frame[6:], []byte{2, 0, 0, 0, 0, 0xfe})
	ip := frame[ethernetHeader:]
	tcp := ip[20:]
	if b.IPv6 {
		binary.BigEndian.PutUint16(frame[12:], 0x86dd)
		ip[0], ip[6], ip[7] = 6<<4, byte(lvs.TCP), benchTTL
		binary.BigEndian.PutUint16(ip[4:], 20)
		copy(ip[8:], from.Addr().AsSlice())
		copy(ip[24:], to.Addr().AsSlice())
		tcp = ip[40:]
	} else {
		binary.BigEndian.PutUint16(frame[12:], 0x0800)
		ip[0], ip[8], ip[9] = 4<<4|5, benchTTL, byte(lvs.TCP)
		binary.BigEndian.PutUint16(ip[2:], 40)
		copy(ip[12:], from.Addr().AsSlice())
		copy(ip[16:], to.Addr().AsSlice())
	}
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	tcp[12], tcp[13] = 5<<4, flags
	return frame
}
