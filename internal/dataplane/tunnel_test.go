package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

// The director's own addresses, which outer packets come from.
var (
	source4 = netip.MustParseAddr("198.51.100.1")
	source6 = netip.MustParseAddr("2001:db8:1::1")
)

const (
	protoIPv4 = 4
	protoIPv6 = 41
	protoGRE  = 47
)

// tunnels are those that ipvsadm can ask for.
var tunnels = []lvs.Tunnel{
	{Type: lvs.IPIP},
	{Type: lvs.GUE, Port: 6080},
	{Type: lvs.GUE, Port: 6080, Checksum: lvs.Checksum},
	{Type: lvs.GUE, Port: 6080, Checksum: lvs.RemoteChecksum},
	{Type: lvs.GRE},
	{Type: lvs.GRE, Checksum: lvs.Checksum},
}

func tunnelName(t lvs.Tunnel) string {
	return fmt.Sprintf("%s %s", t.Type, [...]string{"nocsum", "csum", "remcsum"}[t.Checksum])
}

// sourceTo returns the address that a packet to a real server comes from.
func sourceTo(server netip.Addr) netip.Addr {
	if server.Is4() {
		return source4
	}
	return source6
}

func tunnelHop(server netip.Addr, mtu int) lvs.NextHop {
	return lvs.NextHop{
		InterfaceIndex: testIfindex, MTU: mtu, SourceIP: sourceTo(server),
		Source: directorMAC, Destination: serverMAC(server),
	}
}

// tunnelledPlane serves TCP, UDP and SCTP of the virtual address through a tunnel.
func tunnelledPlane(t testing.TB, vip, server string, tunnel lvs.Tunnel) *Plane {
	t.Helper()
	p := newTestPlane(t)
	mustServeTunnel(t, p, vip, server, tunnel)
	return p
}

// mustServeTunnel does so instead of what the plane served before.
func mustServeTunnel(t testing.TB, p *Plane, vip, server string, tunnel lvs.Tunnel) {
	t.Helper()
	for _, svc := range []lvs.Service{tcpService(vip, lvs.RoundRobin), udpService(vip, lvs.RoundRobin), sctpService(vip, lvs.RoundRobin)} {
		if err := p.DeleteService(svc.ServiceKey); err != nil && !errors.Is(err, lvs.ErrNoService) {
			t.Fatal(err)
		}
		mustAddService(t, p, svc)
		mustAddTunnel(t, p, svc, server, tunnel)
	}
}

func mustAddTunnel(t testing.TB, p *Plane, svc lvs.Service, server string, tunnel lvs.Tunnel) lvs.RealServer {
	t.Helper()
	ap := netip.MustParseAddrPort(server)
	rs := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: ap.Addr(), Port: ap.Port()},
		Method:        lvs.Tunnelling, Weight: 1, Tunnel: tunnel,
	}
	if err := p.AddServer(svc.ServiceKey, rs); err != nil {
		t.Fatal(err)
	}
	if err := p.SetNextHop(ap.Addr(), tunnelHop(ap.Addr(), 1500)); err != nil {
		t.Fatal(err)
	}
	return rs
}

// wrapped is what must come out for a frame, computed anew from the RFCs: the inner
// packet aged, and around it what the tunnel asks for. The source port of GUE and
// the id of IPv4 are got's, and looked at by tests of their own.
func wrapped(in, got []byte, server netip.Addr, tunnel lvs.Tunnel) []byte {
	inner := bytes.Clone(in[14:])
	age(inner)
	inner = inner[:packetLength(inner)]
	protocol, payload := byte(protoIPv4), inner
	ethertype := uint16(etherIPv4)
	if inner[0]>>4 == 6 {
		protocol, ethertype = protoIPv6, etherIPv6
	}
	inProtocol := protocol
	switch tunnel.Type {
	case lvs.GUE:
		protocol = protoUDP
		payload = gue(got, server, tunnel, inProtocol, inner)
	case lvs.GRE:
		protocol = protoGRE
		payload = gre(tunnel, ethertype, inner)
	}
	tos, ttl, dontFragment := inner[1], inner[8], inner[6]&0x40
	if inner[0]>>4 == 6 {
		tos, ttl, dontFragment = inner[0]<<4|inner[1]>>4, inner[7], 0
	}
	if tos&3 == 3 {
		tos = tos&^3 | 2
	}
	var outer []byte
	outerType := uint16(etherIPv4)
	if server.Is4() {
		outer = ipv4Packet(source4, server, protocol, nil, payload)
		outer[1], outer[6], outer[8] = tos, dontFragment, ttl
		if dontFragment == 0 {
			copy(outer[4:6], got[18:20])
		}
		setIPv4Checksum(outer)
	} else {
		outerType = etherIPv6
		outer = ipv6Packet(source6, server, protocol, payload)
		outer[0], outer[1], outer[7] = 6<<4|tos>>4, tos<<4, ttl
	}
	frame := ethernet(outerType, outer)
	mac := serverMAC(server)
	copy(frame, mac[:])
	copy(frame[6:], directorMAC[:])
	// Padding of the frame stays behind it.
	return append(frame, in[14+len(inner):]...)
}

