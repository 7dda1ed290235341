package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// wantFragments puts fragments through a plane and compares what leaves.
func wantFragments(t *testing.T, p *Plane, in, want [][]byte, verdict string) {
	t.Helper()
	for i, fragment := range in {
		out := wantVerdict(t, p, fragment, verdict, xdpTX)
		if diff := cmp.Diff(want[i], out); diff != "" {
			t.Errorf("fragment %d (-want +got):\n%s", i, diff)
		}
	}
}

// fromServerAll is fromServer for each frame.
func fromServerAll(frames [][]byte, server string) [][]byte {
	for _, frame := range frames {
		fromServer(frame, server)
	}
	return frames
}

// Fragments are translated as the whole would have been, both ways, and count as
// what they are together.
func TestMasqueradesFragments(t *testing.T) {
	testTranslatesFragments(t, masqueradedPlane(t))
}

func TestFullNATOfFragments(t *testing.T) {
	testTranslatesFragments(t, fullNATPlane(t, true))
}

func testTranslatesFragments(t *testing.T, p *Plane) {
	const size = 64
	for family, m := range masqueradings {
		for i, upper := range upperLayers() {
			if upper.protocol == protoSCTP {
				continue // its ports are translated
			}
			t.Run(family+" "+upper.name, func(t *testing.T) {
				id := uint32(100 + i)
				local, _ := ends(wantVerdict(t, p, sealed(ip(m.client, m.vip, upper.protocol, upper.first(m.client, m.vip))), "forward", xdpTX))
				whole := sealed(ip(m.client, m.vip, upper.protocol, upper.build(m.client, m.vip)))
				service := tcpService
				if upper.protocol == protoUDP {
					service = udpService
				}
				key := service(m.vip, lvs.RoundRobin).ServiceKey
				was := countersOf(t, p, key)
				wantFragments(t, p, fragments(whole, id, size),
					fragments(sentTo(ip(local, m.server, upper.protocol, upper.build(local, m.server)), serverMAC(addrOf(m.server))), id, size),
					"forward")
				wantFragments(t, p,
					fromServerAll(fragments(sealed(ip(m.server, local, upper.protocol, upper.build(m.server, local))), id, size), m.server),
					fragments(sentTo(ip(m.vip, m.client, upper.protocol, upper.build(m.vip, m.client)), clientMAC), id, size),
					"forward-reply")
				length := uint64(len(whole) - 14)
				want := was.Add(lvs.Counters{InPackets: 1, InBytes: length, OutPackets: 1, OutBytes: length})
				if got := countersOf(t, p, key); got != want {
					t.Errorf("counted %+v, want %+v", got, want)
				}
				checkTable(t, p)
			})
		}
	}
}

// A first fragment that came without a checksum leaves without one: it would be of
// the whole datagram.
func TestMasqueradesFragmentsWithoutChecksum(t *testing.T) {
	p := masqueradedPlane(t)
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			cut := fragments(udpFrame(m.client, m.vip, make([]byte, 300)...), 7, 64)
			for i, fragment := range cut {
				out := wantVerdict(t, p, fragment, "forward", xdpTX)
				if upper := len(out) - 64; i == 0 && binary.BigEndian.Uint16(out[upper+6:]) != 0 {
					t.Errorf("the first fragment got the checksum %#x", out[upper+6:upper+8])
				}
			}
		})
	}
}

// The checksum of SCTP is of the whole packet: fragments are refused where it would
// change, and pass where it would not.
func TestMasqueradesFragmentsOfSCTP(t *testing.T) {
	p := masqueradedPlane(t)
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			same := netip.AddrPortFrom(addrOf(m.vip), 8080).String()
			masquerade(t, p, sctpService(same, lvs.RoundRobin), m.server)
			build := upperLayers()[2].build
			wantVerdict(t, p, sctpFrame(m.client, m.vip, chunkInit), "forward", xdpTX)
			translated := fragments(sealed(ip(m.client, m.vip, protoSCTP, build(m.client, m.vip))), 1, 64)
			wantVerdict(t, p, translated[0], "drop-fragment-ports", xdpDrop)
			wantVerdict(t, p, translated[1], "drop-fragment", xdpDrop)
			client := netip.AddrPortFrom(addrOf(m.client), 1025).String()
			wantVerdict(t, p, sctpFrame(client, same, chunkInit), "forward", xdpTX)
			wantFragments(t, p, fragments(sealed(ip(client, same, protoSCTP, build(client, same))), 2, 64),
				fragments(sentTo(ip(client, m.server, protoSCTP, build(client, m.server)), serverMAC(addrOf(m.server))), 2, 64), "forward")
			wantFragments(t, p, fromServerAll(fragments(sealed(ip(m.server, client, protoSCTP, build(m.server, client))), 3, 64), m.server),
				fragments(sentTo(ip(same, client, protoSCTP, build(same, client)), clientMAC), 3, 64), "forward-reply")
		})
	}
}

