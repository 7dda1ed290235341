package doctor

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/journey"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// answering has another host at the far end of eth0, which answers for all addresses
// that it is to, until stop. It is no kernel, and says nothing of packets that it
// does not take.
func answering(t *testing.T, is func(netip.Addr) bool) (stop func()) {
	t.Helper()
	device, err := net.InterfaceByName("p0")
	if err != nil {
		t.Error(err)
		return func() {}
	}
	host, err := openSegment(device)
	if err != nil {
		t.Error(err)
		return func() {}
	}
	host.mac = lvs.MAC{0x02, 5: 0x99} // not that of the namespace's own p0
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = host.listen(t.Context(), proxyWithin*10, func(frame []byte) bool {
			p := journey.Decode(frame)
			if (p.Kind == journey.ARPRequest || p.Kind == journey.NeighborSolicitation) && is(p.Target) {
				if err := host.send(t.Context(), tell(t, host.mac, p)); err != nil {
					t.Error(err)
				}
			}
			return false
		})
	}()
	return func() {
		_ = host.close()
		<-done
	}
}

// tell returns the answer to the question.
func tell(t *testing.T, mac lvs.MAC, question journey.Packet) []byte {
	t.Helper()
	if question.Target.Is6() {
		frame, err := unsolicited(mac, question.Target)
		if err != nil {
			t.Error(err)
		}
		return frame
	}
	frame, err := serialize(
		&layers.Ethernet{SrcMAC: hardware(mac), DstMAC: hardware(question.SourceMAC), EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPReply, SourceHwAddress: hardware(mac), SourceProtAddress: question.Target.AsSlice(),
			DstHwAddress: hardware(question.SourceMAC), DstProtAddress: question.Source.AsSlice()})
	if err != nil {
		t.Error(err)
	}
	return frame
}

// rollCall is a visit that ends with who answers for the VIPs.
func rollCall(t *testing.T, vips ...netip.Addr) *examination {
	t.Helper()
	e := &examination{segments: map[int]*segment{}, attached: []string{"eth0"}, vips: vips, names: newDirectory(), blamed: map[claim]bool{}}
	for _, vip := range vips {
		e.services = append(e.services, lvs.ServiceStatus{Service: lvs.Service{ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: vip, Port: 80}}})
	}
	err := e.open(nil, e.services)
	if err == nil {
		err = e.openInterface(net.InterfaceByName("eth0"))
	}
	if err == nil {
		err = e.callRoll(t.Context())
	}
	for _, p := range patientsOf(e.services) {
		if err == nil {
			err = e.findImpostors(t.Context(), p)
		}
	}
	if err != nil {
		t.Error(err)
	}
	return e
}

// A host that answers for the VIPs alone has them; one that answers for all
// addresses has none of them; one that answers for the director's has those too.
func TestWhoAnswersForAll(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")}
	own := []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")}
	const addresses = "ip address add 192.0.2.10/24 dev eth0; ip -6 address add 2001:db8::10/64 dev eth0 nodad;"
	for _, test := range []struct {
		name  string
		is    func(netip.Addr) bool
		check string
	}{
		{"the VIPs", func(a netip.Addr) bool { return slices.Contains(vips, a) }, ForeignVIP},
		{"all but the director's", func(a netip.Addr) bool { return !slices.Contains(own, a) }, ProxyARP},
		{"the director's", func(a netip.Addr) bool { return slices.Contains(own, a) }, SameAddress},
	} {
		t.Run(test.name, func(t *testing.T) {
			inNamespace(t, twoInterfaces+addresses, func() {
				stop := answering(t, test.is)
				e := rollCall(t, vips...)
				stop()
				if err := e.close(); err != nil {
					t.Error(err)
				}
				if len(e.findings) != 2 {
					t.Errorf("%+v", e.findings)
				}
				for _, f := range e.findings {
					if f.Check != test.check || f.Host.MAC != "02:00:00:00:00:99" || f.Host.Role != Neighbour || len(f.Mend) == 0 {
						t.Errorf("%+v", f)
					}
				}
			})
		})
	}
}

// The director's own second interface on the segment answers for the VIP too, as
// kernels do unless they are told otherwise.
func TestOwnInterfaceAnswers(t *testing.T) {
	const commands = "ip link add br0 type bridge; ip link set p0 master br0; ip link set p1 master br0; ip link set br0 up;" +
		"ip address add 192.0.2.10/24 dev eth0; ip address add 192.0.2.100/32 dev eth0; ip address add 192.0.2.9/32 dev eth1;" +
		"sysctl -qw net.ipv4.conf.eth0.arp_ignore=0 net.ipv4.conf.eth1.arp_ignore=0 net.ipv4.conf.br0.arp_ignore=1"
	inNamespace(t, twoInterfaces+commands, func() {
		e := rollCall(t, netip.MustParseAddr("192.0.2.100"))
		if err := e.close(); err != nil {
			t.Error(err)
		}
		if len(e.findings) != 1 || e.findings[0].Check != ForeignVIP || e.findings[0].Host.Role != Director ||
			e.findings[0].Mend[0].Command != "sysctl -w net/ipv4/conf/eth1/arp_ignore=1" {
			t.Errorf("%+v", e.findings)
		}
	})
}

// A host that asks in the VIP's name, unasked, is heard: a real server that does is
// named as one.
func TestQuestionsInTheVIPsName(t *testing.T) {
	for _, text := range []string{"192.0.2.100", "2001:db8::100"} {
		vip := netip.MustParseAddr(text)
		inNamespace(t, twoInterfaces+"ip address add 192.0.2.10/24 dev eth0; ip -6 address add 2001:db8::10/64 dev eth0 nodad;", func() {
			speaker := lvs.MAC{0x02, 5: 0x99}
			device, err := net.InterfaceByName("p0")
			if err != nil {
				t.Error(err)
				return
			}
			s, err := openSegment(device)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.close()
			stop := answering(t, func(asked netip.Addr) bool {
				if asked != vip {
					return false
				}
				frame, err := question(speaker, vip, vip.Next())
				if err == nil {
					err = s.send(t.Context(), frame)
				}
				if err != nil {
					t.Error(err)
				}
				return false
			})
			e := rollCall(t, vip)
			stop()
			e.servers = []server{{address: vip.Prev(), segment: e.ordered()[0], mac: speaker}}
			e.examineOverheard(t.Context(), patientsOf(e.services)[0])
			if err := e.close(); err != nil {
				t.Error(err)
			}
			if len(e.findings) != 1 || e.findings[0].Check != ARPAnnounce || e.findings[0].Host.Role != RealServer {
				t.Errorf("%s: %+v", vip, e.findings)
			}
		})
	}
}
