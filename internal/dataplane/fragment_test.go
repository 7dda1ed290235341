package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// fragments cuts a whole frame without options into fragments of that many bytes,
// a multiple of eight; the last one is what remains.
func fragments(frame []byte, id uint32, size int) [][]byte {
	const header = 14
	packet := frame[header:]
	if packet[0]>>4 == 6 {
		return fragments6(frame, id, size)
	}
	var all [][]byte
	payload := packet[20:]
	for at := 0; at < len(payload); at += size {
		piece := payload[at:min(at+size, len(payload))]
		cut := append(slices.Clone(frame[:header+20]), piece...)
		binary.BigEndian.PutUint16(cut[header+2:], uint16(20+len(piece)))
		binary.BigEndian.PutUint16(cut[header+4:], uint16(id))
		offset := uint16(at / 8)
		if at+size < len(payload) {
			offset |= 0x2000
		}
		binary.BigEndian.PutUint16(cut[header+6:], offset)
		setIPv4Checksum(cut[header:])
		all = append(all, cut)
	}
	return all
}

func fragments6(frame []byte, id uint32, size int) [][]byte {
	const header = 14
	packet := frame[header:]
	var all [][]byte
	payload := packet[40:]
	for at := 0; at < len(payload); at += size {
		piece := payload[at:min(at+size, len(payload))]
		cut := slices.Clone(frame[:header+40])
		binary.BigEndian.PutUint16(cut[header+4:], uint16(8+len(piece)))
		cut[header+6] = protoFragment
		offset := uint16(at)
		if at+size < len(payload) {
			offset |= 1
		}
		extension := []byte{packet[6], 0}
		extension = binary.BigEndian.AppendUint16(extension, offset)
		extension = binary.BigEndian.AppendUint32(extension, id)
		all = append(all, append(append(cut, extension...), piece...))
	}
	return all
}

// A fragmentPath is a client and a UDP service of one family.
type fragmentPath struct{ name, client, vip, server string }

var fragmentPaths = []fragmentPath{
	{"ipv4", "203.0.113.5:4000", "192.0.2.10:53", "198.51.100.11:53"},
	{"ipv6", "[2001:db8:3::5]:4000", "[2001:db8:2::10]:53", "[2001:db8:1::b]:53"},
}

// onBothPaths runs a test for each family, on one plane with a UDP and a TCP
// service of it.
func onBothPaths(t *testing.T, test func(t *testing.T, p *Plane, path fragmentPath)) {
	t.Helper()
	p := newTestPlane(t)
	for _, path := range fragmentPaths {
		serveFragments(t, p, path, udpService(path.vip, lvs.RoundRobin))
		serveFragments(t, p, path, tcpService(path.vip, lvs.RoundRobin))
	}
	for _, path := range fragmentPaths {
		t.Run(path.name, func(t *testing.T) { test(t, p, path) })
	}
}

// serveFragments adds a service with four servers for a path.
func serveFragments(t testing.TB, p *Plane, path fragmentPath, svc lvs.Service) {
	t.Helper()
	mustAddService(t, p, svc)
	ap := netip.MustParseAddrPort(path.server)
	for range 4 {
		mustAddServer(t, p, svc, ap.String(), 1)
		ap = netip.AddrPortFrom(ap.Addr().Next(), ap.Port())
	}
}

// The fragments of a datagram go where the first one went, and count as what they
// are together.
func TestFragmentsFollowTheFirst(t *testing.T) {
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		onePacket := udpService(netip.AddrPortFrom(addrOf(path.vip), 5353).String(), lvs.RoundRobin)
		onePacket.OnePacket = true
		serveFragments(t, p, path, onePacket)
		for _, svc := range []lvs.Service{udpService(path.vip, lvs.RoundRobin), onePacket} {
			vip := netip.AddrPortFrom(svc.Address, svc.Port).String()
			whole := udpFrame(path.client, vip, make([]byte, 5000)...)
			var to lvs.MAC
			for i, fragment := range fragments(whole, uint32(svc.Port), 1400) {
				out := wantVerdict(t, p, fragment, "forward", xdpTX)
				if i == 0 {
					to = lvs.MAC(out[:6])
				}
				if got := lvs.MAC(out[:6]); got != to {
					t.Errorf("fragment %d went to %s, the first one to %s", i, got, to)
				}
			}
			want := lvs.Counters{Connections: 1, InPackets: 1, InBytes: uint64(len(whole) - 14)}
			if got := countersOf(t, p, svc.ServiceKey); got != want {
				t.Errorf("%s: counted %+v, want %+v", vip, got, want)
			}
		}
	})
}

