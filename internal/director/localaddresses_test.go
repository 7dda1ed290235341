package director

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func localAddress(prefix string) lvs.LocalAddress {
	return lvs.LocalAddress{Prefix: netip.MustParsePrefix(prefix), Ports: lvs.DefaultLocalPorts}
}

func TestLocalAddressesAreKept(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	ctx := t.Context()
	own := localAddress(ownIP.String() + "/32")
	steps := []struct {
		do   func() error
		want error
		says string
	}{
		{func() error { return b.AddLocalAddress(ctx, localAddress("2001:db8::20/128")) }, nil, ""},
		{func() error { return b.AddLocalAddress(ctx, own) }, nil, ""},
		{func() error { return b.AddLocalAddress(ctx, own) }, lvs.ErrLocalAddressExists, own.String()},
		{func() error { return b.AddLocalAddress(ctx, localAddress("192.0.2.0/24")) }, lvs.ErrInvalid, "has it already"},
		{func() error { return b.AddLocalAddress(ctx, localAddress("224.0.0.1/32")) }, lvs.ErrInvalid, "unicast"},
		{func() error { return b.DeleteLocalAddress(ctx, netip.MustParsePrefix("192.0.2.77/32")) }, lvs.ErrNoLocalAddress, "192.0.2.77"},
	}
	for _, step := range steps {
		expect(t, step.do(), step.want, step.says)
	}
	got, err := b.LocalAddresses(ctx)
	if err != nil || len(got) != 2 || got[0].Problem != "" || got[1].Problem == "" || got[0].Prefix != own.Prefix {
		t.Errorf("got %+v, %v: want %s without a problem, then an address that the host has not", got, err, own)
	}
}

func TestFullNATNeedsLocalAddresses(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	ctx := t.Context()
	udp := changed(wlc(vip), func(s *lvs.Service) { s.Protocol = lvs.UDP })
	for _, service := range []lvs.Service{wlc(vip), udp} {
		if err := b.AddService(ctx, service); err != nil {
			t.Fatal(err)
		}
	}
	server := changed(routed("192.0.2.11", 8080), func(r *lvs.RealServer) { r.Method, r.TOA = lvs.FullNAT, true })
	local := localAddress("192.0.2.32/28")
	plain := changed(server, func(r *lvs.RealServer) { r.TOA = false })
	onePacket := changed(udp, func(s *lvs.Service) { s.OnePacket = true })
	for _, step := range []struct {
		do   func() error
		want error
		says string
	}{
		{func() error { return b.AddServer(ctx, vip, server) }, lvs.ErrInvalid, "fairlead local-address add"},
		{func() error { return b.AddLocalAddress(ctx, localAddress("2001:db8::20/128")) }, nil, ""},
		{func() error { return b.AddServer(ctx, vip, server) }, lvs.ErrInvalid, "no local address of IPv4"},
		{func() error { return b.AddLocalAddress(ctx, local) }, nil, ""},
		{func() error { return b.AddServer(ctx, vip, server) }, nil, ""},
		{func() error { return b.DeleteLocalAddress(ctx, local.Prefix) }, lvs.ErrInvalid, "the last one of IPv4"},
		{func() error {
			return b.EditServer(ctx, vip, changed(server, func(r *lvs.RealServer) { r.Method = lvs.Masquerading }))
		}, lvs.ErrInvalid, "TOA"},
		{func() error { return b.AddServer(ctx, udp.ServiceKey, server) }, lvs.ErrInvalid, "option of TCP"},
		{func() error { return b.AddServer(ctx, udp.ServiceKey, plain) }, nil, ""},
		{func() error { return b.EditService(ctx, onePacket) }, lvs.ErrInvalid, "one-packet"},
		{func() error { return b.DeleteServer(ctx, udp.ServiceKey, plain.RealServerKey) }, nil, ""},
		{func() error { return b.EditService(ctx, onePacket) }, nil, ""},
		{func() error { return b.AddServer(ctx, udp.ServiceKey, plain) }, lvs.ErrInvalid, "one-packet"},
		{func() error { return b.DeleteServer(ctx, vip, server.RealServerKey) }, nil, ""},
		{func() error { return b.DeleteLocalAddress(ctx, local.Prefix) }, nil, ""},
	} {
		err := step.do()
		if step.want == nil && err != nil {
			t.Fatal(err)
		}
		expect(t, err, step.want, step.says)
	}
}

// A pool is another one, and real servers are reached by it, in one restore, both ways.
func TestLocalAddressesAreRestored(t *testing.T) {
	b := newBench(t, newMemoryPlane())
	full := fullState()
	b.mustRestore(t, full)
	b.wantState(t, full)
	other := fullState()
	other.LocalAddresses = []lvs.LocalAddress{localAddress("192.0.2.40/32"), localAddress("2001:db8::20/128")}
	b.mustRestore(t, other)
	b.wantState(t, other)
	b.mustRestore(t, lvs.State{})
	if got, err := b.LocalAddresses(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("local addresses that are left: %v", cmp.Diff(nil, got))
	}
}
