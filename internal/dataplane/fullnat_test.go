package dataplane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// localAddress is one of a pool, with ports from 1024 on.
func localAddress(prefix string, ports int) lvs.LocalAddress {
	return lvs.LocalAddress{
		Prefix: netip.MustParsePrefix(prefix),
		Ports:  lvs.PortRange{First: 1024, Last: uint16(1024 + ports - 1)},
	}
}

func setLocals(t testing.TB, p *Plane, pool ...lvs.LocalAddress) {
	t.Helper()
	if err := p.SetLocalAddresses(pool); err != nil {
		t.Fatal(err)
	}
}

// fullNATPlane has the services of masqueradings, for TCP, UDP and SCTP, with FullNAT.
func fullNATPlane(t testing.TB, toa bool) *Plane {
	t.Helper()
	p := newTestPlane(t)
	setLocals(t, p, localAddress("2001:db8:1::a0/124", 5000), localAddress("198.51.100.160/28", 5000))
	for _, m := range masqueradings {
		for _, service := range []func(string, lvs.Scheduler) lvs.Service{tcpService, udpService, sctpService} {
			svc := service(m.vip, lvs.RoundRobin)
			mustTranslate(t, p, svc, m.server, lvs.FullNAT, toa && svc.Protocol == lvs.TCP)
		}
	}
	return p
}

// ends are the source and the destination of a frame.
func ends(frame []byte) (from, to string) {
	_, _, packet := network(frame)
	source, destination, upper := packet[12:16], packet[16:20], packet[20:]
	if packet[0]>>4 == 6 {
		source, destination, upper = packet[8:24], packet[24:40], packet[40:]
	}
	end := func(addr, port []byte) string {
		a, _ := netip.AddrFromSlice(addr)
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)).String()
	}
	return end(source, upper), end(destination, upper[2:])
}

func wantLocal(t testing.TB, p *Plane, local string) {
	t.Helper()
	at := netip.MustParseAddrPort(local)
	for _, l := range p.LocalAddresses() {
		if l.Prefix.Contains(at.Addr()) && at.Port() >= l.Ports.First && at.Port() <= l.Ports.Last {
			return
		}
	}
	t.Errorf("%s is none of the pool %v", local, p.LocalAddresses())
}

func TestFullNAT(t *testing.T) {
	p := fullNATPlane(t, false)
	for family, m := range masqueradings {
		for _, upper := range upperLayers() {
			t.Run(family+" "+upper.name, func(t *testing.T) {
				local := ""
				for _, build := range []func(from, to string) []byte{upper.first, upper.build, upper.build} {
					in := sealed(ip(m.client, m.vip, upper.protocol, build(m.client, m.vip)))
					out := wantVerdict(t, p, in, "forward", xdpTX)
					from, _ := ends(out)
					if local != "" && from != local {
						t.Errorf("from %s, before from %s", from, local)
					}
					local = from
					wantLocal(t, p, local)
					want := sentTo(ip(local, m.server, upper.protocol, build(local, m.server)), serverMAC(addrOf(m.server)))
					if diff := cmp.Diff(want, out); diff != "" {
						t.Errorf("to the real server (-want +got):\n%s", diff)
					}
					in = fromServer(sealed(ip(m.server, local, upper.protocol, build(m.server, local))), m.server)
					out = wantVerdict(t, p, in, "forward-reply", xdpTX)
					want = sentTo(ip(m.vip, m.client, upper.protocol, build(m.vip, m.client)), clientMAC)
					if diff := cmp.Diff(want, out); diff != "" {
						t.Errorf("to the client (-want +got):\n%s", diff)
					}
				}
				checkTable(t, p)
			})
		}
	}
	for _, c := range slices.Collect(p.Connections()) {
		if c.Server.Port() != 8080 || c.Packets != 3 {
			t.Errorf("connection %+v, want 3 packets to port 8080", c)
		}
		wantLocal(t, p, c.Local.String())
	}
	for _, svc := range tell(t, p).Services {
		c := svc.Servers[0].Counters
		if c.Connections != 1 || c.InPackets != 3 || c.OutPackets != 3 || c.OutBytes != c.InBytes {
			t.Errorf("%s: counters %+v, want 1 connection, 3 packets each way", svc.ServiceKey, c)
		}
	}
	wantAllOver(t, p)
}

func TestFullNATMakesUDPChecksums(t *testing.T) {
	p := fullNATPlane(t, false)
	for _, m := range masqueradings {
		out := wantVerdict(t, p, ip(m.client, m.vip, protoUDP, udp(m.client, m.vip, 1, 2, 3)), "forward", xdpTX)
		local, _ := ends(out)
		want := sentTo(ip(local, m.server, protoUDP, udp(local, m.server, 1, 2, 3)), serverMAC(addrOf(m.server)))
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("frame (-want +got):\n%s", diff)
		}
	}
}

