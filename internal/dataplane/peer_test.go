package dataplane

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// from returns the frame as it comes from another MAC address.
func from(mac lvs.MAC, frame []byte) []byte {
	frame = bytes.Clone(frame)
	copy(frame[6:], mac[:])
	return frame
}

// What a peer forwarded is for the host: with a connection of this director's and
// without, in both families and protocols; and it leaves no trace but its count.
func TestPeersAreLeftToTheHost(t *testing.T) {
	peer := lvs.MAC{2, 0, 0, 0, 0, 0x12}
	// These pass the filter, and are no peers.
	lookalikes := []lvs.MAC{{2, 0, 0, 0, 0, 0x32}, {2, 0, 0, 1, 0, 0x12}, {}}
	for _, family := range []struct{ name, client, vip, server string }{
		{"ipv4", client4, vip4, server4}, {"ipv6", client6, vip6, server6},
	} {
		t.Run(family.name, func(t *testing.T) {
			p := newTestPlane(t)
			for _, svc := range []lvs.Service{tcpService(family.vip, lvs.RoundRobin), udpService(family.vip, lvs.RoundRobin)} {
				mustAddService(t, p, svc)
				mustAddServer(t, p, svc, family.server, 1)
			}
			frames := [][]byte{
				tcpFrame(family.client, family.vip, "S"), tcpFrame(family.client, family.vip, "A"),
				tcpFrame(family.client, family.vip, "F"), udpFrame(family.client, family.vip),
			}
			pass := func() {
				t.Helper()
				for _, frame := range frames {
					if out := wantVerdict(t, p, from(peer, frame), "pass-peer", xdpPass); !bytes.Equal(out, from(peer, frame)) {
						t.Errorf("passed to the host as\n%x, came as\n%x", out, from(peer, frame))
					}
				}
			}
			if err := p.AddPeerMAC(peer); err != nil {
				t.Fatal(err)
			}
			before := tell(t, p)
			pass() // no connection is known
			wantVerdict(t, p, from(peer, tcpFrame(family.client, netip.AddrPortFrom(addrOf(family.vip), 81).String(), "S")), "pass-no-service", xdpPass)
			if diff := diffPlanes(before, tell(t, p)); diff != "" {
				t.Errorf("frames of a peer left (-want +got):\n%s", diff)
			}
			for _, mac := range append(lookalikes, clientMAC) {
				for _, frame := range frames {
					wantVerdict(t, p, from(mac, frame), "forward", xdpTX)
				}
			}
			before = tell(t, p)
			pass() // connections are known
			if diff := diffPlanes(before, tell(t, p)); diff != "" {
				t.Errorf("frames of a peer changed a connection (-want +got):\n%s", diff)
			}
			if err := p.DeletePeerMAC(peer); err != nil {
				t.Fatal(err)
			}
			wantVerdict(t, p, from(peer, frames[0]), "forward", xdpTX)
			if filter := p.settings().PeerFilter; filter != 0 {
				t.Errorf("without peers the filter is %#x", filter)
			}
		})
	}
}

// A peer's frame comes through a VLAN as any other.
func TestPeerOnVLAN(t *testing.T) {
	p := servedPlane(t)
	if err := p.AddPeerMAC(clientMAC); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p, segment{client: client4, vip: vip4, flags: "S", tags: []uint16{7}}.frame(t), "pass-peer", xdpPass)
}

