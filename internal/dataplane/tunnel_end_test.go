package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// outerFrame is what a director sends for a packet from the client to the VIP, made
// as the RFCs say.
func outerFrame(client, vip string, server netip.Addr, tunnel lvs.Tunnel, tags ...vlanTag) []byte {
	in := tcpFrame(client, vip, "S", 1, 2, 3)
	made := make([]byte, 100) // where wrapped finds what is random
	made[54], made[34] = 0xc1, 0xc1
	frame := wrapped(in, made, server, tunnel)
	return ethernet(binary.BigEndian.Uint16(frame[12:]), frame[14:], tags...)
}

// innerFrame is what must come out of it.
func innerFrame(client, vip string, tags ...vlanTag) []byte {
	in := tcpFrame(client, vip, "S", 1, 2, 3)
	age(in[14:])
	return ethernet(binary.BigEndian.Uint16(in[12:]), in[14:], tags...)
}

func newTunnelEnd(t *testing.T, end TunnelEnd) *TunnelEndProgram {
	t.Helper()
	testhost.NeedRoot(t)
	p, err := LoadTunnelEnd(end)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// wantEnd runs one frame, and checks what became of it and that it was counted.
func wantEnd(t *testing.T, p *TunnelEndProgram, frame []byte, what string, action uint32, want []byte) {
	t.Helper()
	before, err := p.Counts()
	if err != nil {
		t.Fatal(err)
	}
	got, out, err := p.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	after, err := p.Counts()
	if err != nil {
		t.Fatal(err)
	}
	before[what]++
	if !maps.Equal(before, after) {
		t.Errorf("counted %v, want %v", after, before)
	}
	if got != action {
		t.Errorf("XDP action %d, want %d", got, action)
	}
	if diff := cmp.Diff(want, out); action == xdpPass && diff != "" {
		t.Errorf("frame (-want +got):\n%s", diff)
	}
}

func TestTunnelEnd(t *testing.T) {
	for _, tunnel := range tunnels {
		end := TunnelEnd{
			VIPs:      map[netip.Addr]lvs.Tunnel{addrOf(vip4): tunnel, addrOf(vip6): tunnel},
			Addresses: []netip.Addr{addrOf(server4), addrOf(server6)},
		}
		p := newTunnelEnd(t, end)
		end.Directors = []netip.Addr{source4, source6}
		named := newTunnelEnd(t, end)
		end.Directors = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
		others := newTunnelEnd(t, end)
		for _, inner := range []struct{ client, vip string }{{client4, vip4}, {client6, vip6}} {
			for _, server := range []netip.Addr{addrOf(server4), addrOf(server6)} {
				t.Run(fmt.Sprintf("%s/%s by %s", tunnelName(tunnel), inner.vip, server), func(t *testing.T) {
					for _, tags := range [][]vlanTag{nil, {{etherVLAN, 7}}, {{etherService, 7}, {etherVLAN, 8}}} {
						frame := outerFrame(inner.client, inner.vip, server, tunnel, tags...)
						wantEnd(t, p, frame, "decapsulated", xdpPass, innerFrame(inner.client, inner.vip, tags...))
						wantEnd(t, named, frame, "decapsulated", xdpPass, innerFrame(inner.client, inner.vip, tags...))
						wantEnd(t, others, frame, "not-a-director", xdpPass, frame)
					}
					foreign := outerFrame(inner.client, inner.vip, server.Next(), tunnel)
					wantEnd(t, p, foreign, "other", xdpPass, foreign)
					plain := innerFrame(inner.client, inner.vip)
					wantEnd(t, p, plain, "other", xdpPass, plain)
					elsewhere := map[string]string{vip4: "192.0.2.78:80", vip6: "[2001:db8:2::78]:80"}[inner.vip]
					frame := outerFrame(inner.client, elsewhere, server, tunnel)
					wantEnd(t, p, frame, "other", xdpPass, frame)
					wantCutShort(t, p, outerFrame(inner.client, inner.vip, server, tunnel))
					wantSound(t, p, outerFrame(inner.client, inner.vip, server, tunnel), tunnel)
				})
			}
		}
	}
}

// wantCutShort wants a frame that ends too early to be left alone.
func wantCutShort(t *testing.T, p *TunnelEndProgram, frame []byte) {
	t.Helper()
	for length := ethernetHeader; length < len(frame); length++ {
		_, out, err := p.Run(frame[:length])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out, frame[:length]) {
			t.Errorf("the first %d bytes of %d became %x", length, len(frame), out)
		}
	}
}

// wantSound wants a wrong checksum to be noticed.
func wantSound(t *testing.T, p *TunnelEndProgram, frame []byte, tunnel lvs.Tunnel) {
	t.Helper()
	if tunnel.Checksum == lvs.NoChecksum || tunnel.Type == lvs.IPIP {
		return
	}
	frame[len(frame)-1] ^= 1
	wantEnd(t, p, frame, "checksum", xdpDrop, nil)
}