// countersOf returns what a service has counted.
func countersOf(t testing.TB, p *Plane, key lvs.ServiceKey) lvs.Counters {
	t.Helper()
	return statusOf(t, p, key).Counters
}

// A datagram that is not for a service is the host's, in whatever order it comes.
func TestFragmentsOfOthersAreTheHosts(t *testing.T) {
	p := newTestPlane(t)
	serveFragments(t, p, fragmentPaths[0], udpService(fragmentPaths[0].vip, lvs.RoundRobin))
	own := fragments(udpFrame("203.0.113.5:4000", "192.0.2.99:53", make([]byte, 3000)...), 1, 1400)
	slices.Reverse(own)
	for _, fragment := range own {
		wantVerdict(t, p, fragment, "pass-fragment", xdpPass)
	}
	other := fragments(udpFrame("203.0.113.5:4000", "192.0.2.10:99", make([]byte, 3000)...), 2, 1400)
	wantVerdict(t, p, other[0], "pass-no-service", xdpPass)
	for _, fragment := range other[1:] {
		wantVerdict(t, p, fragment, "pass-fragment", xdpPass)
	}
	icmp := ethernet(etherIPv4, ipv4Packet(addrOf("203.0.113.5:0"), addrOf("192.0.2.10:0"), protoICMP, nil, make([]byte, 3000)))
	for _, fragment := range fragments(icmp, 3, 1400) {
		wantVerdict(t, p, fragment, "pass-fragment", xdpPass)
	}
}

// What could make of a datagram another one than it was taken for is dropped, and
// so is the rest of that datagram.
func TestContradictingFragments(t *testing.T) {
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		id := uint32(0)
		cut := func(client string, bytes, size int) [][]byte {
			return fragments(udpFrame(client, path.vip, make([]byte, bytes)...), id, size)
		}
		other := netip.AddrPortFrom(addrOf(path.client), 4001).String()
		for _, test := range []struct {
			name string
			good func() [][]byte
			bad  func() []byte
		}{
			{"another first one", func() [][]byte { return cut(path.client, 3000, 800)[:1] },
				func() []byte { return cut(other, 3000, 800)[0] }},
			{"a first one of another length", func() [][]byte { return cut(path.client, 3000, 800)[:1] },
				func() []byte { return cut(path.client, 3000, 16)[0] }},
			{"into the first one", func() [][]byte { return cut(path.client, 3000, 800)[:1] },
				func() []byte { return cut(path.client, 3000, 16)[1] }},
			{"another last one", func() [][]byte { return slices.Delete(cut(path.client, 3000, 800), 1, 3) },
				func() []byte { return cut(path.client, 5000, 800)[6] }},
			{"beyond the last one", func() [][]byte { return slices.Delete(cut(path.client, 3000, 800), 1, 3) },
				func() []byte { return cut(path.client, 5000, 800)[5] }},
		} {
			id++
			for _, fragment := range test.good() {
				wantVerdict(t, p, fragment, "forward", xdpTX)
			}
			wantVerdict(t, p, test.bad(), "drop-fragment-overlap", xdpDrop)
			wantVerdict(t, p, cut(path.client, 3000, 800)[1], "drop-fragment-overlap", xdpDrop)
			if t.Failed() {
				t.Fatal(test.name)
			}
		}
	})
}

// A first fragment without its ports, or without its flags, is dropped.
func TestTinyFirstFragments(t *testing.T) {
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		segment := tcpFrame(path.client, path.vip, "S", make([]byte, 100)...)
		for _, size := range []int{8, 16} {
			tiny := fragments(segment, uint32(size), size)
			wantVerdict(t, p, tiny[0], "drop-fragment-tiny", xdpDrop)
		}
		whole := fragments(segment, 24, 24)
		wantVerdict(t, p, whole[0], "forward", xdpTX)
		wantVerdict(t, p, whole[1], "forward", xdpTX)
	})
}

// A later fragment changes no state, and ends no connection.
func TestFragmentsOfTCP(t *testing.T) {
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		wantVerdict(t, p, tcpFrame(path.client, path.vip, "S"), "forward", xdpTX)
		for _, fragment := range fragments(tcpFrame(path.client, path.vip, "A", make([]byte, 4000)...), 5, 1200) {
			wantVerdict(t, p, fragment, "forward", xdpTX)
		}
		for c := range p.Connections() {
			if c.State.String() != "ESTABLISHED" {
				t.Errorf("state %s after a fragmented ACK, want ESTABLISHED", c.State)
			}
		}
	})
}