// Every port of a small pool is used, once; then there is none, and each comes back.
func TestFullNATPool(t *testing.T) {
	const ports = 60
	p := newTestPlane(t)
	m := masqueradings["ipv4"]
	svc := tcpService(m.vip, lvs.RoundRobin)
	mustTranslate(t, p, svc, m.server, lvs.FullNAT, false)
	wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "answer-no-local-port", xdpTX) // there is no pool yet
	setLocals(t, p, localAddress("198.51.100.160/32", ports))
	for round := range 3 {
		clients := map[string]string{}
		for i := range ports {
			client := fmt.Sprintf("203.0.113.%d:%d", 1+i, 1024+round)
			local, _ := ends(wantVerdict(t, p, tcpFrame(client, m.vip, "S"), "forward", xdpTX))
			wantLocal(t, p, local)
			if other, taken := clients[local]; taken {
				t.Fatalf("%s and %s both come from %s", client, other, local)
			}
			clients[local] = client
		}
		answer := wantVerdict(t, p, tcpFrame("203.0.113.200:1024", m.vip, "S"), "answer-no-local-port", xdpTX)
		if got := readAnswer(t, answer, "203.0.113.200:1024"); got.kind != 3 || got.code != 3 {
			t.Errorf("answer %+v, want port unreachable", got)
		}
		checkTable(t, p)
		for local, client := range clients {
			out := wantVerdict(t, p, fromServer(tcpFrame(m.server, local, "SA"), m.server), "forward-reply", xdpTX)
			if from, to := ends(out); from != m.vip || to != client {
				t.Errorf("reply to %s went from %s to %s, want to %s", local, from, to, client)
			}
		}
		// One that ends makes room for one.
		for _, flags := range []string{"A", "R"} {
			wantVerdict(t, p, tcpFrame("203.0.113.7:"+fmt.Sprint(1024+round), m.vip, flags), "forward", xdpTX)
		}
		advance(p, 11*time.Second)
		mustSweep(t, p)
		wantVerdict(t, p, tcpFrame("203.0.113.201:1024", m.vip, "S"), "forward", xdpTX)
		wantVerdict(t, p, tcpFrame("203.0.113.202:1024", m.vip, "S"), "answer-no-local-port", xdpTX)
		wantAllOver(t, p)
	}
}

// Many connections at random, and a slow map beside them: no two have the same end at a
// real server, and each reply reaches its client.
func TestFullNATAtRandom(t *testing.T) {
	const servers, steps = 3, 2500
	r := random(t)
	p := newTestPlane(t)
	setLocals(t, p, localAddress("198.51.100.160/31", 500), localAddress("198.51.100.200/32", 3))
	svc := tcpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, svc)
	for i := range servers {
		rs := mustAddServer(t, p, svc, fmt.Sprintf("198.51.100.%d:80", 11+i), 1)
		rs.Method = lvs.FullNAT
		if err := p.EditServer(svc.ServiceKey, rs); err != nil {
			t.Fatal(err)
		}
	}
	type end struct{ local, server string }
	clients, known := map[end]string{}, map[string]end{}
	for range steps {
		client := fmt.Sprintf("203.0.113.%d:%d", 1+r.IntN(200), 1024+r.IntN(20))
		switch n := r.IntN(10); {
		case n == 0 && len(known) > 1200:
			advance(p, time.Hour)
			mustSweep(t, p)
			clear(clients)
			clear(known)
		default:
			at, old := known[client]
			out := wantVerdict(t, p, tcpFrame(client, vip4, "S"), "forward", xdpTX)
			local, server := ends(out)
			got := end{local, server}
			if old && at != got {
				t.Fatalf("%s is %v at its server, before %v", client, got, at)
			}
			if other, taken := clients[got]; taken && other != client {
				t.Fatalf("%s and %s are both %v", client, other, got)
			}
			clients[got], known[client] = client, got
		}
		for got, client := range clients { // any one
			out := wantVerdict(t, p, fromServer(tcpFrame(got.server, got.local, "A"), got.server), "forward-reply", xdpTX)
			if from, to := ends(out); from != vip4 || to != client {
				t.Fatalf("reply to %v went from %s to %s, want to %s", got, from, to, client)
			}
			break
		}
	}
	checkTable(t, p)
	listed := map[netip.AddrPort]map[netip.AddrPort]bool{}
	for c := range p.Connections() {
		if listed[c.Server] == nil {
			listed[c.Server] = map[netip.AddrPort]bool{}
		}
		if listed[c.Server][c.Local] {
			t.Errorf("%s is listed twice at %s", c.Local, c.Server)
		}
		listed[c.Server][c.Local] = true
	}
	wantAllOver(t, p)
}

