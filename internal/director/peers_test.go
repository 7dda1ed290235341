package director

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A segment answers a watcher's questions: each address with its own MAC address.
type segment struct {
	bench
	hops map[netip.Addr]lvs.NextHop
}

func newSegment(t *testing.T, p *memoryPlane) segment {
	t.Helper()
	s := segment{newBench(t, p), map[netip.Addr]lvs.NextHop{ownIP: {Local: true}}}
	s.watcher.answer = func(addr netip.Addr) { s.Director.hops.learn(addr, s.hop(addr)) }
	return s
}

func (s segment) hop(addr netip.Addr) lvs.NextHop {
	if hop, ok := s.hops[addr]; ok {
		return hop
	}
	return lvs.NextHop{InterfaceIndex: 2, InterfaceName: "eth0", MTU: 1500, Destination: macAt(addr)}
}

// becomes tells the director another next hop of an address.
func (s segment) becomes(addr netip.Addr, hop lvs.NextHop) {
	s.hops[addr] = hop
	s.Director.hops.learn(addr, hop)
}

func macAt(addr netip.Addr) lvs.MAC {
	b := addr.As16()
	return lvs.MAC{2, 0, 0, 0, 0, b[15]}
}

func (s segment) guards(t *testing.T, what string, want ...netip.Addr) {
	t.Helper()
	macs := map[lvs.MAC]bool{}
	for _, addr := range want {
		macs[macAt(addr)] = true
	}
	if !maps.Equal(s.plane.peerMACs, macs) {
		t.Errorf("%s: guarded against %v, want %v", what, s.plane.peerMACs, macs)
	}
}

var (
	rs1, rs2 = netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")
	rs3      = netip.MustParseAddr("192.0.2.13")
	behind   = lvs.NextHop{InterfaceIndex: 2, MTU: 1500, Destination: lvs.MAC{2, 9}, Gateway: netip.MustParseAddr("192.0.2.254")}
	silent   = lvs.NextHop{Problem: "does not answer"}
)

// The real servers beside one that is this host are peers, as long as there is one.
func TestServersBesideALocalOneArePeers(t *testing.T) {
	s, ctx := newSegment(t, newMemoryPlane()), t.Context()
	s.hops[rs3] = behind
	own := routed(ownIP.String(), 80)
	s.must(t, s.AddService(ctx, wlc(vip)), s.AddServer(ctx, vip, routed(rs1.String(), 80)), s.AddServer(ctx, vip, routed(rs3.String(), 80)))
	s.guards(t, "no local real server")
	s.must(t, s.AddServer(ctx, vip, own))
	s.guards(t, "a local one, one beside it, one behind a router", rs1)
	s.must(t, s.AddServer(ctx, vip, routed(rs2.String(), 80)))
	s.guards(t, "one more", rs1, rs2)

	peers, err := s.Peers(ctx)
	want := []lvs.Peer{{Address: rs1, MAC: macAt(rs1), Interface: "eth0"}, {Address: rs2, MAC: macAt(rs2), Interface: "eth0"}}
	if err != nil || !slices.Equal(peers, want) {
		t.Errorf("peers %+v, %v, want %+v", peers, err, want)
	}
	s.becomes(rs1, silent)
	s.guards(t, "one fell silent: its last MAC address is remembered", rs1, rs2)
	s.becomes(rs1, behind)
	s.guards(t, "one moved behind a router", rs2)
	s.becomes(ownIP, lvs.NextHop{InterfaceIndex: 2, MTU: 1500, Destination: macAt(ownIP)})
	s.guards(t, "the local one's address moved away")
	s.becomes(ownIP, lvs.NextHop{Local: true})
	s.guards(t, "and back", rs2)
	s.must(t, s.DeleteServer(ctx, vip, own.RealServerKey))
	s.guards(t, "the local one deleted")
	if peers, err := s.Peers(ctx); err != nil || len(peers) != 0 {
		t.Errorf("peers left: %+v, %v", peers, err)
	}
}