// Fragments of a datagram whose first one was answered or dropped don't reach
// anybody.
func TestFragmentsOfRefusedDatagrams(t *testing.T) {
	for _, path := range fragmentPaths {
		t.Run(path.name, func(t *testing.T) {
			p := newTestPlane(t)
			mustAddService(t, p, udpService(path.vip, lvs.RoundRobin))
			all := fragments(udpFrame(path.client, path.vip, make([]byte, 3000)...), 5, 1200)
			wantVerdict(t, p, all[0], "answer-no-server", xdpTX)
			wantVerdict(t, p, all[1], "drop-fragment", xdpDrop)
			wantVerdict(t, p, all[2], "drop-fragment", xdpDrop)
		})
	}
}

// Knowledge of a datagram ends.
func TestDatagramsAreForgotten(t *testing.T) {
	path := fragmentPaths[0]
	p := newTestPlane(t)
	serveFragments(t, p, path, udpService(path.vip, lvs.RoundRobin))
	all := fragments(udpFrame(path.client, path.vip, make([]byte, 3000)...), 5, 1200)
	wantVerdict(t, p, all[0], "forward", xdpTX)
	p.SetClockOffset(4 * time.Second)
	wantVerdict(t, p, all[1], "forward", xdpTX)
	p.SetClockOffset(6 * time.Second)
	wantVerdict(t, p, all[2], "hold-fragment", xdpDrop)
}

// A flood of half datagrams leaves those of other networks alone.
func TestFloodOfHalfDatagrams(t *testing.T) {
	flooders := map[string]string{"ipv4": "203.0.113.66:99", "ipv6": "[2001:db8:3:66::1]:99"}
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		for i, half := range []string{"first", "last"} {
			began := fragments(udpFrame(path.client, path.vip, make([]byte, 3000)...), uint32(i), 1200)
			wantVerdict(t, p, began[0], "forward", xdpTX)
			counted := verdictDelta(t, p, func() {
				for id := range uint32(5000) {
					flood := fragments(udpFrame(flooders[path.name], path.vip, make([]byte, 100)...), id, 64)
					mustRun(t, p, flood[i])
				}
			})
			t.Logf("the %s halves of 5000 datagrams: %v", half, counted)
			wantVerdict(t, p, began[1], "forward", xdpTX)
			wantVerdict(t, p, began[2], "forward", xdpTX)
			for _, fragment := range fragments(udpFrame(path.client, path.vip, make([]byte, 3000)...), uint32(10+i), 1200) {
				wantVerdict(t, p, fragment, "forward", xdpTX)
			}
		}
	})
}

// heldBy follows the fragments that a plane hands over, until the test ends.
func heldBy(t *testing.T, p *Plane) <-chan HeldFragment {
	t.Helper()
	return followed(t, p.FollowFragments)
}

// What comes before the first fragment is handed over; when that has come, it
// leaves as it would have.
func TestEarlyFragmentsAreHandedOver(t *testing.T) {
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		held := heldBy(t, p)
		all := fragments(udpFrame(path.client, path.vip, make([]byte, 4000)...), 7, 1200)
		want := lvs.Datagram{Source: addrOf(path.client), Destination: addrOf(path.vip), Identification: 7}
		if path.name == "ipv4" {
			want.Protocol = lvs.UDP
		}
		var kept []HeldFragment
		for _, early := range [][]byte{all[3], all[1]} {
			wantVerdict(t, p, early, "hold-fragment", xdpDrop)
			f := <-held
			if f.Datagram != want || f.Interface != testIfindex || !bytes.Equal(f.Frame, early) {
				t.Errorf("handed over %s on %d, %x; want %s, %x", f.Datagram, f.Interface, f.Frame, want, early)
			}
			kept = append(kept, f)
		}
		if out := mustAskForWay(t, p, kept[0].Frame); out != int32(directorResumptionRESUME_LATER) {
			t.Errorf("interface %d before the first fragment came, want none", out)
		}
		wantVerdict(t, p, all[0], "forward", xdpTX)
		if f := <-held; f.Datagram != want || f.Frame != nil {
			t.Errorf("told %s with a frame of %d bytes, want that the first fragment of %s came", f.Datagram, len(f.Frame), want)
		}
		for _, f := range kept {
			if out := mustAskForWay(t, p, f.Frame); out != testIfindex {
				t.Errorf("interface %d after the first fragment came, want %d", out, testIfindex)
			}
			wantVerdict(t, p, f.Frame, "forward", xdpTX)
		}
		wantVerdict(t, p, all[2], "forward", xdpTX)
		if got := countersOf(t, p, udpService(path.vip, lvs.RoundRobin).ServiceKey); got.InPackets != 1 || got.Connections != 1 {
			t.Errorf("counted %+v, want one packet of one connection", got)
		}
	})
}