func packetLength(packet []byte) int {
	if packet[0]>>4 == 6 {
		return 40 + int(binary.BigEndian.Uint16(packet[4:]))
	}
	return int(binary.BigEndian.Uint16(packet[2:]))
}

func gue(got []byte, server netip.Addr, tunnel lvs.Tunnel, protocol byte, inner []byte) []byte {
	at := 14 + 20
	if server.Is6() {
		at = 14 + 40
	}
	d := append(bytes.Clone(got[at:at+2]), 0, 0, 0, 0, 0, 0, 0, protocol, 0, 0)
	binary.BigEndian.PutUint16(d[2:], tunnel.Port)
	binary.BigEndian.PutUint16(d[4:], uint16(len(d)+len(inner)))
	d = append(d, inner...)
	if tunnel.Checksum != lvs.NoChecksum {
		pseudo := slices.Concat(sourceTo(server).AsSlice(), server.AsSlice(), []byte{0, protoUDP}, d[4:6], d)
		sum := internetChecksum(pseudo)
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(d[6:], sum)
	}
	return d
}

func gre(tunnel lvs.Tunnel, ethertype uint16, inner []byte) []byte {
	d := binary.BigEndian.AppendUint16([]byte{0, 0}, ethertype)
	if tunnel.Checksum == lvs.NoChecksum {
		return append(d, inner...)
	}
	d[0] = 0x80
	d = append(append(d, 0, 0, 0, 0), inner...)
	binary.BigEndian.PutUint16(d[4:], internetChecksum(d))
	return d
}

// eachTunnel runs a test for every tunnel, of either family in either, each with a
// client of its own.
func eachTunnel(t *testing.T, test func(t *testing.T, p *Plane, client, vip, server string, tunnel lvs.Tunnel)) {
	p := newTestPlane(t)
	port := uint16(2000)
	for _, tunnel := range tunnels {
		for _, inner := range []struct{ name, client, vip string }{{"ipv4", client4, vip4}, {"ipv6", client6, vip6}} {
			for _, outer := range []struct{ name, server string }{{"ipv4", server4}, {"ipv6", server6}} {
				port++
				client := netip.AddrPortFrom(addrOf(inner.client), port).String()
				t.Run(fmt.Sprintf("%s/%s in %s", tunnelName(tunnel), inner.name, outer.name), func(t *testing.T) {
					mustServeTunnel(t, p, inner.vip, outer.server, tunnel)
					test(t, p, client, inner.vip, outer.server, tunnel)
				})
			}
		}
	}
}

