package director

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var (
	vip   = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	vip6  = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("2001:db8::100"), Port: 80}
	ownIP = netip.MustParseAddr("192.0.2.10")
)

func isOwn(addr netip.Addr) (bool, error) { return addr == ownIP, nil }

func wlc(key lvs.ServiceKey) lvs.Service {
	return lvs.Service{ServiceKey: key, Scheduler: lvs.WeightedLeastConnection,
		PersistenceMask: lvs.FullPersistenceMask(key.Address)}
}

func routed(address string, port uint16) lvs.RealServer {
	return lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr(address), Port: port},
		Method:        lvs.DirectRouting, Weight: 1,
	}
}

func changed[T any](value T, change func(*T)) T {
	change(&value)
	return value
}

// expect checks a refusal: its reason, and that its message says the words.
func expect(t *testing.T, err, reason error, says string) {
	t.Helper()
	if !errors.Is(err, reason) {
		t.Errorf("got %v, want %v", err, reason)
		return
	}
	if err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("%q does not say %q", err, says)
	}
}

func TestCheckService(t *testing.T) {
	service := func(change func(*lvs.Service)) lvs.Service { return changed(wlc(vip), change) }
	address := func(a string) lvs.Service {
		return service(func(s *lvs.Service) { s.Address = netip.MustParseAddr(a) })
	}
	for _, test := range []struct {
		name    string
		service lvs.Service
		reason  error
		says    string
	}{
		{"tcp", wlc(vip), nil, ""},
		{"ipv6", wlc(vip6), nil, ""},
		{"udp", service(func(s *lvs.Service) { s.Protocol = lvs.UDP }), nil, ""},
		{"sctp", service(func(s *lvs.Service) { s.Protocol = lvs.SCTP }), nil, ""},
		{"mask without persistence", service(func(s *lvs.Service) { s.PersistenceMask = 0xffffff00 }), nil, ""},
		{"no scheduler", service(func(s *lvs.Service) { s.Scheduler = "" }), lvs.ErrSchedulerNotFound, `""`},
		{"no such scheduler", service(func(s *lvs.Service) { s.Scheduler = "nosuch" }), lvs.ErrSchedulerNotFound, "nosuch"},
		{"no such engine", service(func(s *lvs.Service) { s.PersistenceEngine = "nosuch" }), lvs.ErrSchedulerNotFound, "nosuch"},
		{"port 0", service(func(s *lvs.Service) { s.Port = 0 }), lvs.ErrInvalid, "1 to 65535"},
		{"protocol", service(func(s *lvs.Service) { s.Protocol = 1 }), lvs.ErrInvalid, "TCP, UDP or SCTP"},
		{"no address", service(func(s *lvs.Service) { s.Address = netip.Addr{} }), lvs.ErrInvalid, "unicast"},
		{"unspecified", address("0.0.0.0"), lvs.ErrInvalid, "unicast"},
		{"multicast", address("224.0.0.1"), lvs.ErrInvalid, "unicast"},
		{"multicast ipv6", address("ff02::1"), lvs.ErrInvalid, "unicast"},
		{"broadcast", address("255.255.255.255"), lvs.ErrInvalid, "unicast"},
		{"link-local", address("fe80::1"), lvs.ErrInvalid, "link-local"},
		{"IPv4 written as IPv6", address("::ffff:192.0.2.1"), lvs.ErrInvalid, "the IPv4 address, 192.0.2.1"},
		{"mark", service(func(s *lvs.Service) { s.ServiceKey = lvs.MarkKey(1, false) }), nil, ""},
		{"persistence", service(func(s *lvs.Service) { s.PersistenceTimeout = time.Minute }), nil, ""},
		{"no prefix", changed(wlc(vip6), func(s *lvs.Service) { s.PersistenceTimeout, s.PersistenceMask = time.Minute, 129 }), lvs.ErrInvalid, "1 to 128"},
		{"all ports", service(func(s *lvs.Service) { s.Port, s.PersistenceTimeout = 0, time.Minute }), nil, ""},
		{"one-packet", service(func(s *lvs.Service) { s.OnePacket, s.Protocol = true, lvs.UDP }), nil, ""},
		{"one-packet tcp", service(func(s *lvs.Service) { s.OnePacket = true }), lvs.ErrInvalid, "UDP"},
		{"flags", service(func(s *lvs.Service) { s.SchedulerFlags = lvs.Flag1 }), nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) { expect(t, CheckService(test.service), test.reason, test.says) })
	}
}

func TestEveryKnownSchedulerIsTaken(t *testing.T) {
	for _, s := range lvs.Schedulers() {
		err := CheckService(changed(wlc(vip), func(service *lvs.Service) { service.Scheduler = s }))
		if err != nil || !dataplane.HasScheduler(s) {
			t.Errorf("scheduler %s: %v; the plane has it: %t", s, err, dataplane.HasScheduler(s))
		}
	}
}

