package ipvsadm

import (
	"math"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestParseNumber(t *testing.T) {
	for _, test := range []struct {
		text string
		want int64
		ok   bool
	}{
		{"0", 0, true}, {"080", 80, true}, {"+5", 5, true}, {" \t6", 6, true}, {"-5", -5, true},
		{"9223372036854775807", math.MaxInt64, true}, {"9223372036854775808", math.MaxInt64, true}, {"-99999999999999999999", math.MinInt64, true},
		{"", 0, false}, {"x", 0, false}, {"+", 0, false}, {"7 ", 0, false}, {"0x10", 0, false}, {"- 5", 0, false},
	} {
		n, ok := parseNumber(test.text, math.MinInt64, math.MaxInt64)
		if ok != test.ok || (ok && n != test.want) {
			t.Errorf("parseNumber(%q) = %d, %t, want %d, %t", test.text, n, ok, test.want, test.ok)
		}
	}
}

func TestParseIPv4(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "1": "0.0.0.1", "127.1": "127.0.0.1", "192.0.513": "192.0.2.1", "0x7f.1": "127.0.0.1", "010.0.0.1": "8.0.0.1",
		"0xC0000201": "192.0.2.1", "4294967295": "255.255.255.255", "192.0.2.1 x": "192.0.2.1", "0": "0.0.0.0",
		"": "", "192.0.2.": "", ".1": "", "1..2": "", "256.1.1.1": "", "1.2.3.256": "", "1.2.65536": "", "1.16777216": "", "4294967296": "",
		"08.1.1.1": "", "0x": "", "0xg": "", "1.2.3.4.5": "", "1.2.3.4x": "", "-1": "", "+1": "", "99999999999999999999": "",
	} {
		got, ok := parseIPv4(text)
		if ok != (want != "") || (ok && got.String() != want) {
			t.Errorf("parseIPv4(%q) = %v, %t, want %q", text, got, ok, want)
		}
	}
}

func TestAppendAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "::": "::", "::1": "::1", "::ffff": "::ffff",
		"::102:304": "::1.2.3.4", "::1:0": "::0.1.0.0", "::ffff:192.0.2.1": "::ffff:192.0.2.1", "2001:db8:0:1:1:1:1:1": "2001:db8:0:1:1:1:1:1",
	} {
		if got := string(appendAddress(nil, netip.MustParseAddr(text))); got != want {
			t.Errorf("appendAddress(%s) = %s, want %s", text, got, want)
		}
	}
}

func TestParseHostPort(t *testing.T) {
	names := testNames{map[netip.Addr]string{netip.MustParseAddr("192.0.2.10"): "www.example.com"}}
	for text, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1:80", "192.0.2.1:http": "192.0.2.1:80", "www.example.com:443": "192.0.2.10:443",
		"[2001:db8::1]:80": "[2001:db8::1]:80", "192.0.2.1: 8": "192.0.2.1:8", "[192.0.2.1:81]:80": "192.0.2.1:81",
		"192.0.2.1": "192.0.2.1 without", "2001:db8::1": "2001:db8::1 without", "[192.0.2.1]:80": "192.0.2.1 without",
		"80": "", "": "", ":80": "", "192.0.2.1:": "", "192.0.2.1:65536": "", "192.0.2.1:-1": "", "192.0.2.1:80:90": "", "192.0.2.1:80 ": "",
		"[2001:db8::1]": "", "[2001:db8::1]80": "", "[2001:db8::1": "", "[]:80": "", "[fe80::1%lo]:80": "", "nohost.example.com:80": "",
	} {
		p := parser{ctx: t.Context(), names: names, line: commandLine{protocol: lvs.TCP}}
		addr, port, hasPort, ok := p.parseHostPort(text)
		got := ""
		switch {
		case ok && hasPort:
			got = netip.AddrPortFrom(addr, port).String()
		case ok:
			got = addr.String() + " without"
		}
		if got != want {
			t.Errorf("parseHostPort(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestOrder checks the order of listings where ipvsadm's comparison of addresses
// overflows: high addresses come before low ones.
func TestOrder(t *testing.T) {
	var services []lvs.ServiceStatus
	for _, addr := range []string{"10.0.0.1", "192.0.2.2", "2001:db8::1", "8.0.0.1", "192.0.2.1", "0.0.0.0"} {
		services = append(services, lvs.ServiceStatus{Service: lvs.Service{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr(addr), Port: 80},
		}})
	}
	sortBy(services, compareServices)
	var got []string
	for _, svc := range services {
		got = append(got, svc.Address.String())
	}
	want := []string{"192.0.2.1", "192.0.2.2", "0.0.0.0", "8.0.0.1", "10.0.0.1", "2001:db8::1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestServiceNames(t *testing.T) {
	n := systemNames{haveSvc: true, byName: map[serviceName]uint16{}, byPort: map[servicePort]string{}}
	for _, line := range []string{
		"# Network services", "", "http  80/tcp  www # WorldWideWeb", "http-alt 80/tcp", "domain 53/udp", "m3ua 2905/sctp", "ddp 1/ddp", "bad x/tcp", "short",
	} {
		n.addService(line)
	}
	for _, test := range []struct {
		name     string
		protocol lvs.Protocol
		port     uint16
	}{
		{"http", lvs.TCP, 80}, {"www", lvs.TCP, 80}, {"http-alt", lvs.TCP, 80}, {"domain", lvs.UDP, 53}, {"m3ua", lvs.SCTP, 2905},
		{"domain", lvs.TCP, 0}, {"ddp", lvs.TCP, 0}, {"80/tcp", lvs.TCP, 0}, {"bad", lvs.TCP, 0}, {"http", 0, 0},
	} {
		if port, ok := n.port(test.name, test.protocol); port != test.port || ok != (test.port != 0) {
			t.Errorf("port of %s/%s = %d, %t, want %d", test.name, test.protocol, port, ok, test.port)
		}
	}
	if name, ok := n.service(80, lvs.TCP); name != "http" || !ok {
		t.Errorf("service 80/TCP = %q, %t, want http", name, ok)
	}
	if name, ok := n.service(81, lvs.TCP); ok {
		t.Errorf("service 81/TCP = %q, want none", name)
	}
}
