package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// A masquerading is a service of one masqueraded real server, and a client of it.
type masquerading struct{ client, vip, server string }

var masqueradings = map[string]masquerading{
	"ipv4": {"203.0.113.5:1024", "192.0.2.10:80", "198.51.100.11:8080"},
	"ipv6": {"[2001:db8:3::5]:1024", "[2001:db8:2::10]:80", "[2001:db8:1::b]:8080"},
}

// masqueradedPlane has both services for TCP, UDP and SCTP.
func masqueradedPlane(t testing.TB) *Plane {
	t.Helper()
	p := newTestPlane(t)
	for _, m := range masqueradings {
		for _, service := range []func(string, lvs.Scheduler) lvs.Service{tcpService, udpService, sctpService} {
			masquerade(t, p, service(m.vip, lvs.RoundRobin), m.server)
		}
	}
	return p
}

// masquerade adds a service and its one real server.
func masquerade(t testing.TB, p *Plane, svc lvs.Service, server string) {
	t.Helper()
	mustTranslate(t, p, svc, server, lvs.Masquerading, false)
}

// mustTranslate adds a service and its one real server, of a method that translates.
func mustTranslate(t testing.TB, p *Plane, svc lvs.Service, server string, method lvs.ForwardingMethod, toa bool) {
	t.Helper()
	mustAddService(t, p, svc)
	rs := mustAddServer(t, p, svc, server, 1)
	rs.Method, rs.TOA = method, toa
	if err := p.EditServer(svc.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
}

// A upperLayer builds a packet of one protocol between two ends.
type upperLayer struct {
	name     string
	protocol byte
	build    func(from, to string) []byte
	first    func(from, to string) []byte
}

func upperLayers() []upperLayer {
	payload := make([]byte, 333)
	for i := range payload {
		payload[i] = byte(i*i + 3)
	}
	return []upperLayer{
		{"tcp", protoTCP,
			func(from, to string) []byte { return tcp(from, to, "A", payload...) },
			func(from, to string) []byte { return tcp(from, to, "S") }},
		{"udp", protoUDP,
			func(from, to string) []byte { return udp(from, to, payload...) },
			func(from, to string) []byte { return udp(from, to, 1, 2, 3) }},
		{"sctp", protoSCTP,
			func(from, to string) []byte { return append(sctp(from, to, chunkData), payload[:332]...) },
			func(from, to string) []byte { return sctp(from, to, chunkInit) }},
	}
}

// sealed is a frame with the checksums of what it holds.
func sealed(frame []byte) []byte {
	packet := frame[14:]
	header, addresses, protocol := 20, packet[12:20], packet[9]
	if packet[0]>>4 == 6 {
		header, addresses, protocol = 40, packet[8:40], packet[6]
	} else {
		setIPv4Checksum(packet)
	}
	upper := packet[header:]
	pseudo := func() []byte {
		sum := append(bytes.Clone(addresses), 0, 0, 0, protocol)
		sum = binary.BigEndian.AppendUint32(sum, uint32(len(upper)))
		return append(sum, upper...)
	}
	switch protocol {
	case protoTCP:
		upper[16], upper[17] = 0, 0
		binary.BigEndian.PutUint16(upper[16:], internetChecksum(pseudo()))
	case protoUDP:
		upper[6], upper[7] = 0, 0
		sum := internetChecksum(pseudo())
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(upper[6:], sum)
	case protoSCTP:
		binary.LittleEndian.PutUint32(upper[8:], 0)
		binary.LittleEndian.PutUint32(upper[8:], crc32.Checksum(upper, crc32.MakeTable(crc32.Castagnoli)))
	}
	return frame
}

// fromServer is a frame that a real server sends to the director.
func fromServer(frame []byte, server string) []byte {
	mac := serverMAC(addrOf(server))
	copy(frame[6:], mac[:])
	return frame
}

// sentTo is the frame as it leaves the director for a MAC address, one hop older.
func sentTo(frame []byte, mac lvs.MAC) []byte {
	return sealed(aged(frame, mac))
}

func TestMasquerades(t *testing.T) {
	p := masqueradedPlane(t)
	for family, m := range masqueradings {
		for _, upper := range upperLayers() {
			t.Run(family+" "+upper.name, func(t *testing.T) {
				for _, build := range []func(from, to string) []byte{upper.first, upper.build, upper.build} {
					in := sealed(ip(m.client, m.vip, upper.protocol, build(m.client, m.vip)))
					out := wantVerdict(t, p, in, "forward", xdpTX)
					want := sentTo(ip(m.client, m.server, upper.protocol, build(m.client, m.server)), serverMAC(addrOf(m.server)))
					if diff := cmp.Diff(want, out); diff != "" {
						t.Errorf("to the real server (-want +got):\n%s", diff)
					}
					in = fromServer(sealed(ip(m.server, m.client, upper.protocol, build(m.server, m.client))), m.server)
					out = wantVerdict(t, p, in, "forward-reply", xdpTX)
					want = sentTo(ip(m.vip, m.client, upper.protocol, build(m.vip, m.client)), clientMAC)
					if diff := cmp.Diff(want, out); diff != "" {
						t.Errorf("to the client (-want +got):\n%s", diff)
					}
				}
				checkTable(t, p)
			})
		}
	}
	services := mustServices(t, p)
	for _, svc := range services {
		c := svc.Servers[0].Counters
		if c.Connections != 1 || c.InPackets != 3 || c.OutPackets != 3 || c.InBytes == 0 || c.OutBytes != c.InBytes {
			t.Errorf("%s: counters %+v, want 1 connection, 3 packets each way", svc.ServiceKey, c)
		}
	}
	conns := slices.Collect(p.Connections())
	if len(conns) != 6 {
		t.Errorf("%d connections, want 6: %+v", len(conns), conns)
	}
	for _, c := range conns {
		if c.Server.Port() != 8080 || c.Packets != 3 {
			t.Errorf("connection %+v, want 3 packets to port 8080", c)
		}
	}
	wantAllOver(t, p)
}

// Every checksum that a header can have, both ways: see RFC 1624 for the corners.
func TestMasqueradingKeepsChecksums(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv4"]
	for _, protocol := range []byte{protoTCP, protoUDP, protoSCTP} {
		build := func(from, to string, n int) []byte {
			upper := udp(from, to, byte(n>>8), byte(n), 9)
			switch protocol {
			case protoTCP:
				upper = tcp(from, to, "SA"[:1+min(n, 1)], byte(n>>8), byte(n), 9)
			case protoSCTP:
				upper = append(sctp(from, to, byte(chunkInit+min(n, 1)*chunkCookieEcho)), byte(n>>8), byte(n), 9, 9)
			}
			return sealed(ip(from, to, protocol, upper))
		}
		for n := range 1 << 16 {
			action, out := mustRun(t, p, build(m.client, m.vip, n))
			want := sentTo(build(m.client, m.server, n), serverMAC(addrOf(m.server)))
			if action != xdpTX || !bytes.Equal(out, want) {
				t.Fatalf("protocol %d, packet %d: action %d, frame\n%x, want\n%x", protocol, n, action, out, want)
			}
		}
	}
}

// A datagram without a checksum gets one, as from IPVS.
func TestMasqueradingMakesUDPChecksums(t *testing.T) {
	p := masqueradedPlane(t)
	for family, m := range masqueradings {
		for _, length := range []int{0, 1, 2, 3, 63, 64, 65, 127, 128, 1000, 1400} {
			t.Run(fmt.Sprint(family, " ", length), func(t *testing.T) {
				payload := bytes.Repeat([]byte{0xa5, 3, 0xff}, length/3+1)[:length]
				out := wantVerdict(t, p, ip(m.client, m.vip, protoUDP, udp(m.client, m.vip, payload...)), "forward", xdpTX)
				want := sentTo(ip(m.client, m.server, protoUDP, udp(m.client, m.server, payload...)), serverMAC(addrOf(m.server)))
				if diff := cmp.Diff(want, out); diff != "" {
					t.Errorf("frame (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// The states of both directions, and what is left of them at the end.
func TestMasqueradedStates(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv4"]
	for _, step := range []struct {
		reply bool
		flags string
		want  lvs.ConnectionState
	}{
		{false, "S", lvs.StateSynRecv},
		{true, "SA", lvs.StateSynRecv},
		{false, "A", lvs.StateEstablished},
		{true, "A", lvs.StateEstablished},
		{false, "FA", lvs.StateCloseWait},
		{true, "FA", lvs.StateTimeWait},
		{false, "A", lvs.StateTimeWait},
	} {
		if step.reply {
			wantVerdict(t, p, fromServer(tcpFrame(m.server, m.client, step.flags), m.server), "forward-reply", xdpTX)
		} else {
			wantVerdict(t, p, tcpFrame(m.client, m.vip, step.flags), "forward", xdpTX)
		}
		conns := slices.Collect(p.Connections())
		if len(conns) != 1 || conns[0].State != step.want {
			t.Fatalf("after %s (reply: %t): connections %+v, want one in state %s", step.flags, step.reply, conns, step.want)
		}
		checkTable(t, p)
	}
	// The same ports begin anew, and so does the way back.
	wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX)
	checkTable(t, p)
	if found := mustSweep(t, p); found.Used != 2 {
		t.Errorf("%d entries in use, want the connection's and the replies'", found.Used)
	}
	wantVerdict(t, p, fromServer(tcpFrame(m.server, m.client, "SA"), m.server), "forward-reply", xdpTX)
}

// Replies keep a connection alive, and without one they go to the host.
func TestRepliesOfNoConnection(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv6"]
	reply := fromServer(udpFrame(m.server, m.client, 1), m.server)
	wantVerdict(t, p, reply, "pass-no-service", xdpPass)
	wantVerdict(t, p, udpFrame(m.client, m.vip, 1), "forward", xdpTX)
	for range 3 {
		advance(p, 200*time.Second)
		mustSweep(t, p)
		wantVerdict(t, p, reply, "forward-reply", xdpTX)
	}
	advance(p, 301*time.Second)
	wantVerdict(t, p, reply, "pass-no-connection", xdpPass)
	mustSweep(t, p)
	wantVerdict(t, p, reply, "pass-no-service", xdpPass)
	checkTable(t, p)
}

// One client at two virtual addresses with the same port: the real server cannot
// tell the two apart, and the newer one has the replies.
func TestNewerConnectionHasTheReplies(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv4"]
	const other = "192.0.2.11:80"
	masquerade(t, p, tcpService(other, lvs.RoundRobin), m.server)
	for _, vip := range []string{m.vip, other, m.vip} {
		wantVerdict(t, p, tcpFrame(m.client, vip, "S"), "forward", xdpTX)
		out := wantVerdict(t, p, fromServer(tcpFrame(m.server, m.client, "SA"), m.server), "forward-reply", xdpTX)
		want := addrOf(vip)
		if vip == m.vip && len(slices.Collect(p.Connections())) == 2 {
			want = addrOf(other) // a SYN again is of the older connection
		}
		if got := netip.AddrFrom4([4]byte(out[26:30])); got != want {
			t.Errorf("reply from %s, want %s", got, want)
		}
	}
	wantAllOver(t, p)
}

// A connection keeps the method that it began with.
func TestMethodIsTheConnections(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv4"]
	svc := tcpService(m.vip, lvs.RoundRobin)
	wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX)
	server := netip.MustParseAddrPort(m.server)
	rs := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: server.Addr(), Port: server.Port()},
		Method:        lvs.DirectRouting, Weight: 1,
	}
	if err := p.EditServer(svc.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ client, at string }{{m.client, m.server}, {"203.0.113.6:1024", m.vip}} {
		for _, flags := range []string{"S", "A", "A"} {
			out := wantVerdict(t, p, tcpFrame(test.client, m.vip, flags), "forward", xdpTX)
			if got := netip.AddrFrom4([4]byte(out[30:34])); got != addrOf(test.at) {
				t.Errorf("%s %s went to %s, want %s", test.client, flags, got, test.at)
			}
		}
	}
	checkTable(t, p)
}

// tagServer has a real server reached in a VLAN.
func tagServer(t *testing.T, p *Plane, server netip.Addr, vlan uint16) {
	t.Helper()
	hop := lvs.NextHop{InterfaceIndex: testIfindex, MTU: 1500, VLAN: vlan, Source: directorMAC, Destination: serverMAC(server)}
	if err := p.SetNextHop(server, hop); err != nil {
		t.Fatal(err)
	}
}

// Tags go and come on both ways.
func TestMasqueradesVLAN(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv4"]
	tagServer(t, p, addrOf(m.server), 7)
	request := ipv4Packet(addrOf(m.client), addrOf(m.vip), protoTCP, nil, tcp(m.client, m.vip, "S"))
	out := wantVerdict(t, p, ethernet(etherIPv4, request, vlanTag{etherVLAN, 9}), "forward", xdpTX)
	if vlan, _, packet := network(out); vlan != 7 || netip.AddrFrom4([4]byte(packet[16:20])) != addrOf(m.server) {
		t.Errorf("request in VLAN %d to %v, want 7 and the real server", vlan, packet[16:20])
	}
	reply := ipv4Packet(addrOf(m.server), addrOf(m.client), protoTCP, nil, tcp(m.server, m.client, "SA"))
	out = wantVerdict(t, p, ethernet(etherIPv4, reply, vlanTag{etherVLAN, 7}), "forward-reply", xdpTX)
	if vlan, _, packet := network(out); vlan != 9 || netip.AddrFrom4([4]byte(packet[12:16])) != addrOf(m.vip) {
		t.Errorf("reply in VLAN %d from %v, want 9 and the virtual address", vlan, packet[12:16])
	}
}

// A table without room drops what masquerading could not bring back.
func TestMasqueradingWithoutRoom(t *testing.T) {
	p := openPlane(t, testhost.MountBPF(t), 1)
	masquerade(t, p, tcpService(vip4, lvs.RoundRobin), "198.51.100.11:8080")
	verdicts := verdictDelta(t, p, func() {
		for i := range 2 * p.TableSize() {
			mustRun(t, p, tcpFrame(clientOf(i), vip4, "S"))
			mustRun(t, p, tcpFrame(clientOf(i), vip4, "A"))
		}
	})
	if verdicts["drop-no-room"] == 0 || verdicts["forward-no-entry"] != 0 {
		t.Errorf("verdicts %v, want drop-no-room and no forward-no-entry", verdicts)
	}
	checkTable(t, p)
	wantAllOver(t, p)
}

// checkReply checks that an entry for replies is tied to a live connection, which
// knows it.
func checkReply(t testing.TB, p *Plane, group, slot uint32) {
	t.Helper()
	at := group*uint32(directorLimitGROUP_SLOTS) + slot
	owner := p.view.connections.elements[group].Slots[slot].Packets
	conn := &p.view.connections.elements[owner/8].Slots[owner%8]
	var bonds directorBondGroup
	if err := p.maps.Bonds.Lookup(owner/8, &bonds); err != nil {
		t.Fatal(err)
	}
	masqueraded := explainConnectionFlag(conn.Flags)&explainConnectionFlagCONNECTION_MASQUERADED != 0
	if told := uint32(bonds.Bonds[owner%8]>>32) &^ (1 << 31); !masqueraded || told != at ||
		conn.Control&directorControlCONTROL_STATUS != directorControlCONTROL_LIVE {
		t.Errorf("replies' entry %d is of slot %d, whose own is %d (masqueraded: %t)", at, owner, told, masqueraded)
	}
}