func TestCheckServer(t *testing.T) {
	server := func(change func(*lvs.RealServer)) lvs.RealServer { return changed(routed("192.0.2.11", 80), change) }
	tunnelled := func(addr string, port uint16, tunnel lvs.Tunnel) lvs.RealServer {
		return changed(routed(addr, port), func(s *lvs.RealServer) { s.Method, s.Tunnel = lvs.Tunnelling, tunnel })
	}
	for _, test := range []struct {
		name   string
		server lvs.RealServer
		reason error
		says   string
	}{
		{"routed", routed("192.0.2.11", 80), nil, ""},
		{"other network", routed("198.51.100.11", 80), nil, ""},
		{"most", server(func(s *lvs.RealServer) { s.Weight, s.UpperThreshold, s.LowerThreshold = 1<<31-1, 1<<32-1, 1<<32-1 }), nil, ""},
		{"weight", server(func(s *lvs.RealServer) { s.Weight = 1 << 31 }), lvs.ErrRange, "2147483648"},
		{"thresholds", server(func(s *lvs.RealServer) { s.UpperThreshold, s.LowerThreshold = 5, 10 }), lvs.ErrRange, "lower threshold 10"},
		{"lower threshold alone", server(func(s *lvs.RealServer) { s.LowerThreshold = 10 }), lvs.ErrRange, "upper threshold is 0"},
		{"unspecified", routed("0.0.0.0", 80), lvs.ErrInvalid, "unicast"},
		{"multicast", routed("224.0.0.1", 80), lvs.ErrInvalid, "unicast"},
		{"other family", routed("2001:db8::11", 80), lvs.ErrInvalid, "family"},
		{"other port", routed("192.0.2.11", 81), lvs.ErrInvalid, "port 81"},
		{"method", server(func(s *lvs.RealServer) { s.Method = 9 }), lvs.ErrInvalid, "forwarding method"},
		{"tunnel", tunnelled("192.0.2.11", 80, lvs.Tunnel{}), nil, ""},
		{"tunnel to the other family", tunnelled("2001:db8::11", 80, lvs.Tunnel{Type: lvs.GUE, Port: 6080, Checksum: lvs.RemoteChecksum}), nil, ""},
		{"tunnel to another port", tunnelled("192.0.2.11", 81, lvs.Tunnel{}), lvs.ErrInvalid, "port 81"},
		{"tunnel type", tunnelled("192.0.2.11", 80, lvs.Tunnel{Type: 3}), lvs.ErrInvalid, "tunnel type"},
		{"tunnel checksum", tunnelled("192.0.2.11", 80, lvs.Tunnel{Checksum: 3}), lvs.ErrInvalid, "tunnel checksum"},
		{"gue without a port", tunnelled("192.0.2.11", 80, lvs.Tunnel{Type: lvs.GUE}), lvs.ErrInvalid, "tunnel port 0"},
		{"gre with remote checksum", tunnelled("192.0.2.11", 80, lvs.Tunnel{Type: lvs.GRE, Checksum: lvs.RemoteChecksum}), lvs.ErrInvalid, "of gue"},
		{"masqueraded", server(func(s *lvs.RealServer) { s.Method, s.Port = lvs.Masquerading, 8080 }), nil, ""},
		{"method local", server(func(s *lvs.RealServer) { s.Method = lvs.Local }), lvs.ErrInvalid, "local by itself"},
		{"own address", routed(ownIP.String(), 80), nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := checkThresholds(test.server)
			if err == nil {
				err = checkServer(vip, test.server)
			}
			expect(t, err, test.reason, test.says)
		})
	}
}

func TestCheckTimeouts(t *testing.T) {
	for _, good := range []lvs.Timeouts{{}, {TCP: time.Second}, {UDP: 31 * 24 * time.Hour}} {
		if err := checkTimeouts(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []lvs.Timeouts{{TCP: -time.Second}, {TCPFin: time.Millisecond}, {UDP: 31*24*time.Hour + time.Second}} {
		expect(t, checkTimeouts(bad), lvs.ErrInvalid, "31 days")
	}
}

func TestIsLocalAddress(t *testing.T) {
	for _, test := range []struct {
		addr string
		want bool
	}{{"127.0.0.1", true}, {"127.1.2.3", true}, {"::1", true}, {"192.0.2.1", false}, {"2001:db8::1", false}} {
		got, err := isLocalAddress(netip.MustParseAddr(test.addr))
		if err != nil || got != test.want {
			t.Errorf("%s: got %t, %v, want %t", test.addr, got, err, test.want)
		}
	}
}