// mustAskForWay returns what the data plane says of a fragment that is kept.
func mustAskForWay(t *testing.T, p *Plane, frame []byte) int32 {
	t.Helper()
	var out uint32
	counted := verdictDelta(t, p, func() {
		var err error
		if out, _, err = runProgram(p.progs.ResumeFragment, frame, testIfindex); err != nil {
			t.Fatal(err)
		}
	})
	if len(counted) != 0 {
		t.Errorf("the question counted %v", counted)
	}
	return int32(out)
}

// A fragment that was kept, and that the first one then overlaps, goes nowhere.
func TestFirstFragmentOverAnEarlyOne(t *testing.T) {
	onBothPaths(t, func(t *testing.T, p *Plane, path fragmentPath) {
		whole := udpFrame(path.client, path.vip, make([]byte, 4000)...)
		early := fragments(whole, 7, 16)[1]
		wantVerdict(t, p, early, "hold-fragment", xdpDrop)
		wantVerdict(t, p, fragments(whole, 7, 1200)[0], "drop-fragment-overlap", xdpDrop)
		if out := mustAskForWay(t, p, early); out != 0 {
			t.Errorf("interface %d, want 0", out)
		}
		wantVerdict(t, p, early, "drop-fragment-overlap", xdpDrop)
	})
}

// What the director gives up is counted by verdicts, too.
func TestFragmentsGivenUpAreCounted(t *testing.T) {
	p := newTestPlane(t)
	s, err := p.NewFragmentSender()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	counted := verdictDelta(t, p, func() {
		if err := errors.Join(s.GiveUp(3), s.Refuse(2)); err != nil {
			t.Fatal(err)
		}
	})
	if want := map[string]uint64{"drop-fragment-alone": 3, "drop-fragment-lost": 2}; !maps.Equal(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
}

// Fragments wait for a service of a mark, too, and for nobody when it is gone.
func TestFragmentsOfMarkedServices(t *testing.T) {
	p := newTestPlane(t)
	path := fragmentPaths[0]
	all := fragments(udpFrame(path.client, path.vip, make([]byte, 3000)...), 7, 1200)
	wantVerdict(t, p, all[1], "pass-no-services", xdpPass)
	marked := udpService(path.vip, lvs.RoundRobin)
	marked.ServiceKey = lvs.ServiceKey{Mark: 5}
	marked.ServiceKey.Address = addrOf("0.0.0.0:0")
	mustAddService(t, p, marked)
	mustAddServer(t, p, marked, path.server, 1)
	wantVerdict(t, p, all[1], "pass-fragment", xdpPass)
	rule := lvs.MarkRule{
		Mark: 5, Destination: netip.MustParsePrefix("192.0.2.0/24"),
		SourcePorts: lvs.AllPorts, DestinationPorts: lvs.AllPorts,
	}
	if err := p.SetMarkRules([]lvs.MarkRule{rule}); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p, all[1], "hold-fragment", xdpDrop)
	wantVerdict(t, p, all[0], "forward", xdpTX)
	wantVerdict(t, p, all[2], "forward", xdpTX)
}

// storedParties are the addresses whose fragments may be a service's.
func storedParties(t testing.TB, p *Plane) map[netip.Addr]directorParty {
	t.Helper()
	all, err := p.storedParties()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The addresses whose fragments may be a service's are those of the services.
func TestParties(t *testing.T) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 1000)
	want := func(addrs ...string) {
		t.Helper()
		var got []string
		for addr := range storedParties(t, p) {
			got = append(got, addr.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, addrs) {
			t.Errorf("addresses %v, want %v", got, addrs)
		}
	}
	first, second := udpService("192.0.2.10:53", lvs.RoundRobin), tcpService("192.0.2.10:53", lvs.RoundRobin)
	other := udpService("[2001:db8:2::10]:53", lvs.RoundRobin)
	for _, svc := range []lvs.Service{first, second, other} {
		mustAddService(t, p, svc)
	}
	want("192.0.2.10", "2001:db8:2::10")
	if err := p.DeleteService(first.ServiceKey); err != nil {
		t.Fatal(err)
	}
	want("192.0.2.10", "2001:db8:2::10")
	// As a director that was killed in the middle of a change leaves them.
	if err := errors.Join(p.maps.Parties.Delete(toAddress(other.Address)), p.maps.Parties.Put(toAddress(addrOf("192.0.2.99:0")), uint32(1))); err != nil {
		t.Fatal(err)
	}
	mustClose(t, p)
	p = reopenPlane(t, dir)
	want("192.0.2.10", "2001:db8:2::10")
	for _, svc := range []lvs.Service{second, other} {
		if err := p.DeleteService(svc.ServiceKey); err != nil {
			t.Fatal(err)
		}
	}
	want()
}
