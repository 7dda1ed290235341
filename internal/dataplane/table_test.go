package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// A table as small as they get: sixteen groups, which are every flow's way.
const smallTable = int(directorLimitPROBE_SLOTS)

// smallPlane has a service of four real servers, and room for 128 connections.
func smallPlane(t testing.TB, scheduler lvs.Scheduler) (*Plane, lvs.Service) {
	t.Helper()
	p := openPlane(t, testhost.MountBPF(t), 1)
	if p.TableSize() != smallTable {
		t.Fatalf("the table has %d slots, want %d", p.TableSize(), smallTable)
	}
	return p, servedBy(t, p, scheduler, 4)
}

// servedBy adds a service at vip4 with that many real servers.
func servedBy(t testing.TB, p *Plane, scheduler lvs.Scheduler, servers int) lvs.Service {
	t.Helper()
	svc := tcpService(vip4, scheduler)
	mustAddService(t, p, svc)
	for i := range servers {
		mustAddServer(t, p, svc, fmt.Sprintf("198.51.100.%d:80", 1+i), 1)
	}
	return svc
}

// clientOf is the i-th client.
func clientOf(i int) string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(1024+i%50000)).String()
}

// send runs a segment of the i-th client, checks the verdict, and returns the
// last byte of the MAC address that it went to.
func send(t testing.TB, p *Plane, i int, flags, verdict string) byte {
	t.Helper()
	action := uint32(xdpTX)
	switch verdict {
	case "pass-no-connection":
		action = xdpPass
	case "drop-server-removed":
		action = xdpDrop
	}
	return wantVerdict(t, p, tcpFrame(clientOf(i), vip4, flags), verdict, action)[5]
}

// counts are the active and the inactive connections of all servers of the first
// service.
func counts(t testing.TB, p *Plane) (active, inactive uint32) {
	t.Helper()
	all := mustServices(t, p)
	for _, rs := range all[0].Servers {
		active += rs.Active
		inactive += rs.Inactive
	}
	return active, inactive
}

func wantCounts(t testing.TB, p *Plane, active, inactive uint32) {
	t.Helper()
	if a, i := counts(t, p); a != active || i != inactive {
		t.Errorf("%d active and %d inactive connections, want %d and %d", a, i, active, inactive)
	}
}

// Most entries of a full table lie far from home, and each is found.
func TestDisplacedEntriesAreFound(t *testing.T) {
	p, _ := smallPlane(t, lvs.RoundRobin)
	servers := map[int]byte{}
	for i := range smallTable {
		servers[i] = send(t, p, i, "S", "forward")
		for known, server := range servers {
			if got := send(t, p, known, "A", "forward"); got != server {
				t.Fatalf("connection %d went to %d, then to %d", known, server, got)
			}
		}
	}
	checkTable(t, p)
	wantCounts(t, p, uint32(smallTable), 0)
	if n := len(slices.Collect(p.Connections())); n != smallTable {
		t.Errorf("%d connections, want %d", n, smallTable)
	}
}

// In a table full of established connections, none gives way; a new one goes by
// hash, each of its packets to the same server.
func TestFullTable(t *testing.T) {
	p, _ := smallPlane(t, lvs.RoundRobin)
	servers := map[int]byte{}
	for i := range smallTable {
		servers[i] = send(t, p, i, "S", "forward")
		send(t, p, i, "A", "forward")
	}
	used := map[byte]bool{}
	for i := smallTable; i < smallTable+100; i++ {
		server := send(t, p, i, "S", "forward-no-entry")
		used[server] = true
		for _, flags := range []string{"A", "PA", "FA", "A", "S"} {
			if got := send(t, p, i, flags, "forward-no-entry"); got != server {
				t.Fatalf("connection %d went to %d, then to %d", i, server, got)
			}
		}
	}
	if len(used) != 4 {
		t.Errorf("the hash took servers %v, want all four", used)
	}
	for i, server := range servers {
		if got := send(t, p, i, "A", "forward"); got != server {
			t.Errorf("connection %d went to %d, then to %d", i, server, got)
		}
	}
	checkTable(t, p)
	wantCounts(t, p, uint32(smallTable), 0)
	status := mustServices(t, p)
	// What goes without an entry is no connection, but its packets count.
	if c := status[0].Counters; c.Connections != uint64(smallTable) || c.InPackets != uint64(3*smallTable+600) {
		t.Errorf("counted %+v, want %d connections, %d packets", c, smallTable, 3*smallTable+600)
	}

	// Room came: the next SYN gets an entry. Others go on by hash until as much
	// time passed as a connection lives.
	send(t, p, 0, "R", "forward")
	advance(p, 11*time.Second)
	send(t, p, smallTable, "S", "forward")
	send(t, p, smallTable+1, "A", "forward-no-entry")
	advance(p, 16*time.Minute)
	send(t, p, smallTable+1, "A", "pass-no-connection")
}

