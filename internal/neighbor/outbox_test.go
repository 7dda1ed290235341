package neighbor

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func TestOutbox(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	hop := func(index int) lvs.NextHop { return lvs.NextHop{InterfaceIndex: index} }
	tests := []struct {
		name string
		do   func(o *outbox)
		want []Update
	}{
		{"nothing", func(*outbox) {}, nil},
		{"in the order of change", func(o *outbox) {
			o.put(b, hop(1))
			o.put(a, hop(2))
		}, []Update{{b, hop(1)}, {a, hop(2)}}},
		{"the newest takes the place of what waits", func(o *outbox) {
			o.put(a, hop(1))
			o.put(b, hop(1))
			o.put(a, hop(2))
		}, []Update{{a, hop(2)}, {b, hop(1)}}},
		{"what was told is not told again", func(o *outbox) {
			o.put(a, hop(1))
			mustSend(t, o)
			o.put(a, hop(1))
		}, nil},
		{"back to what was told while waiting", func(o *outbox) {
			o.put(a, hop(1))
			mustSend(t, o)
			o.put(a, hop(2))
			o.put(b, hop(3))
			o.put(a, hop(1))
		}, []Update{{b, hop(3)}}},
		{"told again after an absence", func(o *outbox) {
			o.put(a, hop(1))
			mustSend(t, o)
			o.put(a, hop(2))
			mustSend(t, o)
			o.put(a, hop(1))
		}, []Update{{a, hop(1)}}},
		{"forgotten while waiting", func(o *outbox) {
			o.put(a, hop(1))
			o.put(b, hop(2))
			o.forget(a)
		}, []Update{{b, hop(2)}}},
		{"forgotten and watched again is told again", func(o *outbox) {
			o.put(a, hop(1))
			mustSend(t, o)
			o.forget(a)
			o.put(a, hop(1))
		}, []Update{{a, hop(1)}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := newOutbox()
			test.do(o)
			var got []Update
			for u, ok := o.head(); ok; u, ok = o.head() {
				got = append(got, u)
				o.sent(u)
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(x, y Update) bool { return x == y })); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

func mustSend(t *testing.T, o *outbox) {
	t.Helper()
	u, ok := o.head()
	if !ok {
		t.Fatal("the outbox is empty")
	}
	o.sent(u)
}
