package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// These tests run the real program in the kernel, one packet at a time.

// The interface that packets of a test come in on: loopback, which every
// namespace has, under a MAC address of our own.
const testIfindex = 1

var (
	directorMAC = lvs.MAC{2, 0, 0, 0, 0, 1}
	clientMAC   = lvs.MAC{2, 0, 0, 0, 0, 0xfe}
)

// XDP actions (linux/bpf.h).
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// openPlane opens a plane: the one that is pinned there, or else one with room for that
// many connections. It is closed when the test ends.
func openPlane(t testing.TB, dir string, connections int) *Plane {
	t.Helper()
	cfg := Config{PinDir: dir, Connections: connections, Mode: ModeAuto}
	state := filepath.Join(dir, stateDir)
	var p *Plane
	_, err := os.Stat(state)
	switch {
	case err == nil:
		p, err = Open(cfg)
	case errors.Is(err, fs.ErrNotExist):
		p, err = loadedPlanes.create(t, cfg, state)
	}
	return usedBy(t, p, err)
}

// reopenPlane takes over what openPlane pinned there, as Open does, but for what the
// verifier does.
func reopenPlane(t testing.TB, dir string) *Plane {
	t.Helper()
	p, err := loadedPlanes.takeOver(Config{PinDir: dir, Mode: ModeAuto})
	return usedBy(t, p, err)
}

// usedBy returns a plane that was opened, as tests have it.
func usedBy(t testing.TB, p *Plane, err error) *Plane {
	t.Helper()
	if err != nil {
		t.Fatalf("open: %+v", err)
	}
	t.Cleanup(func() { p.Close() })
	*testInterface(p) = directorInterface{Ifindex: testIfindex, TxIfindex: testIfindex, Mac: directorMAC, Mtu: 1500}
	p.settings().IcmpInterval = 0
	return p
}

func newTestPlane(t testing.TB) *Plane {
	t.Helper()
	return openPlane(t, testhost.MountBPF(t), 10_000)
}

func tcpService(addr string, scheduler lvs.Scheduler) lvs.Service {
	ap := netip.MustParseAddrPort(addr)
	return lvs.Service{
		ServiceKey:      lvs.ServiceKey{Protocol: lvs.TCP, Address: ap.Addr(), Port: ap.Port()},
		Scheduler:       scheduler,
		PersistenceMask: lvs.FullPersistenceMask(ap.Addr()),
	}
}

func mustAddService(t testing.TB, p *Plane, svc lvs.Service) {
	t.Helper()
	if err := p.AddService(svc); err != nil {
		t.Fatal(err)
	}
}

// serverMAC is the MAC address of a test's real server: its last byte is that of
// the IP address.
func serverMAC(addr netip.Addr) lvs.MAC {
	b := addr.As16()
	return lvs.MAC{2, 0, 0, 0, 1, b[15]}
}

func mustAddServer(t testing.TB, p *Plane, svc lvs.Service, addr string, weight uint32) lvs.RealServer {
	t.Helper()
	ap := netip.MustParseAddrPort(addr)
	rs := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: ap.Addr(), Port: ap.Port()},
		Method:        lvs.DirectRouting,
		Weight:        weight,
	}
	if err := p.AddServer(svc.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
	hop := lvs.NextHop{
		InterfaceIndex: testIfindex, MTU: 1500,
		Source: directorMAC, Destination: serverMAC(ap.Addr()),
	}
	if err := p.SetNextHop(ap.Addr(), hop); err != nil {
		t.Fatal(err)
	}
	return rs
}

// A segment describes a frame to build.
type segment struct {
	client, vip string
	flags       string // TCP: letters of S A F R P U
	udp         bool
	ttl         uint8
	tags        []uint16
	payload     []byte
	dontFrag    bool
}

func (s segment) frame(t testing.TB) []byte {
	t.Helper()
	client, vip := netip.MustParseAddrPort(s.client), netip.MustParseAddrPort(s.vip)
	ttl := s.ttl
	if ttl == 0 {
		ttl = 64
	}
	var parts []gopacket.SerializableLayer
	ethertype := layers.EthernetTypeIPv4
	if client.Addr().Is6() {
		ethertype = layers.EthernetTypeIPv6
	}
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr(clientMAC[:]), DstMAC: net.HardwareAddr(directorMAC[:]), EthernetType: ethertype}
	parts = append(parts, eth)
	for i, vid := range s.tags {
		if i == 0 {
			eth.EthernetType = layers.EthernetTypeDot1Q
		}
		tag := &layers.Dot1Q{VLANIdentifier: vid, Type: ethertype}
		if i+1 < len(s.tags) {
			tag.Type = layers.EthernetTypeDot1Q
		}
		parts = append(parts, tag)
	}
	protocol := layers.IPProtocolTCP
	if s.udp {
		protocol = layers.IPProtocolUDP
	}
	var network gopacket.NetworkLayer
	if client.Addr().Is4() {
		ip := &layers.IPv4{Version: 4, TTL: ttl, Protocol: protocol, SrcIP: client.Addr().AsSlice(), DstIP: vip.Addr().AsSlice()}
		if s.dontFrag {
			ip.Flags = layers.IPv4DontFragment
		}
		network = ip
		parts = append(parts, ip)
	} else {
		ip := &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: protocol, SrcIP: client.Addr().AsSlice(), DstIP: vip.Addr().AsSlice()}
		network = ip
		parts = append(parts, ip)
	}
	if s.udp {
		udp := &layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: layers.UDPPort(vip.Port())}
		udp.SetNetworkLayerForChecksum(network)
		parts = append(parts, udp)
	} else {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(client.Port()), DstPort: layers.TCPPort(vip.Port()), Window: 65535, Seq: 1}
		for _, f := range s.flags {
			switch f {
			case 'S':
				tcp.SYN = true
			case 'A':
				tcp.ACK = true
			case 'F':
				tcp.FIN = true
			case 'R':
				tcp.RST = true
			case 'P':
				tcp.PSH = true
			case 'U':
				tcp.URG = true
			}
		}
		tcp.SetNetworkLayerForChecksum(network)
		parts = append(parts, tcp)
	}
	parts = append(parts, gopacket.Payload(s.payload))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func mustRun(t testing.TB, p *Plane, frame []byte) (uint32, []byte) {
	t.Helper()
	action, out, err := p.Run(frame, testIfindex)
	if err != nil {
		t.Fatal(err)
	}
	return action, out
}

