package lvs

import (
	"net/netip"
	"testing"
)

func TestFaultOf(t *testing.T) {
	for _, test := range []struct {
		address string
		want    AddressFault
		isPlain bool
	}{
		{"192.0.2.1", NoFault, true},
		{"169.254.0.1", NoFault, true},
		{"127.0.0.1", NoFault, true},
		{"2001:db8::1", NoFault, true},
		{"::1", NoFault, true},
		{"", NoAddress, false},
		{"2001:db8::1%eth0", HasZone, false},
		{"fe80::1%eth0", HasZone, false},
		{"::ffff:192.0.2.1", MappedIPv4, false},
		{"::ffff:224.0.0.1", MappedIPv4, false},
		{"::ffff:0.0.0.0", MappedIPv4, false},
		{"0.0.0.0", NotUnicast, true},
		{"::", NotUnicast, true},
		{"224.0.0.18", NotUnicast, true},
		{"ff02::1", NotUnicast, true},
		{"255.255.255.255", NotUnicast, true},
		{"fe80::1", LinkLocal, true},
	} {
		addr, _ := netip.ParseAddr(test.address)
		if got := FaultOf(addr); got != test.want {
			t.Errorf("fault of %q: %d, want %d", test.address, got, test.want)
		}
		if got := IsPlain(addr); got != test.isPlain {
			t.Errorf("%q is plain: %v, want %v", test.address, got, test.isPlain)
		}
	}
}
