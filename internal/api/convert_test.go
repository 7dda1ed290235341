package api

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var compareEndpoints = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// A generator makes random values of the domain that the wire can carry.
type generator struct{ *rand.Rand }

func newGenerator(t testing.TB) generator {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return generator{rand.New(rand.NewPCG(seed, 0))}
}

func (g generator) addr() netip.Addr {
	if g.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{198, 18, byte(g.Uint32()), byte(g.Uint32())})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 14: byte(g.Uint32()), 15: byte(g.Uint32())})
}

func (g generator) port() uint16 { return uint16(g.Uint32()) }

func (g generator) key() lvs.ServiceKey {
	if g.IntN(4) == 0 {
		return lvs.MarkKey(1+g.Uint32N(1<<32-1), g.IntN(2) == 0)
	}
	protocols := []lvs.Protocol{lvs.TCP, lvs.UDP, lvs.SCTP}
	return lvs.ServiceKey{Protocol: protocols[g.IntN(len(protocols))], Address: g.addr(), Port: g.port()}
}

func (g generator) service() lvs.Service {
	key := g.key()
	mask := lvs.FullPersistenceMask(key.Address)
	if key.Address.Is4() {
		mask = g.Uint32()
	}
	schedulers := lvs.Schedulers()
	return lvs.Service{
		ServiceKey:         key,
		Scheduler:          schedulers[g.IntN(len(schedulers))],
		SchedulerFlags:     lvs.SchedulerFlags(g.IntN(8)),
		PersistenceTimeout: time.Duration(g.IntN(31*86400+1)) * time.Second,
		PersistenceMask:    mask,
		PersistenceEngine:  []string{"", "sip"}[g.IntN(2)],
		OnePacket:          g.IntN(2) == 0,
	}
}

func (g generator) server() lvs.RealServer {
	server := lvs.RealServer{
		RealServerKey:  lvs.RealServerKey{Address: g.addr(), Port: g.port()},
		Method:         lvs.ForwardingMethod(g.IntN(4)),
		Weight:         g.Uint32N(1 << 31),
		UpperThreshold: g.Uint32(),
		LowerThreshold: g.Uint32(),
	}
	if server.Method == lvs.Tunnelling {
		server.Tunnel = lvs.Tunnel{
			Type:     lvs.TunnelType(g.IntN(3)),
			Port:     g.port(),
			Checksum: lvs.TunnelChecksum(g.IntN(3)),
		}
	}
	return server
}

func (g generator) counters() lvs.Counters {
	return lvs.Counters{
		Connections: g.Uint64(), InPackets: g.Uint64(), OutPackets: g.Uint64(), InBytes: g.Uint64(), OutBytes: g.Uint64(),
	}
}

func (g generator) nextHop() lvs.NextHop {
	switch g.IntN(4) {
	case 0:
		return lvs.NextHop{Problem: "no route to 198.51.100.11"}
	case 1:
		return lvs.NextHop{Local: true}
	}
	var gateway netip.Addr
	if g.IntN(2) == 0 {
		gateway = g.addr()
	}
	return lvs.NextHop{
		Gateway:        gateway,
		InterfaceIndex: 1 + g.IntN(1000),
		InterfaceName:  "eth0",
		Source:         lvs.MAC{2, 0, 0, 0, 0, byte(g.Uint32())},
		Destination:    lvs.MAC{2, 0, 0, 0, 1, byte(g.Uint32())},
		VLAN:           uint16(g.IntN(4096)),
		MTU:            g.IntN(9001),
	}
}

func (g generator) serviceStatus() lvs.ServiceStatus {
	status := lvs.ServiceStatus{Service: g.service(), Counters: g.counters(), Rates: lvs.Rates(g.counters())}
	for range g.IntN(4) {
		status.Servers = append(status.Servers, lvs.RealServerStatus{
			RealServer: g.server(),
			Active:     g.Uint32(), Inactive: g.Uint32(), Persistent: g.Uint32(),
			Counters: g.counters(), Rates: lvs.Rates(g.counters()),
			NextHop: g.nextHop(),
		})
	}
	return status
}

func (g generator) connection() lvs.Connection {
	if g.IntN(4) == 0 {
		return g.template()
	}
	protocols := []lvs.Protocol{lvs.TCP, lvs.UDP}
	return lvs.Connection{
		Protocol: protocols[g.IntN(len(protocols))],
		Client:   netip.AddrPortFrom(g.addr(), g.port()),
		Virtual:  netip.AddrPortFrom(g.addr(), g.port()),
		Server:   netip.AddrPortFrom(g.addr(), g.port()),
		State:    lvs.ConnectionState(g.IntN(int(lvs.StateUDP) + 1)),
		Expires:  time.Duration(g.IntN(1<<31)) * time.Second,
		Packets:  g.Uint32(),
		Bytes:    g.Uint64(),
	}
}