// Twice each: the second packet of a connection may go the short way.
func TestTunnel(t *testing.T) {
	eachTunnel(t, func(t *testing.T, p *Plane, client, vip, server string, tunnel lvs.Tunnel) {
		to := addrOf(server)
		payload := make([]byte, 777)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		tosAt := func(frame []byte, tos byte) []byte {
			if frame[14]>>4 == 4 {
				return withIPv4Checksum(changed(frame, 15, tos))
			}
			return changed(frame, 14, 6<<4|tos>>4, tos<<4)
		}
		frames := [][]byte{
			tcpFrame(client, vip, "S"), tcpFrame(client, vip, "A", payload...),
			udpFrame(client, vip, payload...), udpFrame(client, vip), udpFrame(client, vip, 1),
			sctpFrame(client, vip, chunkInit), sctpFrame(client, vip, chunkData),
			append(tcpFrame(client, vip, "A"), 1, 2, 3, 4, 5, 6),
		}
		for tos := range 4 {
			frames = append(frames, tosAt(tcpFrame(client, vip, "A"), 0xb8|byte(tos)))
		}
		for size := range 70 { // every remainder of the checksum's loop
			frames = append(frames, udpFrame(client, vip, payload[:size]...))
		}
		if addrOf(vip).Is4() {
			frames = append(frames, withIPv4Checksum(changed(tcpFrame(client, vip, "A"), 20, 0x40)),
				ethernet(etherIPv4, ipv4Packet(addrOf(client), addrOf(vip), protoTCP, []byte{7, 7, 4, 0, 0, 0, 0, 0}, tcp(client, vip, "A"))))
		} else {
			frames = append(frames, frame6(protoTCP, tcp(client, vip, "A"), extension{protoHopByHop, 0, 8}))
		}
		for _, frame := range frames {
			for range 2 {
				out := wantVerdict(t, p, frame, "forward", xdpTX)
				if want := wrapped(frame, out, to, tunnel); !bytes.Equal(want, out) {
					t.Fatalf("frame %x (-want +got):\n%s", frame, cmp.Diff(want, out))
				}
			}
		}
	})
}

func withIPv4Checksum(frame []byte) []byte {
	setIPv4Checksum(frame[14:])
	return frame
}

func TestTunnelMTU(t *testing.T) {
	eachTunnel(t, func(t *testing.T, p *Plane, client, vip, server string, tunnel lvs.Tunnel) {
		overhead := int(toTunnel(lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: addrOf(server)}, Tunnel: tunnel}, directorAddress{}).Overhead)
		empty := len(udpFrame(client, vip)) - 14
		udpOf := func(size int, dontFragment byte) []byte {
			frame := udpFrame(client, vip, make([]byte, size-empty)...)
			if addrOf(vip).Is4() {
				frame = withIPv4Checksum(changed(frame, 20, dontFragment))
			}
			return frame
		}
		for range 2 {
			out := wantVerdict(t, p, udpOf(1500-overhead, 0x40), "forward", xdpTX)
			if len(out) != 14+1500 {
				t.Errorf("the largest packet comes out with %d bytes, want %d", len(out)-14, 1500)
			}
			out = wantVerdict(t, p, udpOf(1501-overhead, 0x40), "answer-too-big", xdpTX)
			told := int(binary.BigEndian.Uint16(out[14+20+6:]))
			if addrOf(vip).Is6() {
				told = int(binary.BigEndian.Uint32(out[14+40+4:]))
			}
			if told != 1500-overhead {
				t.Errorf("the client is told an MTU of %d, want %d", told, 1500-overhead)
			}
		}
		if addrOf(vip).Is4() {
			wantVerdict(t, p, udpOf(1501-overhead, 0), "forward-in-fragments", xdpDrop)
		}
		ttl := 22
		if addrOf(vip).Is6() {
			ttl = 21
		}
		wantVerdict(t, p, changed(tcpFrame(client, vip, "S"), ttl, 1), "answer-ttl", xdpTX)
	})
}

// Packets of a connection that may be fragmented have ids that differ, and so, mostly, have
// those of several connections at the same time.
func TestTunnelIdentifications(t *testing.T) {
	p := tunnelledPlane(t, vip4, server4, lvs.Tunnel{})
	const connections, packets = 50, 20
	used := map[uint16]int{}
	for i := range connections {
		client := netip.AddrPortFrom(addrOf(client4), uint16(3000+i)).String()
		wantVerdict(t, p, tcpFrame(client, vip4, "S"), "forward", xdpTX)
		own := map[uint16]bool{}
		for range packets {
			_, out := mustRun(t, p, tcpFrame(client, vip4, "A"))
			id := binary.BigEndian.Uint16(out[18:])
			own[id] = true
			used[id]++
		}
		if len(own) != packets {
			t.Errorf("%d packets of %s have %d ids", packets, client, len(own))
		}
	}
	if least := connections * packets * 3 / 4; len(used) < least {
		t.Errorf("%d packets have %d ids, want at least %d", connections*packets, len(used), least)
	}
	frame := withIPv4Checksum(changed(tcpFrame("203.0.113.7:3000", vip4, "A"), 20, 0x40))
	if _, out := mustRun(t, p, frame); binary.BigEndian.Uint16(out[18:]) != 0 {
		t.Errorf("a packet with DF has an id: %x", out[14:34])
	}
}