func TestConfiguredPeers(t *testing.T) {
	s, ctx := newSegment(t, newMemoryPlane()), t.Context()
	s.hops[rs3] = behind
	expect(t, s.DeletePeer(ctx, rs1), lvs.ErrNoPeer, "delete peer 192.0.2.11")
	expect(t, s.AddPeer(ctx, ownIP), lvs.ErrInvalid, "address of this director")
	expect(t, s.AddPeer(ctx, netip.MustParseAddr("224.0.0.1")), lvs.ErrInvalid, "unicast")
	s.must(t, s.AddPeer(ctx, rs1), s.AddPeer(ctx, rs3))
	expect(t, s.AddPeer(ctx, rs1), lvs.ErrPeerExists, "add peer 192.0.2.11")
	s.guards(t, "added", rs1)
	s.watched(t, rs1, rs3)
	if want := map[netip.Addr]lvs.MAC{rs1: macAt(rs1), rs3: {}}; !maps.Equal(s.plane.peers, want) {
		t.Errorf("remembered %v, want %v", s.plane.peers, want)
	}
	peers, err := s.Peers(ctx)
	if err != nil || len(peers) != 2 || !peers[0].Configured || peers[0].Problem != "" || !strings.Contains(peers[1].Problem, "router 192.0.2.254") {
		t.Errorf("peers %+v, %v", peers, err)
	}

	// A real server too: each is an own reason to watch it.
	s.must(t, s.AddService(ctx, wlc(vip)), s.AddServer(ctx, vip, routed(rs1.String(), 80)), s.AddServer(ctx, vip, routed(rs2.String(), 80)))
	s.must(t, s.DeletePeer(ctx, rs1))
	s.guards(t, "deleted, still a real server")
	s.must(t, s.AddPeer(ctx, rs1))
	s.guards(t, "a real server is added", rs1)
	if want := macAt(rs1); s.plane.peers[rs1] != want {
		t.Errorf("remembered %v, want %v", s.plane.peers[rs1], want)
	}
	s.must(t, s.Clear(ctx))
	s.watched(t, rs1, rs3)
	s.guards(t, "no longer a real server", rs1)

	other := lvs.NextHop{InterfaceIndex: 2, MTU: 1500, Destination: macAt(rs2)}
	s.becomes(rs1, other)
	s.guards(t, "another network card", rs2)
	if s.plane.peers[rs1] != macAt(rs2) {
		t.Errorf("remembered %v of the other card", s.plane.peers[rs1])
	}
	// Two peers behind one MAC address.
	s.hops[rs2] = other
	s.must(t, s.AddPeer(ctx, rs2), s.DeletePeer(ctx, rs1))
	s.guards(t, "one of two deleted", rs2)
	s.must(t, s.DeletePeer(ctx, rs2), s.DeletePeer(ctx, rs3))
	s.guards(t, "all deleted")
	s.watched(t)
	if len(s.plane.peers) != 0 {
		t.Errorf("remembered %v", s.plane.peers)
	}

	s.plane.fail = errPlane
	if err := s.AddPeer(ctx, rs1); !errors.Is(err, errPlane) {
		t.Errorf("add peer: got %v", err)
	}
	s.watched(t)
}

// A director that starts guards against whom its predecessor did, until it knows
// better itself.
func TestPeersAreTakenOver(t *testing.T) {
	first, ctx := newSegment(t, newMemoryPlane()), t.Context()
	own := routed(ownIP.String(), 80)
	first.must(t, first.AddPeer(ctx, rs3), first.AddService(ctx, wlc(vip)),
		first.AddServer(ctx, vip, own), first.AddServer(ctx, vip, routed(rs1.String(), 80)), first.AddServer(ctx, vip, routed(rs2.String(), 80)))
	first.guards(t, "the first director", rs1, rs2, rs3)

	second := segment{newBench(t, first.plane), first.hops}
	second.watched(t, ownIP, rs1, rs2, rs3)
	second.guards(t, "nothing is known", rs1, rs2, rs3)
	second.becomes(rs3, silent)
	second.becomes(rs1, behind)
	second.becomes(ownIP, lvs.NextHop{Local: true})
	second.guards(t, "all but one known", rs1, rs2, rs3)
	second.becomes(rs2, second.hop(rs2))
	second.guards(t, "all known; the silent one is remembered", rs2, rs3)
	expect(t, second.AddPeer(ctx, rs3), lvs.ErrPeerExists, "")
	second.must(t, second.DeletePeer(ctx, rs3))
	second.guards(t, "deleted", rs2)

	// One that was guarded against, and is no real server any more.
	second.must(t, second.DeleteServer(ctx, vip, own.RealServerKey))
	second.plane.peerMACs[macAt(rs3)] = true
	third := segment{newBench(t, second.plane), first.hops}
	for _, addr := range []netip.Addr{rs1, rs2} {
		third.becomes(addr, third.hop(addr))
	}
	third.guards(t, "nobody is a peer")
}

// With a real kernel: a real server at the director's own address, a peer, and what
// a restart leaves of both.
func TestPeersOfADaemon(t *testing.T) {
	director, server := newWire(t)
	runDir := newRunDir(t)
	client, ctx := connect(t, runDir)
	first := director.startDirector(t, runDir)
	err := errors.Join(client.AddPeer(ctx, rs1), client.AddPeer(ctx, rs2), client.AddService(ctx, wlc(vip)),
		client.AddServer(ctx, vip, routed("192.0.2.10", 80)), client.AddServer(ctx, vip, routed("192.0.2.11", 80)))
	if err != nil {
		t.Fatal(err)
	}
	service, err := client.Service(ctx, vip)
	if err != nil || len(service.Servers) != 2 || !service.Servers[1].NextHop.Local || service.Servers[1].Method != lvs.DirectRouting {
		t.Errorf("the real server that is the director: %+v, %v", service, err)
	}
	known := func() bool {
		peers, err := client.Peers(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(peers) == 2 && peers[0] == lvs.Peer{Address: rs1, Configured: true, MAC: macOf(t, server), Interface: "eth0"} &&
			strings.Contains(peers[1].Problem, "192.0.2.12 does not answer ARP")
	}
	until(t, "the peers are known", known)
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.Wait()
	director.startDirector(t, runDir)
	until(t, "the peers are known again", known)
	e, err := client.Explain(ctx, lvs.Question{
		Protocol: lvs.TCP, Client: netip.MustParseAddrPort("192.0.2.20:40000"),
		Virtual: netip.AddrPortFrom(vip.Address, vip.Port), Flags: lvs.TCPSyn,
	})
	if err != nil || e.Verdict != "forward" && e.Verdict != "pass-local" {
		t.Errorf("explained %+v, %v", e, err)
	}
	if err := errors.Join(client.Clear(ctx), client.DeletePeer(ctx, rs1), client.DeletePeer(ctx, rs2)); err != nil {
		t.Error(err)
	}
}