// A VIP's packets come through its own tunnel alone.
func TestTunnelEndTypes(t *testing.T) {
	for _, tunnel := range tunnels {
		p := newTunnelEnd(t, TunnelEnd{
			VIPs:      map[netip.Addr]lvs.Tunnel{addrOf(vip4): tunnel},
			Addresses: []netip.Addr{addrOf(server4)},
		})
		for _, other := range append(slices.Clone(tunnels), lvs.Tunnel{Type: lvs.GUE, Port: 6081}) {
			frame := outerFrame(client4, vip4, addrOf(server4), other)
			if other.Type == tunnel.Type && other.Port == tunnel.Port {
				wantEnd(t, p, frame, "decapsulated", xdpPass, innerFrame(client4, vip4))
			} else {
				wantEnd(t, p, frame, "other", xdpPass, frame)
			}
		}
	}
}

func TestTunnelEndLeavesAlone(t *testing.T) {
	to := addrOf(server4)
	end := func(tunnel lvs.Tunnel) *TunnelEndProgram {
		return newTunnelEnd(t, TunnelEnd{VIPs: map[netip.Addr]lvs.Tunnel{addrOf(vip4): tunnel}, Addresses: []netip.Addr{to}})
	}
	ipip, gue, gre := end(tunnels[0]), end(tunnels[1]), end(tunnels[4])
	const outer, shim = 14, 34
	for _, test := range []struct {
		name   string
		p      *TunnelEndProgram
		tunnel lvs.Tunnel
		at     int
		to     byte
		what   string
	}{
		{"fragment", ipip, tunnels[0], outer + 6, 0x20, "fragment"},
		{"outer options", ipip, tunnels[0], outer, 0x46, "other"},
		{"outer length", ipip, tunnels[0], outer + 3, 30, "other"},
		{"inner version", ipip, tunnels[0], outer + 20, 0x65, "other"},
		{"inner header", ipip, tunnels[0], outer + 20, 0x44, "other"},
		{"inner length", ipip, tunnels[0], outer + 20 + 2, 0x10, "other"},
		{"gue version", gue, tunnels[1], shim + 8, 0x40, "options"},
		{"gue control", gue, tunnels[1], shim + 8, 0x20, "options"},
		{"gue options", gue, tunnels[1], shim + 8, 1, "options"},
		{"gue flags", gue, tunnels[1], shim + 10, 1, "options"},
		{"gue protocol", gue, tunnels[1], shim + 9, 6, "other"},
		{"udp length", gue, tunnels[1], shim + 5, 9, "other"},
		{"gre key", gre, tunnels[4], shim, 0x20, "options"},
		{"gre sequence", gre, tunnels[4], shim, 0x10, "options"},
		{"gre version", gre, tunnels[4], shim + 1, 1, "options"},
		{"gre protocol", gre, tunnels[4], shim + 2, 0x65, "other"},
	} {
		t.Run(test.name, func(t *testing.T) {
			frame := changed(outerFrame(client4, vip4, to, test.tunnel), test.at, test.to)
			wantEnd(t, test.p, frame, test.what, xdpPass, frame)
		})
	}
}

// RFC 6040, figure 4: the inner packet is marked if the outer one is, and dropped if
// it may not be marked.
func TestTunnelEndCongestion(t *testing.T) {
	p := newTunnelEnd(t, TunnelEnd{
		VIPs:      map[netip.Addr]lvs.Tunnel{addrOf(vip4): {}, addrOf(vip6): {}},
		Addresses: []netip.Addr{addrOf(server4)},
	})
	for inner := range byte(4) {
		for outer := range byte(4) {
			frame4 := outerFrame(client4, vip4, addrOf(server4), lvs.Tunnel{})
			frame4[15], frame4[35] = outer, 0xb8|inner
			setIPv4Checksum(frame4[34:])
			want4 := innerFrame(client4, vip4)
			want4[15] = 0xb8 | inner
			frame6 := outerFrame(client6, vip6, addrOf(server4), lvs.Tunnel{})
			frame6[15], frame6[35] = outer, inner<<4
			want6 := innerFrame(client6, vip6)
			want6[15] = inner << 4
			switch {
			case outer == 3 && inner == 0:
				wantEnd(t, p, frame4, "congestion", xdpDrop, nil)
				wantEnd(t, p, frame6, "congestion", xdpDrop, nil)
				continue
			case outer == 3:
				want4[15], want6[15] = 0xbb, 3<<4
			}
			setIPv4Checksum(want4[14:])
			wantEnd(t, p, frame4, "decapsulated", xdpPass, want4)
			wantEnd(t, p, frame6, "decapsulated", xdpPass, want6)
		}
	}
}
