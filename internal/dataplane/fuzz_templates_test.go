package dataplane

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// configureFuzz sets up services so that malformed frames find every way out,
// and returns well-formed frames to start from.
func configureFuzz(t *testing.T, p *Plane) [][]byte {
	t.Helper()
	for i, svc := range []lvs.Service{
		tcpService("192.0.2.10:80", lvs.RoundRobin),
		udpService("192.0.2.10:53", lvs.WeightedLeastConnection),
		tcpService("192.0.2.10:21", lvs.LeastConnection),
		tcpService("192.0.2.11:0", lvs.NeverQueue),
		tcpService("[2001:db8:2::10]:80", lvs.WeightedRoundRobin),
		udpService("[2001:db8:2::10]:53", lvs.ShortestExpectedDelay),
		sipService(sip4),
		sipService(sip6),
	} {
		mustAddService(t, p, svc)
		for s := range 4 {
			server := fmt.Sprintf("198.51.100.%d:80", 16*i+s)
			if svc.Address.Is6() {
				server = fmt.Sprintf("[2001:db8:1::%x]:80", 16*i+s)
			}
			rs := mustAddServer(t, p, svc, server, uint32(s+1))
			setFuzzHop(t, p, rs.Address, s)
		}
	}
	mustAddService(t, p, tcpService("192.0.2.10:81", lvs.RoundRobin))
	mustAddService(t, p, tcpService("[2001:db8:2::10]:81", lvs.RoundRobin))
	p.settings().IcmpInterval = uint32(50 * time.Microsecond)
	return fuzzTemplates()
}

// setFuzzHop gives the servers of a service different ways: plain, to another
// interface and narrow, tagged, and none.
func setFuzzHop(t *testing.T, p *Plane, addr netip.Addr, kind int) {
	t.Helper()
	hop := lvs.NextHop{InterfaceIndex: testIfindex, MTU: 1500, Source: directorMAC, Destination: serverMAC(addr)}
	switch kind {
	case 1:
		hop.InterfaceIndex, hop.MTU = testIfindex+1, 600
	case 2:
		hop.VLAN = 7
	case 3:
		hop.Problem = "no route"
	}
	if err := p.SetNextHop(addr, hop); err != nil {
		t.Fatal(err)
	}
}

func fuzzTemplates() [][]byte {
	var templates [][]byte
	for _, family := range []struct{ client, vip string }{
		{"198.18.0.1", "192.0.2.10"}, {"198.18.0.1", "192.0.2.11"}, {"[2001:db8:3::1]", "[2001:db8:2::10]"},
	} {
		client := family.client + ":40000"
		for _, port := range []string{":80", ":81", ":21", ":20", ":4000"} {
			for _, flags := range []string{"S", "SA", "A", "FA", "R", "", "SFRPAUEC"} {
				templates = append(templates, tcpFrame(client, family.vip+port, flags, make([]byte, 40)...))
			}
		}
		templates = append(templates,
			tcpFrame(client, family.vip+":80", "S", make([]byte, 1400)...),
			udpFrame(client, family.vip+":53", make([]byte, 30)...),
			udpFrame(family.client+":20", family.vip+":53"),
			udpFrame(client, family.vip+":53", make([]byte, 700)...),
			udpFrame(client, family.vip+":5060", invite("one@example.com")...),
			ip(client, family.vip+":0", protoICMP, make([]byte, 64)))
	}
	return append(templates, fuzzOddTemplates()...)
}

// fuzzOddTemplates are frames with options, extension headers, fragments, tags,
// and no IP at all.
func fuzzOddTemplates() [][]byte {
	const client4, vip4 = "198.18.0.1:40000", "192.0.2.10:80"
	const client6, vip6 = "[2001:db8:3::1]:40000", "[2001:db8:2::10]:80"
	addr := func(text string) netip.Addr { return netip.MustParseAddrPort(text).Addr() }
	segment4, segment6 := tcp(client4, vip4, "S", make([]byte, 20)...), tcp(client6, vip6, "S", make([]byte, 20)...)

	options := ipv4Packet(addr(client4), addr(vip4), protoTCP, make([]byte, 40), segment4)
	fragment := ipv4Packet(addr(client4), addr(vip4), protoTCP, nil, segment4)
	fragment[6] = 0x20
	chain := []extension{
		{protoHopByHop, 0, 8}, {protoDestination, 1, 16}, {protoRouting, 0, 8},
		{protoFragment, 0, 8}, {protoAH, 4, 24}, {protoDestination, 2, 24},
	}
	templates := [][]byte{
		ethernet(etherIPv4, options), ethernet(etherIPv4, fragment),
		ethernet(etherARP, make([]byte, 46)), ethernet(0x88cc, make([]byte, 90)),
	}
	for n := range chain {
		next, payload := extend(chain[:n+1], protoTCP, segment6)
		templates = append(templates, ethernet(etherIPv6, ipv6Packet(addr(client6), addr(vip6), next, payload)))
	}
	for _, path := range [][2]string{{"198.18.0.1:40000", "192.0.2.10:53"}, {"[2001:db8:3::1]:40000", "[2001:db8:2::10]:53"}} {
		templates = append(templates, fragments(udpFrame(path[0], path[1], make([]byte, 100)...), 7, 40)...)
		templates = append(templates, fragments(udpFrame(path[0], path[1], make([]byte, 100)...), 8, 40)[1:]...)
	}
	templates = append(templates, fragments(tcpFrame(client4, vip4, "S", make([]byte, 60)...), 9, 40)...)
	templates = append(templates, fragments(tcpFrame(client6, vip6, "S", make([]byte, 60)...), 9, 40)...)
	packet4, packet6 := ipv4Packet(addr(client4), addr(vip4), protoTCP, nil, segment4), ipv6Packet(addr(client6), addr(vip6), protoTCP, segment6)
	for _, tags := range [][]vlanTag{{{etherVLAN, 7}}, {{etherVLAN, 0xe008}}, {{etherService, 7}}, {{etherService, 9}, {etherVLAN, 7}}} {
		templates = append(templates, ethernet(etherIPv4, packet4, tags...), ethernet(etherIPv6, packet6, tags...))
	}
	return templates
}
