package lab

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/journey"
)

// A segment is one TCP segment of a test on a wire.
type segment struct {
	at           string
	direction    journey.Direction
	from, to     string // hosts, by their MAC addresses
	source, dest string
	sequence     uint32
}

func (s segment) frame(t *testing.T, hosts []Host) journey.Frame {
	t.Helper()
	mac := func(name string) net.HardwareAddr {
		for _, host := range hosts {
			if host.Name == name {
				return net.HardwareAddr(host.MAC[:])
			}
		}
		t.Fatalf("no host %s", name)
		return nil
	}
	source, dest := netip.MustParseAddrPort(s.source), netip.MustParseAddrPort(s.dest)
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: source.Addr().AsSlice(), DstIP: dest.Addr().AsSlice()}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(source.Port()), DstPort: layers.TCPPort(dest.Port()), Seq: s.sequence, ACK: true}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac(s.from), DstMAC: mac(s.to), EthernetType: layers.EthernetTypeIPv4}, ip, tcp)
	if err != nil {
		t.Fatal(err)
	}
	return journey.Frame{Host: s.at, Direction: s.direction, Data: buffer.Bytes()}
}

// What a director may not do to masqueraded packets, and how replies may not come, is found.
func TestTranslatedTally(t *testing.T) {
	for _, method := range []struct {
		Method
		seen string // the client, at its real server
	}{{Masquerading, "192.0.2.1:40000"}, {FullNAT, "192.0.2.200:5000"}} {
		t.Run(string(method.Method), func(t *testing.T) { testTranslatedTally(t, method.Method, method.seen) })
	}
}

func testTranslatedTally(t *testing.T, method Method, seen string) {
	const client, vip, rs1 = "192.0.2.1:40000", "192.0.2.100:80", "192.0.2.11:8088"
	const forwarded, answered, replied, received = 1, 2, 3, 4
	good := []segment{
		{Director, journey.In, Client, Director, client, vip, 1},
		{Director, journey.Out, Director, "rs1", seen, rs1, 1},
		{Director, journey.In, "rs1", Director, rs1, seen, 2},
		{Director, journey.Out, Director, Client, vip, client, 2},
		{Client, journey.In, Director, Client, vip, client, 2},
	}
	for _, test := range []struct {
		name  string
		spoil func([]segment) []segment
		want  []string
	}{
		{"good", func(s []segment) []segment { return s }, nil},
		{"not forwarded", func(s []segment) []segment { return append(s[:forwarded], s[answered:]...) }, []string{"requests-translated", "replies-translated"}},
		{"to another host", func(s []segment) []segment { s[forwarded].to = "rs2"; return s }, []string{"requests-translated"}},
		{"from elsewhere", func(s []segment) []segment { s[forwarded].source = "192.0.2.2:40000"; return s }, []string{"requests-translated", "replies-translated"}},
		{"another content", func(s []segment) []segment { s[forwarded].sequence = 9; return s }, []string{"requests-translated", "replies-translated"}},
		{"nothing came", func(s []segment) []segment { return s[answered:] }, []string{"requests-translated", "replies-translated"}},
		{"reply to another", func(s []segment) []segment { s[replied].dest = "192.0.2.1:40001"; return s }, []string{"replies-translated"}},
		{"reply not sent on", func(s []segment) []segment { return s[:replied] }, []string{"replies-through-director", "replies-translated"}},
		{"past the director", func(s []segment) []segment {
			s[received].from, s[received].source = "rs1", rs1
			return append(s[:answered], s[received])
		}, []string{"replies-through-director", "replies-translated"}},
		{"reply of someone else", func(s []segment) []segment { s[received].from = "rs1"; return s }, []string{"replies-through-director"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			hosts := hostsOf(Config{Servers: 2})
			service := netip.MustParseAddrPort(vip)
			translated := newTranslatedTally(newTally(service, portsOf(hosts, Flat)), method, hosts[2:])
			for _, s := range test.spoil(append([]segment{}, good...)) {
				translated.observe(s.frame(t, hosts))
			}
			e := evidence{method: method, translated: translated, traffic: traffic{answered: 1, service: service}}
			var failed []string
			for _, check := range e.translatedChecks() {
				if !check.OK {
					failed = append(failed, check.Name)
				}
			}
			if diff := cmp.Diff(test.want, failed); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s", diff)
			}
		})
	}
}
