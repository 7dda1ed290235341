package realserver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestInterfaceOf(t *testing.T) {
	routes := []route{
		{netip.MustParsePrefix("0.0.0.0/0"), "eth1", 100},
		{netip.MustParsePrefix("0.0.0.0/0"), "eth2", 50},
		{netip.MustParsePrefix("192.0.2.0/24"), "eth0", 0},
		{netip.MustParsePrefix("192.0.2.100/32"), "lo", 0},
		{netip.MustParsePrefix("2001:db8::100/128"), "lo", 256},
		{netip.MustParsePrefix("2001:db8::/64"), "eth3", 256},
		{netip.MustParsePrefix("2001:db8::/64"), "eth4", 1024},
	}
	for vip, want := range map[string]string{
		"192.0.2.100":     "eth0",
		"203.0.113.1":     "eth2",
		"2001:db8::100":   "eth3",
		"2001:db8:1::100": "",
	} {
		if got := interfaceOf(netip.MustParseAddr(vip), routes); got != want {
			t.Errorf("%s: got %q, want %q", vip, got, want)
		}
	}
	if got := defaultsOf(routes); !slices.Equal(got, []string{"eth2"}) {
		t.Errorf("default route: got %q, want eth2", got)
	}
	if got := defaultsOf(append(routes, route{routes[1].prefix, "eth5", 50})); !slices.Equal(got, []string{"eth2", "eth5"}) {
		t.Errorf("two default routes: got %q", got)
	}
}

func TestRequestCheck(t *testing.T) {
	for _, test := range []struct{ vip, name, says string }{
		{"192.0.2.100", "eth0", ""},
		{"192.0.2.100", "eth0.7", ""},
		{"2001:db8::100", "", ""},
		{"127.0.0.1", "", "clients"},
		{"::1", "", "clients"},
		{"0.0.0.0", "", "clients"},
		{"::", "", "clients"},
		{"224.0.0.1", "", "clients"},
		{"ff02::1", "", "clients"},
		{"255.255.255.255", "", "clients"},
		{"fe80::1", "", "clients"},
		{"fe80::1%eth0", "", "plain"},
		{"::ffff:192.0.2.100", "", "plain"},
		{"192.0.2.100", "lo", "goes to lo by itself"},
		{"192.0.2.100", "all", "name of an interface"},
		{"192.0.2.100", "..", "name of an interface"},
		{"192.0.2.100", "eth0/x", "name of an interface"},
	} {
		err := Request{VIPs: []netip.Addr{netip.MustParseAddr(test.vip)}, Interface: test.name}.check()
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s on %q: %v, want %q", test.vip, test.name, err, test.says)
		}
	}
}

func TestResolve(t *testing.T) {
	routes := []route{{netip.MustParsePrefix("192.0.2.0/24"), "eth0", 0}}
	known := Spec{{Address: vip4b, Interface: "eth1"}}
	request := Request{VIPs: []netip.Addr{vip4, vip4b, vip4}}
	got, err := request.resolve(known, routes)
	if want := (Spec{{Address: vip4, Interface: "eth0"}, {Address: vip4b, Interface: "eth1"}}); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	request.Interface = "eth2"
	got, err = request.resolve(known, routes)
	if want := (Spec{{Address: vip4, Interface: "eth2"}, {Address: vip4b, Interface: "eth2"}}); err != nil || !slices.Equal(got, want) {
		t.Errorf("with an interface: got %v, %v, want %v", got, err, want)
	}
}

// The reverse path filter is the greater of the interface's value and that of all,
// and 1 is the strict one.
func TestFilter(t *testing.T) {
	spec := Spec{{Address: vip4, Interface: "eth0"}}
	for _, test := range []struct {
		all, own string
		defaults []string
		wrong    bool
	}{
		{"0", "0", []string{"eth1"}, false},
		{"0", "1", []string{"eth1"}, true},
		{"1", "0", []string{"eth1"}, true},
		{"1", "1", []string{"eth1"}, true},
		{"1", "2", []string{"eth1"}, false},
		{"2", "1", []string{"eth1"}, false},
		{"1", "1", []string{"eth0"}, false},
		{"1", "1", []string{"eth1", "eth0"}, false},
		{"1", "1", nil, false},
	} {
		s := snapshot{
			sysctls: map[string]string{"net/ipv4/conf/all/rp_filter": test.all, "net/ipv4/conf/eth0/rp_filter": test.own},
			links:   map[string]bool{"eth0": true, "lo": true}, defaults: test.defaults,
		}
		got := slices.Contains(wrongOf(examine(spec, s)), "net.ipv4.conf.eth0.rp_filter")
		if got != test.wrong {
			t.Errorf("all %s, own %s, default route by %q: wrong %t, want %t", test.all, test.own, test.defaults, got, test.wrong)
		}
	}
}

func TestExposed(t *testing.T) {
	spec := Spec{{Address: vip4, Interface: "eth0"}, {Address: vip6, Interface: "eth0"}}
	on := []address{{spec[0].host(), "lo"}, {spec[1].host(), "lo"}}
	for _, test := range []struct {
		ignore, announce string // of all; those of eth0 are 0
		addresses        []address
		want             int
	}{
		{"0", "0", on, 1},
		{"1", "0", on, 1},
		{"0", "2", on, 1},
		{"1", "1", on, 1},
		{"1", "2", on, 0},
		{"2", "2", on, 0},
		{"0", "0", nil, 0},
	} {
		s := snapshot{addresses: test.addresses, sysctls: map[string]string{
			"net/ipv4/conf/all/arp_ignore": test.ignore, "net/ipv4/conf/all/arp_announce": test.announce,
			"net/ipv4/conf/eth0/arp_ignore": "0", "net/ipv4/conf/eth0/arp_announce": "0",
		}}
		if got := exposedOf(spec, s); len(got) != test.want {
			t.Errorf("arp_ignore %s, arp_announce %s: exposed %v, want %d", test.ignore, test.announce, got, test.want)
		}
	}
}
