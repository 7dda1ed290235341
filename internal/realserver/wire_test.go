package realserver

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A wire is all that passes an interface, in both directions.
type wire struct {
	t      *testing.T
	socket int
	index  int
	mac    net.HardwareAddr

	mutex  sync.Mutex
	frames []gopacket.Packet
}

// listen records the frames of the host's interface until the test ends.
func listen(t *testing.T, h *host, name string) *wire {
	t.Helper()
	w := &wire{t: t}
	h.do(func() (err error) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		w.index, w.mac = link.Attrs().Index, link.Attrs().HardwareAddr
		w.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		return unix.Bind(w.socket, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: w.index})
	})
	// So that the reader sees the end of the test.
	timeout := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds())
	must(t, "set timeout", unix.SetsockoptTimeval(w.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.read(stop)
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
		unix.Close(w.socket)
	})
	return w
}

func (w *wire) read(stop chan struct{}) {
	buffer := make([]byte, 2048)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(w.socket, buffer, 0)
		if err != nil {
			continue // nothing came
		}
		p := gopacket.NewPacket(bytes.Clone(buffer[:n]), layers.LayerTypeEthernet, gopacket.Default)
		w.mutex.Lock()
		w.frames = append(w.frames, p)
		w.mutex.Unlock()
	}
}

func htons(v uint16) uint16 { return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)) }

func (w *wire) send(all ...gopacket.SerializableLayer) {
	w.t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	must(w.t, "make frame", gopacket.SerializeLayers(buffer, options, all...))
	must(w.t, "send frame", unix.Sendto(w.socket, buffer.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: w.index}))
}

// seen reports whether a frame has passed that is so.
func (w *wire) seen(so func(gopacket.Packet) bool) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return slices.ContainsFunc(w.frames, so)
}

func arpOf(operation uint16, sender netip.Addr) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
		return ok && arp.Operation == operation && bytes.Equal(arp.SourceProtAddress, sender.AsSlice())
	}
}

func (w *wire) whoHas(address, from string, destination net.HardwareAddr) {
	w.t.Helper()
	target, sender := netip.MustParseAddr(address), netip.MustParseAddr(from)
	w.send(
		&layers.Ethernet{SrcMAC: w.mac, DstMAC: destination, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: w.mac, SourceProtAddress: sender.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
		})
}

// advertised reports whether a frame advertises that address by neighbour discovery.
func advertised(address netip.Addr) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		a, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
		return ok && a.TargetAddress.Equal(address.AsSlice())
	}
}

// solicit asks for an IPv6 address, of the group that it has, or of one host.
func (w *wire) solicit(address, from string, destination net.HardwareAddr) {
	w.t.Helper()
	target := netip.MustParseAddr(address).AsSlice()
	to := net.IP(target)
	if destination == nil {
		to = net.ParseIP("ff02::1:ff00:0")
		copy(to[13:], target[13:])
		destination = append(net.HardwareAddr{0x33, 0x33}, to[12:]...)
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(from), DstIP: to}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	must(w.t, "checksum", icmp.SetNetworkLayerForChecksum(ip))
	w.send(
		&layers.Ethernet{SrcMAC: w.mac, DstMAC: destination, EthernetType: layers.EthernetTypeIPv6}, ip, icmp,
		&layers.ICMPv6NeighborSolicitation{
			TargetAddress: target,
			Options:       layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: w.mac}},
		})
}

