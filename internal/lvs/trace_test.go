package lvs

import (
	"errors"
	"net/netip"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]struct {
		prefix string
		port   uint16
		text   string // "": as given
	}{
		"192.0.2.100":         {"192.0.2.100/32", 0, ""},
		"192.0.2.100:80":      {"192.0.2.100/32", 80, ""},
		"203.0.113.0/24":      {"203.0.113.0/24", 0, ""},
		"203.0.113.7/24:1024": {"203.0.113.0/24", 1024, "203.0.113.0/24:1024"},
		"0.0.0.0/0":           {"0.0.0.0/0", 0, ""},
		"2001:db8::100":       {"2001:db8::100/128", 0, ""},
		"[2001:db8::100]":     {"2001:db8::100/128", 0, "2001:db8::100"},
		"[2001:db8::100]:80":  {"2001:db8::100/128", 80, ""},
		"2001:db8::/32":       {"2001:db8::/32", 0, ""},
		"[2001:db8::/32]:80":  {"2001:db8::/32", 80, ""},
		"::ffff:192.0.2.100":  {"192.0.2.100/32", 0, "192.0.2.100"},
		":80":                 {"", 80, ""},
	} {
		prefix := netip.Prefix{}
		if want.prefix != "" {
			prefix = netip.MustParsePrefix(want.prefix)
		}
		got, err := ParseEndpoint(text)
		if err != nil || got != (Endpoint{prefix, want.port}) {
			t.Errorf("%s: %+v, %v; want %s and %d", text, got, err, want.prefix, want.port)
		}
		if want.text == "" {
			want.text = text
		}
		if got.String() != want.text {
			t.Errorf("%s: written as %s, want %s", text, got, want.text)
		}
	}
	for _, text := range []string{"", "a", "192.0.2", "192.0.2.0/33", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:http",
		"[2001:db8::1", "[2001:db8::1]80", "[2001:db8::1]:", "2001:db8::/129", "fe80::1%eth0", "[]", "[]:80", ":", ":0"} {
		if e, err := ParseEndpoint(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v; want an error that wraps ErrInvalid", text, e, err)
		}
	}
	if text := (Endpoint{}).String(); text != "" {
		t.Errorf("any is written as %q", text)
	}
}