// Two CPUs take ports of a pool that is all but empty at the same time.
func TestFullNATOnManyCPUs(t *testing.T) {
	const threads, rounds, clients, ports = 2, 40, 70, 120
	r := random(t)
	p := newTestPlane(t)
	m := masqueradings["ipv4"]
	mustTranslate(t, p, tcpService(m.vip, lvs.RoundRobin), m.server, lvs.FullNAT, false)
	setLocals(t, p, localAddress("198.51.100.160/30", ports/4))
	for round := range rounds {
		var running sync.WaitGroup
		errs := make([]error, threads)
		for thread := range threads {
			source := rand.New(rand.NewPCG(r.Uint64(), uint64(thread)))
			running.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				frame := tcpFrame(m.client, m.vip, "S")
				var ctx [24]byte
				binary.NativeEndian.PutUint32(ctx[4:], uint32(len(frame)))
				binary.NativeEndian.PutUint32(ctx[12:], testIfindex)
				for _, n := range source.Perm(clients) {
					binary.BigEndian.PutUint16(frame[34:], uint16(1024+thread*clients+n))
					opts := ebpf.RunOptions{Data: frame, Context: ctx[:]}
					if _, err := p.progs.Director.Run(&opts); err != nil {
						errs[thread] = err
						return
					}
				}
			})
		}
		running.Wait()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		seen := map[netip.AddrPort]netip.AddrPort{}
		for c := range p.Connections() {
			if other, taken := seen[c.Local]; taken {
				t.Fatalf("round %d: %s and %s both come from %s", round, c.Client, other, c.Local)
			}
			wantLocal(t, p, c.Local.String())
			seen[c.Local] = c.Client
		}
		if len(seen) < ports*2/3 {
			t.Errorf("round %d: %d connections out of a pool of %d ports", round, len(seen), ports)
		}
		checkTable(t, p)
		wantAllOver(t, p)
	}
}

// A pool or a method that is another now is for connections that begin.
func TestFullNATIsTheConnections(t *testing.T) {
	p := fullNATPlane(t, false)
	m := masqueradings["ipv4"]
	local, _ := ends(wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX))
	setLocals(t, p, localAddress("198.51.100.77/32", 5))
	svc := tcpService(m.vip, lvs.RoundRobin)
	rs := tell(t, p).Services[slices.IndexFunc(tell(t, p).Services, func(s lvs.ServiceStatus) bool {
		return s.ServiceKey == svc.ServiceKey
	})].Servers[0].RealServer
	for _, test := range []struct {
		method lvs.ForwardingMethod
		client string
		from   string
	}{
		{lvs.FullNAT, "203.0.113.6:1024", "198.51.100.77:"},
		{lvs.Masquerading, "203.0.113.7:1024", "203.0.113.7:1024"},
		{lvs.DirectRouting, "203.0.113.8:1024", "203.0.113.8:1024"},
	} {
		rs.Method = test.method
		if err := p.EditServer(svc.ServiceKey, rs); err != nil {
			t.Fatal(err)
		}
		for _, client := range []string{m.client, test.client} {
			from, _ := ends(wantVerdict(t, p, tcpFrame(client, m.vip, "S"), "forward", xdpTX))
			if client == m.client && from != local {
				t.Errorf("the old connection comes from %s now, before from %s", from, local)
			}
			if client == test.client && !strings.HasPrefix(from, test.from) {
				t.Errorf("with %s, a new one comes from %s, want %s", test.method, from, test.from)
			}
		}
	}
	out := wantVerdict(t, p, fromServer(tcpFrame(m.server, local, "SA"), m.server), "forward-reply", xdpTX)
	if from, to := ends(out); from != m.vip || to != m.client {
		t.Errorf("the old one's reply went from %s to %s", from, to)
	}
	checkTable(t, p)
}

// A client that says it is a local address does not get another one's replies.
func TestFullNATKeepsItsReplies(t *testing.T) {
	p := fullNATPlane(t, false)
	m := masqueradings["ipv4"]
	local, _ := ends(wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX))
	const other = "192.0.2.11:80"
	masquerade(t, p, tcpService(other, lvs.RoundRobin), m.server)
	wantVerdict(t, p, tcpFrame(local, other, "S"), "forward", xdpTX)
	out := wantVerdict(t, p, fromServer(tcpFrame(m.server, local, "SA"), m.server), "forward-reply", xdpTX)
	if from, to := ends(out); from != m.vip || to != m.client {
		t.Errorf("reply went from %s to %s, want to %s", from, to, m.client)
	}
}

func TestLocalAddresses(t *testing.T) {
	p := newTestPlane(t)
	if got := p.LocalAddresses(); len(got) != 0 {
		t.Errorf("a new plane has %v", got)
	}
	for _, pool := range [][]lvs.LocalAddress{
		{localAddress("198.51.100.160/28", 5000), localAddress("198.51.100.7/32", 1), localAddress("2001:db8:1::a0/124", 60000)},
		{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Ports: lvs.PortRange{First: 1, Last: 65535}}},
		{localAddress("2001:db8:1::/120", 5)},
		nil,
	} {
		setLocals(t, p, pool...)
		if diff := cmp.Diff(pool, p.LocalAddresses(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("pool (-set +got):\n%s", diff)
		}
	}
	if err := p.SetLocalAddresses([]lvs.LocalAddress{localAddress("198.51.100.0/24", 5), localAddress("192.0.2.1/32", 5)}); err == nil {
		t.Error("a pool of 257 addresses is not refused")
	}
}