var (
	rip4      = netip.MustParseAddr("192.0.2.11")
	rip6      = netip.MustParseAddr("2001:db8::11")
	everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// macOf returns the host's eth0 address.
func macOf(h *host) net.HardwareAddr {
	h.t.Helper()
	var mac net.HardwareAddr
	h.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// Nobody learns from a real server where the VIP is. The questions go to it in
// order, so that what it answers to the last has everything before it.
func TestNobodyLearnsOfTheVIP(t *testing.T) {
	for _, test := range []struct {
		name    string
		setUp   func(*host)
		answers bool
	}{
		{"real server", func(h *host) { h.mustUp(both) }, false},
		// What would be without the ARP settings; IPv6 needs none.
		{"VIP alone", func(h *host) { h.ip("address add 192.0.2.100/32 dev lo"); h.ip("address add 2001:db8::100/128 dev lo") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, asker := newServer(t)
			w := listen(t, asker, "eth0")
			test.setUp(server)
			mac := macOf(server)
			for _, destination := range []net.HardwareAddr{everybody, mac} {
				w.whoHas("192.0.2.100", "192.0.2.10", destination)
			}
			w.whoHas("192.0.2.11", "192.0.2.10", everybody)
			eventually(t, 5*time.Second, "ARP reply for the RIP", func() bool { return w.seen(arpOf(layers.ARPReply, rip4)) })
			if got := w.seen(arpOf(layers.ARPReply, vip4)); got != test.answers {
				t.Errorf("ARP reply for the VIP: %t, want %t", got, test.answers)
			}
			for _, destination := range []net.HardwareAddr{nil, mac} {
				w.solicit("2001:db8::100", "2001:db8::10", destination)
			}
			w.solicit("2001:db8::11", "2001:db8::10", nil)
			eventually(t, 5*time.Second, "neighbour advertisement for the RIP", func() bool { return w.seen(advertised(rip6)) })
			if w.seen(advertised(vip6)) {
				t.Error("neighbour advertisement for the VIP")
			}
		})
	}
}

// With a director and a real server on one switch, whoever asks for the VIP learns
// the director's MAC address, and no other.
func TestOnlyTheDirectorAnswers(t *testing.T) {
	network, server, director, client := newHost(t), newHost(t), newHost(t), newHost(t)
	network.ip("link add br0 type bridge mcast_snooping 0")
	network.ip("link set br0 up")
	for name, h := range map[string]*host{"server": server, "director": director, "client": client} {
		network.join(name, h, "eth0")
		network.ip("link set " + name + " master br0")
	}
	server.ip("address add 192.0.2.11/24 dev eth0")
	server.ip("-6 address add 2001:db8::11/64 dev eth0 nodad")
	for _, vip := range []string{"192.0.2.100/32", "2001:db8::100/128"} {
		director.ip("address add " + vip + " dev eth0 nodad")
	}
	client.ip("address add 192.0.2.1/24 dev eth0")
	client.ip("-6 address add 2001:db8::1/64 dev eth0 nodad")
	server.mustUp(both)
	w, right := listen(t, client, "eth0"), macOf(director)
	fromOther := func(so func(gopacket.Packet) bool) func(gopacket.Packet) bool {
		return func(p gopacket.Packet) bool {
			return so(p) && !bytes.Equal(p.LinkLayer().LinkFlow().Src().Raw(), right)
		}
	}
	// A bridge does not forward while it learns of its ports: ask until it does.
	eventually(t, 5*time.Second, "answers for the VIP and the RIP by ARP", func() bool {
		w.whoHas("192.0.2.100", "192.0.2.1", everybody)
		w.whoHas("192.0.2.11", "192.0.2.1", everybody)
		return w.seen(arpOf(layers.ARPReply, vip4)) && w.seen(arpOf(layers.ARPReply, rip4))
	})
	eventually(t, 5*time.Second, "answers for the VIP and the RIP by neighbour discovery", func() bool {
		w.solicit("2001:db8::100", "2001:db8::1", nil)
		w.solicit("2001:db8::11", "2001:db8::1", nil)
		return w.seen(advertised(vip6)) && w.seen(advertised(rip6))
	})
	if w.seen(fromOther(arpOf(layers.ARPReply, vip4))) || w.seen(fromOther(advertised(vip6))) {
		t.Error("another than the director answered for the VIP")
	}
}

// A real server that answers from the VIP, and must ask for the next hop first,
// does not name the VIP as its own.
func TestQuestionsOfARealServer(t *testing.T) {
	for _, test := range []struct {
		name  string
		setUp func(*host)
		names bool
	}{
		{"real server", func(h *host) { h.mustUp(both) }, false},
		{"VIP alone", func(h *host) { h.ip("address add 192.0.2.100/32 dev lo"); h.ip("address add 2001:db8::100/128 dev lo") }, true},
		// Where the scope host counts: no address of its own to name.
		{"real server without a RIP", func(h *host) {
			h.mustUp(both)
			h.ip("address del 192.0.2.11/24 dev eth0")
			h.ip("route add 192.0.2.0/24 dev eth0")
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, director := newServer(t)
			w := listen(t, director, "eth0")
			test.setUp(server)
			server.ip("neighbour flush dev eth0")
			server.ip("-6 neighbour flush dev eth0")
			// Frames of the director's, as it forwards them: to the VIP, with
			// the real server's MAC address, from a client that it has not met.
			mac := macOf(server)
			for _, p := range []struct {
				network gopacket.SerializableLayer
				frame   layers.EthernetType
			}{
				{&layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolUDP,
					SrcIP: net.IP{192, 0, 2, 1}, DstIP: vip4.AsSlice()}, layers.EthernetTypeIPv4},
				{&layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP,
					SrcIP: net.ParseIP("2001:db8::1"), DstIP: vip6.AsSlice()}, layers.EthernetTypeIPv6},
			} {
				udp := &layers.UDP{SrcPort: 1024, DstPort: 9} // nobody listens: the kernel says so itself
				must(t, "checksum", udp.SetNetworkLayerForChecksum(p.network.(gopacket.NetworkLayer)))
				w.send(&layers.Ethernet{SrcMAC: w.mac, DstMAC: mac, EthernetType: p.frame}, p.network, udp)
			}
			asked := func(p gopacket.Packet) bool {
				arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
				return ok && arp.Operation == layers.ARPRequest && bytes.Equal(arp.SourceHwAddress, mac)
			}
			solicited := func(p gopacket.Packet) bool {
				s, ok := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation)
				return ok && s.TargetAddress.Equal(net.ParseIP("2001:db8::1"))
			}
			eventually(t, 5*time.Second, "question for the client", func() bool { return w.seen(asked) && w.seen(solicited) })
			if got := w.seen(arpOf(layers.ARPRequest, vip4)); got != test.names {
				t.Errorf("ARP request in the name of the VIP: %t, want %t", got, test.names)
			}
			if w.seen(func(p gopacket.Packet) bool {
				ip, ok := p.NetworkLayer().(*layers.IPv6)
				return ok && solicited(p) && ip.SrcIP.Equal(vip6.AsSlice())
			}) {
				t.Error("neighbour solicitation in the name of the VIP")
			}
		})
	}
}