func (g generator) template() lvs.Connection {
	protocols := []lvs.Protocol{0, lvs.TCP, lvs.UDP, lvs.SCTP}
	states := []lvs.ConnectionState{lvs.StateNone, lvs.StateAssured}
	return lvs.Connection{
		Template: true,
		Protocol: protocols[g.IntN(len(protocols))],
		Client:   netip.AddrPortFrom(g.addr(), 0),
		Virtual:  netip.AddrPortFrom(g.addr(), g.port()),
		Server:   netip.AddrPortFrom(g.addr(), g.port()),
		State:    states[g.IntN(len(states))],
		Expires:  time.Duration(g.IntN(1<<31)) * time.Second,
	}
}

// overWire marshals and unmarshals, so that nothing passes that is not in the
// schema.
func overWire[M proto.Message](t *testing.T, m, empty M) M {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(raw, empty); err != nil {
		t.Fatal(err)
	}
	return empty
}

func TestServiceStatusRoundTrip(t *testing.T) {
	g := newGenerator(t)
	for range 2000 {
		want := g.serviceStatus()
		got, err := serviceStatusFromWire("service", overWire(t, serviceStatusToWire(want), &fairleadv1.ServiceStatus{}))
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Fatalf("-sent +received:\n%s", diff)
		}
	}
}

func TestConnectionRoundTrip(t *testing.T) {
	g := newGenerator(t)
	wire, messages := newConnectionEncoder("application/connect+proto"), newConnectionEncoder("application/connect+json")
	decoder := newConnectionDecoder()
	var want []lvs.Connection
	for full := false; !full; {
		c := g.connection()
		want = append(want, c)
		if full = wire.add(&c); messages.add(&c) != full {
			t.Fatalf("one message is full with %d connections, the other is not", len(want))
		}
	}
	raw, err := proto.Marshal(wire.take())
	if err != nil {
		t.Fatal(err)
	}
	if asMessages := overWire(t, wire.take(), &fairleadv1.ListConnectionsResponse{}); len(asMessages.Connections) > 0 {
		t.Errorf("%d connections in a message that was begun anew", len(asMessages.Connections))
	}
	var read fairleadv1.ListConnectionsResponse
	if err := proto.Unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(messages.take(), &read, protocmp.Transform()); diff != "" {
		t.Errorf("-of messages +on the wire:\n%s", diff)
	}
	var got []lvs.Connection
	if err := decoder.visit(raw, func(c lvs.Connection) error { got = append(got, c); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareEndpoints); diff != "" {
		t.Errorf("-sent +received:\n%s", diff)
	}
	enough := errors.New("enough")
	if err := decoder.visit(raw, func(lvs.Connection) error { return enough }); err != enough {
		t.Errorf("visit's error: got %v", err)
	}
}

// FuzzConnections holds the reading of raw connections against the generated
// messages.
func FuzzConnections(f *testing.F) {
	g := generator{rand.New(rand.NewPCG(3, 4))}
	for range 32 {
		encoder := newConnectionEncoder("application/proto")
		for range g.IntN(4) {
			c := g.connection()
			encoder.add(&c)
		}
		raw, err := proto.Marshal(encoder.take())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got []lvs.Connection
		err := newConnectionDecoder().visit(raw, func(c lvs.Connection) error { got = append(got, c); return nil })
		var wire fairleadv1.ListConnectionsResponse
		if wireErr := proto.Unmarshal(raw, &wire); wireErr != nil {
			return // it is stricter: text of unknown fields
		}
		if err != nil {
			return
		}
		if len(got) != len(wire.Connections) {
			t.Fatalf("%d connections, the generated message has %d", len(got), len(wire.Connections))
		}
		for i, w := range wire.Connections {
			want := lvs.Connection{
				Protocol: lvs.Protocol(w.Protocol),
				Client:   netip.MustParseAddrPort(w.Client), Virtual: netip.MustParseAddrPort(w.Virtual),
				Server:  netip.MustParseAddrPort(w.Server),
				Expires: time.Duration(w.ExpiresSeconds) * time.Second,
				Packets: w.Packets, Bytes: w.Bytes, State: got[i].State, Template: w.Template,
			}
			if got[i] != want || (w.State != "" && got[i].State.String() != w.State) {
				t.Fatalf("got %+v, want %+v in state %q", got[i], want, w.State)
			}
		}
	})
}

