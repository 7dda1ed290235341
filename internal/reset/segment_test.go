package reset

import (
	"net/netip"
	"testing"
)

func TestSegments(t *testing.T) {
	for _, at := range [][2]string{
		{"192.0.2.1:1000", "192.0.2.100:80"}, {"[2001:db8::1]:65535", "[2001:db8::100]:443"},
	} {
		want := segment{
			from: netip.MustParseAddrPort(at[0]), to: netip.MustParseAddrPort(at[1]),
			sequence: 0xfffffffe, acknowledged: 7, ack: true,
		}
		packet, err := want.packet()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := parse(packet); !ok || got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for n := range packet {
			parse(packet[:n]) // must not fail worse than by saying so
		}
	}
	for _, other := range [][]byte{nil, {0x45}, {0x60}, {0xff, 0xff}} {
		if s, ok := parse(other); ok {
			t.Errorf("%x is %+v", other, s)
		}
	}
}