// A reply's fragment that comes before the first one waits, as a client's does; what
// a real server sends to others is the host's.
func TestEarlyFragmentsOfReplies(t *testing.T) {
	p := masqueradedPlane(t)
	held := heldBy(t, p)
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			wantVerdict(t, p, udpFrame(m.client, m.vip, 1), "forward", xdpTX)
			reply := fromServerAll(fragments(udpFrame(m.server, m.client, make([]byte, 300)...), 9, 128), m.server)
			wantVerdict(t, p, reply[1], "hold-fragment", xdpDrop)
			if f := <-held; f.Datagram.Source != addrOf(m.server) || f.Datagram.Destination != addrOf(m.client) {
				t.Errorf("handed over %s", f.Datagram)
			}
			wantVerdict(t, p, reply[0], "forward-reply", xdpTX)
			if f := <-held; f.Frame != nil {
				t.Errorf("handed over a frame of %d bytes, want the word that the first fragment came", len(f.Frame))
			}
			for _, later := range reply[1:] {
				wantVerdict(t, p, later, "forward-reply", xdpTX)
			}
			other := netip.AddrPortFrom(addrOf(m.client).Next(), 53).String()
			own := fromServerAll(fragments(udpFrame(m.server, other, make([]byte, 300)...), 10, 128), m.server)
			wantVerdict(t, p, own[0], "pass-no-service", xdpPass)
			wantVerdict(t, p, own[1], "pass-fragment", xdpPass)
		})
	}
}

// The addresses of masqueraded real servers are known as long as connections to them
// can be, and no longer.
func TestPartiesOfReplies(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1000)
	defer func() { mustClose(t, p) }()
	m := masqueradings["ipv4"]
	wantRoles := func(addr string, want directorParty) {
		t.Helper()
		if got := storedParties(t, p)[addrOf(addr)]; got != want {
			t.Errorf("%s is %d, want %d", addr, got, want)
		}
	}
	first, second := udpService(m.vip, lvs.RoundRobin), tcpService(m.vip, lvs.RoundRobin)
	mustAddService(t, p, first)
	rs := mustAddServer(t, p, first, m.server, 1)
	wantRoles(m.server, 0)
	rs.Method = lvs.Masquerading
	if err := p.EditServer(first.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
	masquerade(t, p, second, m.server)
	// A real server that has the address of a service.
	masquerade(t, p, udpService(m.server, lvs.RoundRobin), m.server)
	wantRoles(m.server, directorPartyPARTY_VIRTUAL|directorPartyPARTY_SERVER)
	if err := p.DeleteService(udpService(m.server, lvs.RoundRobin).ServiceKey); err != nil {
		t.Fatal(err)
	}
	wantRoles(m.server, directorPartyPARTY_SERVER)
	rs.Method = lvs.DirectRouting
	if err := p.EditServer(first.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
	for _, key := range []lvs.ServiceKey{first.ServiceKey, second.ServiceKey} {
		if err := p.DeleteService(key); err != nil {
			t.Fatal(err)
		}
	}
	wantRoles(m.server, directorPartyPARTY_SERVER)
	mustClose(t, p)
	p = reopenPlane(t, dir)
	wantRoles(m.server, directorPartyPARTY_SERVER)
	wantRoles(m.vip, 0)
	if err := p.dropRemoved(); err != nil {
		t.Fatal(err)
	}
	wantRoles(m.server, 0)
	if all := storedParties(t, p); len(all) != 0 {
		t.Errorf("addresses %v are left", all)
	}
}
