package lvs

import (
	"errors"
	"net/netip"
	"testing"
)

func TestParsePortRange(t *testing.T) {
	for text, want := range map[string]PortRange{
		"any": AllPorts, "0": {0, 0}, "80": {80, 80}, "80-8080": {80, 8080}, "65535": {65535, 65535}, "1-65535": {1, 65535},
	} {
		got, err := ParsePortRange(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	if got, err := ParsePortRange("80-80"); err != nil || got.String() != "80" {
		t.Errorf("80-80: got %v, %v", got, err)
	}
	for _, text := range []string{"", "-", "80-", "-80", "81-80", "65536", "1-65536", "+1", "http", "1-2-3", "80 -81", "Any"} {
		if got, err := ParsePortRange(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, ErrInvalid)
		}
	}
}

func TestMarkRuleCheck(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, test := range []struct {
		name   string
		change func(*MarkRule)
		ok     bool
	}{
		{"anything", func(*MarkRule) {}, true},
		{"no mark", func(r *MarkRule) { r.Mark = 0 }, false},
		{"SCTP", func(r *MarkRule) { r.Protocol = SCTP }, true},
		{"ICMP", func(r *MarkRule) { r.Protocol = 1 }, false},
		{"IPv4", func(r *MarkRule) { r.Source, r.Destination = prefix("0.0.0.0/0"), prefix("192.0.2.100/32") }, true},
		{"IPv6", func(r *MarkRule) { r.Source, r.Destination = prefix("2001:db8::/32"), prefix("::/0") }, true},
		{"both families", func(r *MarkRule) { r.Source, r.Destination = prefix("0.0.0.0/0"), prefix("::/0") }, false},
		{"host bits", func(r *MarkRule) { r.Source = prefix("192.0.2.1/24") }, false},
		{"IPv4 in IPv6", func(r *MarkRule) { r.Destination = prefix("::ffff:192.0.2.1/128") }, false},
		{"ports", func(r *MarkRule) { r.SourcePorts = PortRange{2, 1} }, false},
	} {
		rule := MarkRule{Mark: 1, SourcePorts: AllPorts, DestinationPorts: AllPorts}
		test.change(&rule)
		err := rule.Check()
		if test.ok && err != nil || !test.ok && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}
