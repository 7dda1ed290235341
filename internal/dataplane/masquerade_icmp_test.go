package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// An aboutMasquerading builds errors about one masqueraded flow: what they quote, and with
// what upper layer.
type aboutMasquerading struct {
	masquerading
	local    string // FullNAT: the client, as its real server sees it; else the client
	protocol byte
	upper    []byte // quoted; its ports are overwritten, its checksum is never looked at
	cut      int    // how much of it is quoted
	options  []byte // of a quoted IPv4 header
	headers  int    // extension headers of IPv6, quoted
}

// quote returns the packet from one end to the other, as far as it is quoted.
func (a aboutMasquerading) quote(from, to string) []byte {
	source, destination := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	upper := bytes.Clone(a.upper)
	upper[0], upper[1] = byte(source.Port()>>8), byte(source.Port())
	upper[2], upper[3] = byte(destination.Port()>>8), byte(destination.Port())
	var packet []byte
	if source.Addr().Is4() {
		packet = ipv4Packet(source.Addr(), destination.Addr(), a.protocol, a.options, upper)
		setIPv4Checksum(packet)
	} else {
		var headers []extension
		for range a.headers {
			headers = append(headers, extension{protoDestination, 1, 16})
		}
		next, payload := extend(headers, a.protocol, upper)
		packet = ipv6Packet(source.Addr(), destination.Addr(), next, payload)
	}
	return packet[:len(packet)-len(upper)+a.cut]
}

// frame returns an error from and to these addresses about a packet from one end to the other.
func (a aboutMasquerading) frame(from, to netip.Addr, quotedFrom, quotedTo string) []byte {
	quote := a.quote(quotedFrom, quotedTo)
	if from.Is4() {
		packet := ipv4Packet(from, to, protoICMP, nil, icmp(from, to, 3, 4, 1400, quote))
		setIPv4Checksum(packet)
		return ethernet(etherIPv4, packet)
	}
	return ethernet(etherIPv6, ipv6Packet(from, to, protoICMPv6, icmp(from, to, 2, 0, 1400, quote)))
}

func TestErrorsAboutMasqueradedConnections(t *testing.T) {
	testErrorsAbout(t, masqueradedPlane(t), false)
}

// Towards its real server, an error about a FullNAT connection comes from the local address.
func TestErrorsAboutFullNATConnections(t *testing.T) {
	testErrorsAbout(t, fullNATPlane(t, true), true)
}

func testErrorsAbout(t *testing.T, p *Plane, fullNAT bool) {
	routers := map[string][2]string{"ipv4": {"203.0.113.77:0", "198.51.100.77:0"}, "ipv6": {"[2001:db8:3::77]:0", "[2001:db8:1::77]:0"}}
	for family, m := range masqueradings {
		for _, upper := range upperLayers() {
			local, _ := ends(wantVerdict(t, p, ip(m.client, m.vip, upper.protocol, upper.first(m.client, m.vip)), "forward", xdpTX))
			if fullNAT == (local == m.client) {
				t.Errorf("%s is %s at its real server", m.client, local)
			}
			body := upper.build(m.client, m.vip)
			for name, about := range map[string]aboutMasquerading{
				"whole":      {m, local, upper.protocol, body, len(body), nil, 0},
				"eight":      {m, local, upper.protocol, body, 8, nil, 0},
				"odd":        {m, local, upper.protocol, body, 61, nil, 0},
				"ports":      {m, local, upper.protocol, body, 4, nil, 0},
				"in options": {m, local, upper.protocol, body, 40, make([]byte, 24), 2},
			} {
				t.Run(family+" "+upper.name+" "+name, func(t *testing.T) { checkErrorsAbout(t, p, about, routers[family]) })
			}
		}
	}
	checkTable(t, p)
}