// verdictDelta returns what fn added to the verdict counters, by name.
func verdictDelta(t testing.TB, p *Plane, fn func()) map[string]uint64 {
	t.Helper()
	read := func() map[string]uint64 {
		counts, err := p.Verdicts()
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]uint64{}
		for _, c := range counts {
			m[c.Name] = c.Packets
		}
		return m
	}
	before := read()
	fn()
	after := read()
	for name, n := range before {
		if after[name] -= n; after[name] == 0 {
			delete(after, name)
		}
	}
	return after
}

// serveBoth adds a service of either family, with a real server each.
func serveBoth(t testing.TB, p *Plane) (ipv4, ipv6 lvs.Service) {
	t.Helper()
	ipv4, ipv6 = tcpService(vip4, lvs.RoundRobin), tcpService(vip6, lvs.RoundRobin)
	mustAddService(t, p, ipv4)
	mustAddService(t, p, ipv6)
	mustAddServer(t, p, ipv4, server4, 1)
	mustAddServer(t, p, ipv6, server6, 1)
	return ipv4, ipv6
}

// mustServices returns what a plane serves.
func mustServices(t testing.TB, p *Plane) []lvs.ServiceStatus {
	t.Helper()
	services, err := p.Services()
	if err != nil {
		t.Fatal(err)
	}
	return services
}

// statusOf returns a service as it is served.
func statusOf(t testing.TB, p *Plane, key lvs.ServiceKey) lvs.ServiceStatus {
	t.Helper()
	for _, s := range mustServices(t, p) {
		if s.ServiceKey == key {
			return s
		}
	}
	t.Fatalf("no service %s", key)
	return lvs.ServiceStatus{}
}

// followed returns what a plane tells a follower, which ends with the test.
func followed[T any](t *testing.T, follow func(context.Context, func(T) error) error) <-chan T {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan T, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- follow(ctx, func(one T) error { told <- one; return nil })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("follow: %v", err)
		}
	})
	return told
}

func TestForwardsTCP(t *testing.T) {
	for _, family := range []struct{ name, vip, rs, client string }{
		{"ipv4", "192.0.2.10:80", "198.51.100.11:80", "203.0.113.5:1024"},
		{"ipv6", "[2001:db8:2::10]:80", "[2001:db8:1::b]:80", "[2001:db8:3::5]:1024"},
	} {
		t.Run(family.name, func(t *testing.T) {
			p := newTestPlane(t)
			svc := tcpService(family.vip, lvs.WeightedLeastConnection)
			mustAddService(t, p, svc)
			rs := mustAddServer(t, p, svc, family.rs, 1)

			in := segment{client: family.client, vip: family.vip, flags: "S"}.frame(t)
			action, out := mustRun(t, p, in)
			if action != xdpTX {
				v, _ := p.Verdicts()
				t.Fatalf("action %d, want XDP_TX; verdicts %v", action, v)
			}
			if got, want := lvs.MAC(out[:6]), serverMAC(rs.Address); got != want {
				t.Errorf("destination MAC %s, want %s", got, want)
			}
			if got := lvs.MAC(out[6:12]); got != directorMAC {
				t.Errorf("source MAC %s, want the director's", got)
			}
			mustRun(t, p, segment{client: family.client, vip: family.vip, flags: "A"}.frame(t))
			status := mustServices(t, p)
			got := status[0].Servers[0]
			if got.Active != 1 || got.Inactive != 0 {
				t.Errorf("active %d inactive %d, want 1 0", got.Active, got.Inactive)
			}
			if c := got.Counters; c.Connections != 1 || c.InPackets != 2 {
				t.Errorf("counters %+v, want 1 connection, 2 packets", c)
			}
			var conns []string
			for c := range p.Connections() {
				conns = append(conns, fmt.Sprint(c.Client, c.Virtual, c.Server, c.State, c.Expires > 898*time.Second))
			}
			if len(conns) != 1 {
				t.Fatalf("connections %v, want one", conns)
			}
			t.Log(conns)
		})
	}
}

// testInterface is what the data plane knows of the interface of tests.
func testInterface(p *Plane) *directorInterface {
	return &p.view.interfaces.elements[interfaceSlot(testIfindex)]
}

// advance moves the data plane's clock on.
func advance(p *Plane, by time.Duration) {
	p.SetClockOffset(p.fromTicks(p.settings().ClockOffset) + by)
}

// mustSweep ends the connections whose time is over.
func mustSweep(t testing.TB, p *Plane) SweepResult {
	t.Helper()
	found, err := p.Sweep()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// reset removes all services, connections and removed servers: a test's cases
// share a plane, which takes long to load.
func reset(t testing.TB, p *Plane) {
	t.Helper()
	for key := range p.services {
		if err := p.DeleteService(key); err != nil {
			t.Fatal(err)
		}
	}
	advance(p, 31*24*time.Hour)
	if found := mustSweep(t, p); found.Used != 0 {
		t.Fatalf("%d connections are left", found.Used)
	}
}

// testServers are the slots of real servers.
func testServers(p *Plane) []directorRealServer { return p.view.servers.elements }