// Tags of the frame give way to that of the next hop.
func TestTunnelVLAN(t *testing.T) {
	p := tunnelledPlane(t, vip4, server6, lvs.Tunnel{})
	hop := tunnelHop(addrOf(server6), 1500)
	for _, tags := range [][]vlanTag{nil, {{etherVLAN, 7}}, {{etherService, 7}, {etherVLAN, 8}}} {
		for _, vlan := range []uint16{0, 7, 9} {
			hop.VLAN = vlan
			if err := p.SetNextHop(addrOf(server6), hop); err != nil {
				t.Fatal(err)
			}
			packet := tcpFrame(client4, vip4, "S")[14:]
			out := wantVerdict(t, p, ethernet(etherIPv4, packet, tags...), "forward", xdpTX)
			untagged := append(bytes.Clone(out[:12]), out[12:]...)
			if vlan != 0 {
				if got := binary.BigEndian.Uint16(out[14:]); binary.BigEndian.Uint16(out[12:]) != etherVLAN || got != vlan {
					t.Errorf("VLAN %d of %v: frame %x", vlan, tags, out[:18])
				}
				untagged = append(bytes.Clone(out[:12]), out[16:]...)
			}
			if diff := cmp.Diff(wrapped(ethernet(etherIPv4, packet), untagged, addrOf(server6), lvs.Tunnel{}), untagged); diff != "" {
				t.Errorf("VLAN %d of %v (-want +got):\n%s", vlan, tags, diff)
			}
		}
	}
}

// The packets of a flow come from one port, flows from many: at least half as many
// ports as there would be by lot.
func TestGUESpreadsFlows(t *testing.T) {
	p := tunnelledPlane(t, vip4, server4, lvs.Tunnel{Type: lvs.GUE, Port: 6080})
	ports := map[uint16]bool{}
	const flows = 2000
	for i := range flows {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 16)}), uint16(2000+i)).String()
		first := -1
		for _, flags := range []string{"S", "A", "A", "F"} {
			_, out := mustRun(t, p, tcpFrame(client, vip4, flags))
			port := binary.BigEndian.Uint16(out[34:])
			if first >= 0 && first != int(port) {
				t.Fatalf("packets of %s come from ports %d and %d", client, first, port)
			}
			first = int(port)
			ports[port] = true
			if port < 0xc000 {
				t.Fatalf("port %d is none of the dynamic ones", port)
			}
		}
	}
	if len(ports) < flows*8/10 {
		t.Errorf("%d flows have %d ports", flows, len(ports))
	}
}

// An edit of the method or of the tunnel takes effect as one whole, and is read
// back, also by the director that takes over.
func TestEditTunnel(t *testing.T) {
	for name, server := range map[string]string{"ipv4": server4, "ipv6": server6} {
		t.Run(name, func(t *testing.T) { testEditTunnel(t, server) })
	}
}

