package lvs

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestLocalAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.20": "192.0.2.20", "192.0.2.20/32": "192.0.2.20", "192.0.2.32/28": "192.0.2.32/28",
		"2001:db8::20": "2001:db8::20", "2001:db8::/120": "2001:db8::/120",
	} {
		p, err := ParseLocalPrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		a := LocalAddress{p, DefaultLocalPorts}
		if err := a.Check(); err != nil || a.String() != want {
			t.Errorf("%s is %s, %v; want %s", text, a, err, want)
		}
	}
	for text, says := range map[string]string{
		"192.0.2": "want an address or a prefix", "192.0.2.33/28": "did you mean 192.0.2.32/28",
		"192.0.0.0/20": "256 addresses", "127.0.0.1": "unicast", "ff02::1": "unicast", "fe80::1": "link-local",
		"fe80::1%lo": "want an address", "::ffff:192.0.2.1": "unicast",
	} {
		p, err := ParseLocalPrefix(text)
		if err == nil {
			err = LocalAddress{p, DefaultLocalPorts}.Check()
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", text, err, says)
		}
	}
}

func TestLocalAddressPools(t *testing.T) {
	local := func(text string) LocalAddress {
		return LocalAddress{netip.MustParsePrefix(text), DefaultLocalPorts}
	}
	for _, c := range []struct {
		pool []LocalAddress
		bad  int
	}{
		{[]LocalAddress{local("192.0.2.0/25"), local("192.0.2.128/25")}, -1},
		{[]LocalAddress{local("192.0.2.0/25"), local("192.0.2.128/25"), local("2001:db8::1/128")}, 2},
		{[]LocalAddress{local("192.0.2.0/28"), local("192.0.2.7/32")}, 1},
		{[]LocalAddress{local("192.0.2.7/32"), {netip.MustParsePrefix("192.0.2.8/32"), AllPorts}}, 1},
	} {
		if at, err := CheckLocalAddresses(c.pool); at != c.bad || (err == nil) != (at < 0) {
			t.Errorf("%v: got %d, %v, want %d", c.pool, at, err, c.bad)
		}
	}
	if pool := []LocalAddress{local("192.0.2.7/32")}; !HasFamily(pool, false) || HasFamily(pool, true) {
		t.Error("a pool of IPv4 has not the families that it has")
	}
}