// A full table's half-open connections give way, the oldest first.
func TestHalfOpenGiveWay(t *testing.T) {
	p, _ := smallPlane(t, lvs.RoundRobin)
	const halfOpen = 20
	for i := range smallTable {
		send(t, p, i, "S", "forward")
		if i >= halfOpen {
			send(t, p, i, "A", "forward")
		}
		advance(p, time.Second/10)
	}
	// The first one is refreshed: the second is the oldest now.
	send(t, p, 0, "S", "forward")
	order := append(slices.Collect(sequence(1, halfOpen)), 0)
	for i, oldest := range order {
		advance(p, time.Second/10)
		send(t, p, smallTable+i, "S", "forward")
		send(t, p, smallTable+i, "A", "forward")
		send(t, p, oldest, "A", "pass-no-connection")
		if i+1 < len(order) {
			if n := countState(p, lvs.StateSynRecv); n != halfOpen-i-1 {
				t.Fatalf("%d half-open connections are left, want %d", n, halfOpen-i-1)
			}
		}
		checkTable(t, p)
	}
	send(t, p, 1000, "S", "forward-no-entry")
	for i := halfOpen; i < smallTable+halfOpen; i++ {
		send(t, p, i, "A", "forward")
	}
	wantCounts(t, p, uint32(smallTable), 0)
}

func sequence(from, to int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := from; i < to && yield(i); i++ {
			continue
		}
	}
}

func countState(p *Plane, state lvs.ConnectionState) (n int) {
	for c := range p.Connections() {
		if c.State == state {
			n++
		}
	}
	return n
}

// Entries whose time is over are free without a sweep, and give their counts back.
func TestExpiredEntriesAreTakenOver(t *testing.T) {
	p, _ := smallPlane(t, lvs.LeastConnection)
	for round := range 5 {
		for i := range smallTable {
			send(t, p, round*smallTable+i, "S", "forward")
		}
		checkTable(t, p)
		wantCounts(t, p, uint32(smallTable), 0)
		advance(p, 61*time.Second)
		if n := len(slices.Collect(p.Connections())); n != 0 {
			t.Fatalf("%d connections outlived their time", n)
		}
	}
	// A packet of a connection that is over finds nothing.
	send(t, p, 4*smallTable, "A", "pass-no-connection")
	if found := mustSweep(t, p); found != (SweepResult{Expired: smallTable}) {
		t.Errorf("sweep found %+v, want %d expired", found, smallTable)
	}
	wantEmpty(t, p)
}

// wantEmpty checks that the table holds nothing, and no trace of what it held.
func wantEmpty(t testing.TB, p *Plane) {
	t.Helper()
	for g, group := range p.view.connections.elements {
		for s, conn := range group.Slots {
			if conn.Control&^directorControlCONTROL_GENERATION != 0 {
				t.Errorf("slot %d of group %d has control %x", s, g, conn.Control)
			}
		}
	}
	checkTable(t, p)
}

// wantAllOver lets the time of all connections pass, and checks that none stays.
func wantAllOver(t testing.TB, p *Plane) {
	t.Helper()
	advance(p, time.Hour)
	if found := mustSweep(t, p); found.Used != 0 {
		t.Errorf("%d entries are left when all connections are over", found.Used)
	}
	checkTable(t, p)
}

// A SYN starts a new connection where the old one is over for sure, and goes on
// with it where it may not be.
func TestConnectionReuse(t *testing.T) {
	p := openPlane(t, testhost.MountBPF(t), 1)
	for _, test := range []struct {
		name, flags string // of the segments before
		reused      bool
	}{
		{"SYN_RECV", "S", false},
		{"ESTABLISHED", "S A", false},
		{"FIN_WAIT", "S A FA", false},
		{"TIME_WAIT", "S FA", true},
		{"CLOSE", "S A R", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer reset(t, p)
			servedBy(t, p, lvs.RoundRobin, 4)
			var server byte
			for _, flags := range strings.Fields(test.flags) {
				server = send(t, p, 0, flags, "forward")
			}
			if conns := slices.Collect(p.Connections()); conns[0].State.String() != test.name {
				t.Fatalf("state %s, want %s", conns[0].State, test.name)
			}
			got := send(t, p, 0, "S", "forward")
			if reused := got != server; reused != test.reused {
				t.Errorf("a new connection: %v, want %v", reused, test.reused)
			}
			checkTable(t, p)
			if conns := slices.Collect(p.Connections()); len(conns) != 1 {
				t.Errorf("connections %v, want one", conns)
			}
		})
	}
}