func TestBadConnections(t *testing.T) {
	good := numbered(7)
	encoder := newConnectionEncoder("application/json")
	encoder.add(&good)
	message := encoder.take()
	for _, test := range []struct {
		name   string
		change func(*fairleadv1.Connection)
		says   string
	}{
		{"protocol", func(c *fairleadv1.Connection) { c.Protocol = 1 }, "protocol"},
		{"no protocol", func(c *fairleadv1.Connection) { c.Protocol = 0 }, "missing"},
		{"client", func(c *fairleadv1.Connection) { c.Client = "x" }, "client"},
		{"virtual", func(c *fairleadv1.Connection) { c.Virtual = "x" }, "virtual"},
		{"no server", func(c *fairleadv1.Connection) { c.Server = "" }, "missing"},
		{"state", func(c *fairleadv1.Connection) { c.State = "ASLEEP" }, "ASLEEP"},
	} {
		wire := proto.CloneOf(message)
		test.change(wire.Connections[0])
		raw, err := proto.Marshal(wire)
		if err != nil {
			t.Fatal(err)
		}
		err = newConnectionDecoder().visit(raw, func(lvs.Connection) error { return nil })
		if !errors.Is(err, lvs.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	raw, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	for length := 1; length < len(raw); length++ {
		err := newConnectionDecoder().visit(raw[:length], func(lvs.Connection) error { return nil })
		if err == nil {
			t.Errorf("cut off after %d bytes: taken", length)
		}
	}
}

func TestStatusRoundTrip(t *testing.T) {
	want := Status{
		Version: "v1.2.3", Uptime: 90 * time.Second,
		Interfaces: []Interface{{"eth0", "xdp"}, {"eth1", "xdp-generic"}},
		TableSize:  1 << 20, TableUsed: 12345,
		Verdicts: []Verdict{{"forward", "normal", "went to a real server", 1 << 40}},
	}
	got := statusFromWire(overWire(t, statusToWire(want), &fairleadv1.GetStatusResponse{}))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-sent +received:\n%s", diff)
	}
}

func TestTimeoutsRoundTrip(t *testing.T) {
	want := lvs.Timeouts{TCP: 900 * time.Second, TCPFin: 0, UDP: MaxTimeout}
	got, err := timeoutsFromWire("timeouts", overWire(t, timeoutsToWire(want), &fairleadv1.Timeouts{}))
	if err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestBadInput(t *testing.T) {
	tcp := &fairleadv1.ServiceKey{Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Address: "192.0.2.100:80"}
	key := func(address string) *fairleadv1.ServiceKey {
		return &fairleadv1.ServiceKey{Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Address: address}
	}
	server := func(change func(*fairleadv1.RealServer)) *fairleadv1.RealServer {
		s := &fairleadv1.RealServer{
			Address: "198.51.100.11:80", Method: fairleadv1.ForwardingMethod_FORWARDING_METHOD_TUNNELLING,
			Tunnel: &fairleadv1.Tunnel{
				Type:     fairleadv1.TunnelType_TUNNEL_TYPE_GUE,
				Checksum: fairleadv1.TunnelChecksum_TUNNEL_CHECKSUM_NONE,
			},
		}
		change(s)
		return s
	}
	service := func(s *fairleadv1.Service) func() error {
		return func() error { _, err := serviceFromWire("service", s); return err }
	}
	real := func(s *fairleadv1.RealServer) func() error {
		return func() error { _, err := serverFromWire("server", s); return err }
	}
	for _, test := range []struct {
		name   string
		parse  func() error
		reason error
		says   []string
	}{
		{"no service", service(nil), lvs.ErrInvalid, []string{"service", "missing"}},
		{"no key", service(&fairleadv1.Service{}), lvs.ErrInvalid, []string{"service.key", "missing"}},
		{"address", service(&fairleadv1.Service{Key: key("192.0.2.300:80")}), lvs.ErrInvalid,
			[]string{"service.key.address", "192.0.2.300:80", "192.0.2.100:80"}},
		{"no port", service(&fairleadv1.Service{Key: key("192.0.2.100")}), lvs.ErrInvalid, []string{"service.key.address"}},
		{"port", service(&fairleadv1.Service{Key: key("192.0.2.100:65536")}), lvs.ErrInvalid, []string{"65536"}},
		{"name", service(&fairleadv1.Service{Key: key("localhost:80")}), lvs.ErrInvalid, []string{"localhost"}},
		{"zone", service(&fairleadv1.Service{Key: key("[fe80::1%eth0]:80")}), lvs.ErrInvalid, []string{"zone"}},
		{"mapped", service(&fairleadv1.Service{Key: key("[::ffff:192.0.2.1]:80")}), lvs.ErrInvalid, []string{"192.0.2.1:80"}},
		{"protocol", service(&fairleadv1.Service{Key: &fairleadv1.ServiceKey{Protocol: 1, Address: "192.0.2.100:80"}}),
			lvs.ErrInvalid, []string{"service.key.protocol", "PROTOCOL_TCP"}},
		{"mark and address", service(&fairleadv1.Service{Key: &fairleadv1.ServiceKey{FirewallMark: 1, Address: "192.0.2.100:80"}}),
			lvs.ErrInvalid, []string{"firewall_mark"}},
		{"ipv6 of an address", service(&fairleadv1.Service{Key: &fairleadv1.ServiceKey{
			Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Address: "192.0.2.100:80", Ipv6: true}}),
			lvs.ErrInvalid, []string{"ipv6"}},
		{"flags", service(&fairleadv1.Service{Key: tcp, SchedulerFlags: 8}), lvs.ErrInvalid, []string{"scheduler_flags", "8", "7"}},
		{"persistence", service(&fairleadv1.Service{Key: tcp, PersistenceSeconds: 31*86400 + 1}), lvs.ErrInvalid,
			[]string{"persistence_seconds", "2678401", "2678400"}},
		{"prefix", service(&fairleadv1.Service{Key: key("[2001:db8::1]:80"), PersistenceMask: 129}), lvs.ErrInvalid,
			[]string{"persistence_mask", "129", "128"}},
		{"no server", real(nil), lvs.ErrInvalid, []string{"server", "missing"}},
		{"server address", real(server(func(s *fairleadv1.RealServer) { s.Address = ":80" })), lvs.ErrInvalid, []string{"server.address"}},
		{"no method", real(server(func(s *fairleadv1.RealServer) { s.Method = 0 })), lvs.ErrInvalid, []string{"server.method"}},
		{"method", real(server(func(s *fairleadv1.RealServer) { s.Method = 5 })), lvs.ErrInvalid, []string{"server.method", "5"}},
		{"negative method", real(server(func(s *fairleadv1.RealServer) { s.Method = -1 })), lvs.ErrInvalid, []string{"server.method"}},
		{"weight", real(server(func(s *fairleadv1.RealServer) { s.Weight = 1 << 31 })), lvs.ErrRange,
			[]string{"server.weight", "2147483648", "2147483647"}},
		{"no tunnel", real(server(func(s *fairleadv1.RealServer) { s.Tunnel = nil })), lvs.ErrInvalid, []string{"server.tunnel", "missing"}},
		{"tunnel of a routed server", real(server(func(s *fairleadv1.RealServer) {
			s.Method = fairleadv1.ForwardingMethod_FORWARDING_METHOD_DIRECT_ROUTING
		})), lvs.ErrInvalid, []string{"server.tunnel"}},
		{"tunnel type", real(server(func(s *fairleadv1.RealServer) { s.Tunnel.Type = 0 })), lvs.ErrInvalid, []string{"server.tunnel.type"}},
		{"tunnel port", real(server(func(s *fairleadv1.RealServer) { s.Tunnel.Port = 65536 })), lvs.ErrInvalid,
			[]string{"server.tunnel.port", "65536", "65535"}},
		{"tunnel checksum", real(server(func(s *fairleadv1.RealServer) { s.Tunnel.Checksum = 4 })), lvs.ErrInvalid,
			[]string{"server.tunnel.checksum"}},
		{"no timeouts", func() error { _, err := timeoutsFromWire("timeouts", nil); return err }, lvs.ErrInvalid,
			[]string{"timeouts", "missing"}},
		{"timeout", func() error {
			_, err := timeoutsFromWire("timeouts", &fairleadv1.Timeouts{UdpSeconds: 1 << 31})
			return err
		}, lvs.ErrInvalid, []string{"timeouts.udp_seconds", "2147483648", "31 days"}},
		{"mac", func() error {
			_, err := nextHopFromWire("hop", &fairleadv1.NextHop{SourceMac: "02:00"})
			return err
		}, lvs.ErrInvalid, []string{"hop.source_mac"}},
		{"vlan", func() error { _, err := nextHopFromWire("hop", &fairleadv1.NextHop{Vlan: 4096}); return err },
			lvs.ErrInvalid, []string{"hop.vlan", "4096", "4095"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.parse()
			if !errors.Is(err, test.reason) {
				t.Fatalf("got %v, want %v", err, test.reason)
			}
			for _, word := range test.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}

// FuzzServiceStatusFromWire: whatever comes in, it is refused or it is a value
// that goes out and comes in again as the same.
func FuzzServiceStatusFromWire(f *testing.F) {
	g := generator{rand.New(rand.NewPCG(1, 2))}
	for range 32 {
		raw, err := proto.Marshal(serviceStatusToWire(g.serviceStatus()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var wire fairleadv1.ServiceStatus
		if proto.Unmarshal(raw, &wire) != nil {
			return
		}
		first, err := serviceStatusFromWire("service", &wire)
		if err != nil {
			if !errors.Is(err, lvs.ErrInvalid) && !errors.Is(err, lvs.ErrRange) {
				t.Fatalf("refused as %v", err)
			}
			return
		}
		second, err := serviceStatusFromWire("service", serviceStatusToWire(first))
		if diff := cmp.Diff(first, second, compareAddresses); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}