// Every bit of the filter finds its MAC addresses.
func TestPeerFilter(t *testing.T) {
	p := servedPlane(t)
	frame := tcpFrame(client4, vip4, "S")
	for last := range 256 {
		mac := lvs.MAC{2, 0, 0x5e, 0x10, 0xff, byte(last)}
		if err := p.AddPeerMAC(mac); err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, p, from(mac, frame), "pass-peer", xdpPass)
		if err := p.DeletePeerMAC(mac); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeersOutliveThePlane(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1)
	named := map[netip.Addr]lvs.MAC{
		netip.MustParseAddr("192.0.2.12"): {2, 0, 0, 0, 0, 0x12}, netip.MustParseAddr("2001:db8::13"): {},
	}
	macs := []lvs.MAC{{2, 0, 0, 0, 0, 0x12}, {2, 0, 0, 0, 0, 0x14}}
	for addr := range named {
		if err := p.SetPeer(addr, lvs.MAC{1}); err != nil {
			t.Fatal(err)
		}
	}
	for addr, mac := range named {
		if err := p.SetPeer(addr, mac); err != nil {
			t.Fatal(err)
		}
	}
	for _, mac := range macs {
		if err := errors.Join(p.AddPeerMAC(mac), p.AddPeerMAC(mac)); err != nil {
			t.Fatal(err)
		}
	}
	filter := p.settings().PeerFilter
	p.settings().PeerFilter = 0 // as a director leaves it that is killed in between
	mustClose(t, p)

	p = reopenPlane(t, dir)
	gotMACs, err := p.PeerMACs()
	slices.SortFunc(gotMACs, func(a, b lvs.MAC) int { return bytes.Compare(a[:], b[:]) })
	if err != nil || !slices.Equal(gotMACs, macs) {
		t.Errorf("MAC addresses %v, %v, want %v", gotMACs, err, macs)
	}
	if got := p.settings().PeerFilter; got != filter || got == 0 {
		t.Errorf("filter %#x, want %#x", got, filter)
	}
	got, err := p.Peers()
	if err != nil || !maps.Equal(got, named) {
		t.Errorf("peers %v, %v, want %v", got, err, named)
	}
	for range 2 { // the second time there is nothing to delete
		for addr := range named {
			if err := p.DeletePeer(addr); err != nil {
				t.Error(err)
			}
		}
		for _, mac := range macs {
			if err := p.DeletePeerMAC(mac); err != nil {
				t.Error(err)
			}
		}
	}
	if got, err := p.Peers(); err != nil || len(got) != 0 {
		t.Errorf("left: %v, %v", got, err)
	}
	for i := range directorLimitMAX_PEERS + 1 {
		err = p.SetPeer(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), lvs.MAC{})
		if err != nil {
			break
		}
	}
	if !errors.Is(err, lvs.ErrTableFull) {
		t.Errorf("one peer too many: %v", err)
	}
}

// A real server that is this host gets its packets from the host's stack: as they
// came, with a connection that is kept and counted as any other's.
func TestLocalServer(t *testing.T) {
	for _, family := range []struct{ name, client, vip, server string }{
		{"ipv4", client4, vip4, server4}, {"ipv6", client6, vip6, server6},
	} {
		t.Run(family.name, func(t *testing.T) {
			p := newTestPlane(t)
			for _, svc := range []lvs.Service{tcpService(family.vip, lvs.RoundRobin), udpService(family.vip, lvs.RoundRobin)} {
				mustAddService(t, p, svc)
				mustAddServer(t, p, svc, family.server, 1)
			}
			local := lvs.NextHop{Local: true}
			if err := p.SetNextHop(addrOf(family.server), local); err != nil {
				t.Fatal(err)
			}
			for _, frame := range [][]byte{
				tcpFrame(family.client, family.vip, "S"), tcpFrame(family.client, family.vip, "A"),
				tcpFrame(family.client, family.vip, "PA", 1, 2, 3), udpFrame(family.client, family.vip), udpFrame(family.client, family.vip),
			} {
				if out := wantVerdict(t, p, frame, "pass-local", xdpPass); !bytes.Equal(out, frame) {
					t.Errorf("passed to the host as\n%x, came as\n%x", out, frame)
				}
			}
			services := mustServices(t, p)
			for i, want := range []struct {
				packets          uint64
				active, inactive uint32
			}{{3, 1, 0}, {2, 0, 1}} {
				got := services[i].Servers[0]
				if got.NextHop != local || !got.NextHop.Usable() {
					t.Errorf("next hop %+v, want %+v", got.NextHop, local)
				}
				if got.Counters.Connections != 1 || got.Counters.InPackets != want.packets ||
					got.Active != want.active || got.Inactive != want.inactive {
					t.Errorf("%s: %+v, want %+v", services[i].ServiceKey, got, want)
				}
			}
			states := map[lvs.ConnectionState]int{}
			for c := range p.Connections() {
				states[c.State]++
			}
			if !maps.Equal(states, map[lvs.ConnectionState]int{lvs.StateEstablished: 1, lvs.StateUDP: 1}) {
				t.Errorf("connections in states %v", states)
			}
			// The address moved to another host, and back.
			setHop(t, p, family.server, lvs.NextHop{})
			wantVerdict(t, p, tcpFrame(family.client, family.vip, "A"), "forward", xdpTX)
			if err := p.SetNextHop(addrOf(family.server), local); err != nil {
				t.Fatal(err)
			}
			wantVerdict(t, p, tcpFrame(family.client, family.vip, "A"), "pass-local", xdpPass)
			e, err := p.Explain(tcpFrame(family.client, family.vip, "A"), testIfindex)
			if err != nil || e.Verdict != "pass-local" || e.Out != nil || e.Choice.Server.Address != addrOf(family.server) {
				t.Errorf("explained %+v, %v", e, err)
			}
		})
	}
}