// A slot's generation has fourteen bits: it comes round, and harms nobody.
func TestGenerationsComeRound(t *testing.T) {
	p, _ := smallPlane(t, lvs.RoundRobin)
	for i := range smallTable / 2 {
		send(t, p, 1+i, "S", "forward")
		send(t, p, 1+i, "A", "forward")
	}
	syn, reset := tcpFrame(clientOf(0), vip4, "S"), tcpFrame(clientOf(0), vip4, "FA")
	for range 20_000 {
		mustRun(t, p, syn)
		mustRun(t, p, reset)
	}
	checkTable(t, p)
	wantCounts(t, p, uint32(smallTable/2), 1)
	advance(p, time.Hour)
	mustSweep(t, p)
	wantEmpty(t, p)
}

// Packets of a removed server's connections are dropped until it returns.
func TestRemovedServerReturns(t *testing.T) {
	p, svc := smallPlane(t, lvs.RoundRobin)
	server := map[int]byte{}
	for i := range 8 {
		server[i] = send(t, p, i, "S", "forward")
		send(t, p, i, "A", "forward")
	}
	gone := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: addrOf("198.51.100.2:80"), Port: 80},
		Method:        lvs.DirectRouting, Weight: 1,
	}
	if err := p.DeleteServer(svc.ServiceKey, gone.RealServerKey); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if server[i] == 2 {
			send(t, p, i, "A", "drop-server-removed")
		} else {
			send(t, p, i, "A", "forward")
		}
	}
	wantCounts(t, p, 6, 0)
	if err := p.AddServer(svc.ServiceKey, gone); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, p, 8, 0)
	status := mustServices(t, p)
	if got := status[0].Servers[0]; got.RealServer != gone || got.Counters.Connections != 2 || got.Counters.InPackets != 4 {
		t.Errorf("returned as %+v, want 2 connections and 4 packets", got)
	}
	for i := range 8 {
		send(t, p, i, "A", "forward")
	}

	// Removed for minutes with a connection it waits on; without one it is forgotten
	// in time.
	if err := p.DeleteServer(svc.ServiceKey, gone.RealServerKey); err != nil {
		t.Fatal(err)
	}
	advance(p, 121*time.Second)
	mustSweep(t, p)
	if len(p.removed) != 1 {
		t.Errorf("%d removed servers wait, want 1: it has connections", len(p.removed))
	}
	advance(p, 15*time.Minute)
	mustSweep(t, p)
	if len(p.removed) != 0 {
		t.Errorf("%d removed servers wait, want none", len(p.removed))
	}
	if err := p.AddServer(svc.ServiceKey, gone); err != nil {
		t.Fatal(err)
	}
	if got := mustServices(t, p)[0].Servers[0]; got.Counters != (lvs.Counters{}) {
		t.Errorf("a new server begins with %+v", got.Counters)
	}
}

// Thresholds stop new connections and let them in again.
func TestThresholds(t *testing.T) {
	p := openPlane(t, testhost.MountBPF(t), 1)
	for _, test := range []struct{ upper, lower, again int }{
		{4, 0, 2}, // below three quarters: 2
		{4, 3, 2},
		{4, 1, 0},
		{1, 0, 0},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			defer reset(t, p)
			svc := servedBy(t, p, lvs.WeightedLeastConnection, 1)
			rs := lvs.RealServer{
				RealServerKey: lvs.RealServerKey{Address: addrOf("198.51.100.1:80"), Port: 80}, Method: lvs.DirectRouting,
				Weight: 1, UpperThreshold: uint32(test.upper), LowerThreshold: uint32(test.lower),
			}
			mustEditServer(t, p, svc, rs)
			for i := range test.upper {
				send(t, p, i, "S", "forward")
				send(t, p, i, "A", "forward")
			}
			send(t, p, 100, "S", "answer-no-server")
			// One connection after the other ends.
			for left := test.upper - 1; left >= test.again; left-- {
				send(t, p, left, "R", "forward")
				advance(p, 11*time.Second)
				mustSweep(t, p)
				if left > test.again {
					send(t, p, 100, "S", "answer-no-server")
				}
			}
			send(t, p, 100, "S", "forward")
		})
	}
}