func testEditTunnel(t *testing.T, server string) {
	dir := testhost.MountBPF(t)
	p := openPlane(t, dir, 10_000)
	svc := tcpService(vip4, lvs.RoundRobin)
	mustAddService(t, p, svc)
	rs := mustAddTunnel(t, p, svc, server, lvs.Tunnel{})
	check := func() {
		t.Helper()
		wantWays(t, p, rs)
		services := mustServices(t, p)
		got := services[0].Servers[0]
		if diff := cmp.Diff(rs, got.RealServer, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
		if got.NextHop.SourceIP != sourceTo(addrOf(server)) || !got.NextHop.Usable() {
			t.Errorf("next hop %+v", got.NextHop)
		}
	}
	check()
	for i, edit := range []lvs.RealServer{
		{Method: lvs.Tunnelling, Tunnel: lvs.Tunnel{Type: lvs.GUE, Port: 6080}},
		{Method: lvs.Tunnelling, Tunnel: lvs.Tunnel{Type: lvs.GUE, Port: 6081, Checksum: lvs.Checksum}},
		{Method: lvs.DirectRouting},
		{Method: lvs.Tunnelling, Tunnel: lvs.Tunnel{Type: lvs.GRE}},
		{Method: lvs.Tunnelling},
	} {
		rs.Method, rs.Tunnel = edit.Method, edit.Tunnel
		if err := p.EditServer(svc.ServiceKey, rs); err != nil {
			t.Fatal(err)
		}
		check()
		if i != 1 {
			continue
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p = reopenPlane(t, dir)
		check()
	}
}

// wantWays wants packets of a connection to go to the real server as it is said to be reached:
// those that begin it, and the one after them, which goes the short way.
func wantWays(t *testing.T, p *Plane, rs lvs.RealServer) {
	t.Helper()
	for _, flags := range []string{"S", "A", "A"} {
		frame := tcpFrame(client4, vip4, flags)
		out := wantVerdict(t, p, frame, "forward", xdpTX)
		want := aged(frame, serverMAC(rs.Address))
		if rs.Method == lvs.Tunnelling {
			want = wrapped(frame, out, rs.Address, rs.Tunnel)
		}
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s, %+v (-want +got):\n%s", flags, rs, diff)
		}
	}
}

// Without an address of its own the director can't send outer packets. With another one, it sends
// them from that, also those of connections that there are.
func TestTunnelSource(t *testing.T) {
	p := tunnelledPlane(t, vip4, server4, lvs.Tunnel{})
	for _, flags := range []string{"S", "A", "A"} {
		wantVerdict(t, p, tcpFrame(client4, vip4, flags), "forward", xdpTX)
	}
	hop := tunnelHop(addrOf(server4), 1500)
	setSource := func(source netip.Addr) {
		t.Helper()
		hop.SourceIP = source
		if err := p.SetNextHop(addrOf(server4), hop); err != nil {
			t.Fatal(err)
		}
	}
	setSource(netip.Addr{})
	wantVerdict(t, p, tcpFrame(client4, vip4, "A"), "drop-no-next-hop", xdpDrop)
	services := mustServices(t, p)
	if got := services[0].Servers[0].NextHop; got.Usable() {
		t.Errorf("next hop %+v is said to be usable", got)
	}
	for _, source := range []string{"192.0.2.77", "192.0.2.78"} {
		setSource(netip.MustParseAddr(source))
		out := wantVerdict(t, p, tcpFrame(client4, vip4, "A"), "forward", xdpTX)
		if got := netip.AddrFrom4([4]byte(out[26:30])); got != hop.SourceIP {
			t.Errorf("sent from %s, want %s", got, hop.SourceIP)
		}
		if sum := internetChecksum(out[14:34]); sum != 0 {
			t.Errorf("from %s: the outer header sums up to %#x, want 0", source, sum)
		}
	}
}

// A packet cannot be wrapped by half: with a way that changes all the time, each
// one fits one of those that were set.
func TestTunnelChangesAreWhole(t *testing.T) {
	p := tunnelledPlane(t, vip4, server4, lvs.Tunnel{})
	svc := tcpService(vip4, lvs.RoundRobin).ServiceKey
	rs := lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: addrOf(server4), Port: 80}, Weight: 1}
	wantVerdict(t, p, tcpFrame(client4, vip4, "S"), "forward", xdpTX)
	done := make(chan error)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			rs.Method, rs.Tunnel = lvs.Tunnelling, tunnels[i%len(tunnels)]
			if i%7 == 0 {
				rs.Method, rs.Tunnel = lvs.DirectRouting, lvs.Tunnel{}
			}
			err = p.EditServer(svc, rs)
		}
		done <- err
	}()
	frame := tcpFrame(client4, vip4, "A")
	for {
		_, out := mustRun(t, p, frame)
		fits := bytes.Equal(out, aged(frame, serverMAC(addrOf(server4))))
		for _, tunnel := range tunnels {
			fits = fits || bytes.Equal(out, wrapped(frame, out, addrOf(server4), tunnel))
		}
		if !fits {
			t.Errorf("frame %x is of no way that was set", out)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