// checkErrorsAbout wants errors about both directions to reach who sent what they quote,
// from routers on either side and from the ends themselves.
func checkErrorsAbout(t *testing.T, p *Plane, a aboutMasquerading, routers [2]string) {
	t.Helper()
	vip, client, server, local := addrOf(a.vip), addrOf(a.client), addrOf(a.server), addrOf(a.local)
	before := theConnections(p)
	for _, from := range []netip.Addr{addrOf(routers[0]), client} {
		out := wantVerdict(t, p, a.frame(from, vip, a.vip, a.client), "forward-icmp", xdpTX)
		source := from
		if local != client {
			source = local
		}
		want := aged(a.frame(source, server, a.server, a.local), serverMAC(server))
		setIPv4ChecksumOf(want)
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("from %s to the real server (-want +got):\n%s", from, diff)
		}
	}
	for _, from := range []netip.Addr{addrOf(routers[1]), server} {
		in := fromServer(a.frame(from, local, a.local, a.server), a.server)
		out := wantVerdict(t, p, in, "forward-icmp", xdpTX)
		want := aged(a.frame(vip, client, a.client, a.vip), clientMAC)
		setIPv4ChecksumOf(want)
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("from %s to the client (-want +got):\n%s", from, diff)
		}
	}
	if diff := cmp.Diff(before, theConnections(p)); diff != "" {
		t.Errorf("connections (-before +after):\n%s", diff)
	}
}

// What is wrong with an error, or what it is about, keeps it from being translated.
func TestErrorsAboutMasqueradingNotSent(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv4"]
	wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX)
	body := tcp(m.client, m.vip, "A")
	about := aboutMasquerading{m, m.client, protoTCP, body, len(body), nil, 0}
	back := func() []byte {
		return fromServer(about.frame(addrOf(m.server), addrOf(m.client), m.client, m.server), m.server)
	}
	for _, test := range []struct {
		name    string
		frame   []byte
		verdict string
		action  uint32
	}{
		{"back", back(), "forward-icmp", xdpTX},
		{"back, wrong checksum", changed(back(), 36, 0xff), "drop-icmp-checksum", xdpDrop},
		{"back, last hop", withTTL(back(), 1), "drop-icmp-error", xdpDrop},
		{"of another port", about.frame(addrOf(m.server), addrOf(m.client), m.client, "198.51.100.11:8081"), "pass-icmp", xdpPass},
		{"of another client", about.frame(addrOf(m.server), addrOf("203.0.113.6:0"), "203.0.113.6:1024", m.server), "pass-icmp", xdpPass},
		{"to somebody else", about.frame(addrOf(m.server), addrOf("203.0.113.6:0"), m.client, m.server), "pass-icmp", xdpPass},
	} {
		t.Run(test.name, func(t *testing.T) {
			if out := wantVerdict(t, p, test.frame, test.verdict, test.action); test.action == xdpPass && !bytes.Equal(out, test.frame) {
				t.Error("the host gets another frame than came")
			}
		})
	}
}

// With schedule_icmp an error begins a masqueraded connection, replies and all.
func TestErrorBeginsMasqueradedConnection(t *testing.T) {
	p := masqueradedPlane(t)
	if err := p.SetSysctls(lvs.ServiceKey{}, []lvs.SysctlChange{{Name: "schedule_icmp", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	for family, m := range masqueradings {
		t.Run(family, func(t *testing.T) {
			body := tcp(m.client, m.vip, "A")
			about := aboutMasquerading{m, m.client, protoTCP, body, len(body), nil, 0}
			out := wantVerdict(t, p, about.frame(addrOf(m.client), addrOf(m.vip), m.vip, m.client), "forward-icmp", xdpTX)
			want := aged(about.frame(addrOf(m.client), addrOf(m.server), m.server, m.client), serverMAC(addrOf(m.server)))
			setIPv4ChecksumOf(want)
			if diff := cmp.Diff(want, out); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
			wantVerdict(t, p, fromServer(tcpFrame(m.server, m.client, "A"), m.server), "forward-reply", xdpTX)
			checkTable(t, p)
		})
	}
}

// An error gets the tag of the way that it takes.
func TestErrorsAboutMasqueradingVLAN(t *testing.T) {
	p := masqueradedPlane(t)
	m := masqueradings["ipv6"]
	tagServer(t, p, addrOf(m.server), 7)
	wantVerdict(t, p, tcpFrame(m.client, m.vip, "S"), "forward", xdpTX)
	body := tcp(m.client, m.vip, "A")
	about := aboutMasquerading{m, m.client, protoTCP, body, len(body), nil, 0}
	out := wantVerdict(t, p, about.frame(addrOf(m.client), addrOf(m.vip), m.vip, m.client), "forward-icmp", xdpTX)
	want := about.frame(addrOf(m.client), addrOf(m.server), m.server, m.client)[14:]
	age(want)
	vlan, _, packet := network(out)
	if diff := cmp.Diff(want, packet); vlan != 7 || diff != "" {
		t.Errorf("VLAN %d, want 7; packet (-want +got):\n%s", vlan, diff)
	}
}
