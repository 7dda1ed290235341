package journey

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var update = flag.Bool("update", false, "write the golden files")

// A network plays a connection on a switch and records its frames.
type network struct {
	t      *testing.T
	cast   Cast
	frames []Frame
	now    time.Time
}

func newNetwork(t *testing.T, ipv6 bool) *network {
	host := func(name string, last byte, addr string) Host {
		return Host{Name: name, MAC: lvs.MAC{2, 0, 0, 0, 0, last}, Addresses: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	n := &network{t: t, now: time.Unix(1_700_000_000, 0).UTC()}
	n.cast = Cast{Client: "client", Director: "director", Service: netip.MustParseAddrPort("192.0.2.100:80"), Hosts: []Host{
		host("client", 0x01, "192.0.2.1"), host("director", 0x10, "192.0.2.10"),
		host("rs1", 0x11, "192.0.2.11"), host("rs2", 0x12, "192.0.2.12"),
	}}
	if ipv6 {
		n.cast.Service = netip.MustParseAddrPort("[2001:db8::100]:80")
		n.cast.Hosts = []Host{
			host("client", 0x01, "2001:db8::1"), host("director", 0x10, "2001:db8::10"),
			host("rs1", 0x11, "2001:db8::11"), host("rs2", 0x12, "2001:db8::12"),
		}
	}
	return n
}

func (n *network) addr(host string) netip.Addr {
	for _, h := range n.cast.Hosts {
		if h.Name == host {
			return h.Addresses[0]
		}
	}
	return n.cast.Service.Addr()
}

// pass records one frame at the host that sends it and at those that get it.
func (n *network) pass(from string, to []string, frame ...gopacket.SerializableLayer) {
	n.t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, frame...); err != nil {
		n.t.Fatal(err)
	}
	data := bytes.Clone(buffer.Bytes())
	n.now = n.now.Add(time.Microsecond)
	n.frames = append(n.frames, Frame{Host: from, Direction: Out, Time: n.now, Data: data, Length: len(data)})
	for _, host := range to {
		n.now = n.now.Add(time.Microsecond)
		n.frames = append(n.frames, Frame{Host: host, Direction: In, Time: n.now, Data: data, Length: len(data)})
	}
}

func (n *network) ethernet(from, to string, kind layers.EthernetType) *layers.Ethernet {
	destination := n.cast.macOf(to)
	switch to {
	case "everyone":
		destination = lvs.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	case "multicast":
		destination = lvs.MAC{0x33, 0x33, 0xff, 0, 1, 0}
	}
	source := n.cast.macOf(from)
	return &layers.Ethernet{SrcMAC: source[:], DstMAC: destination[:], EthernetType: kind}
}

// resolve asks everyone for an address; its owner answers.
func (n *network) resolve(asker, owner string, target netip.Addr) {
	var others []string
	for _, host := range n.cast.Hosts {
		if host.Name != asker {
			others = append(others, host.Name)
		}
	}
	if target.Is4() {
		n.pass(asker, others, n.ethernet(asker, "everyone", layers.EthernetTypeARP),
			n.arp(layers.ARPRequest, asker, n.addr(asker), target))
		n.pass(owner, []string{asker}, n.ethernet(owner, asker, layers.EthernetTypeARP),
			n.arp(layers.ARPReply, owner, target, n.addr(asker)))
		return
	}
	n.pass(asker, others, n.neighborDiscovery(asker, "multicast", n.addr(asker), netip.MustParseAddr("ff02::1:ff00:100"),
		layers.ICMPv6TypeNeighborSolicitation, &layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice()})...)
	n.pass(owner, []string{asker}, n.neighborDiscovery(owner, asker, target, n.addr(asker),
		layers.ICMPv6TypeNeighborAdvertisement, &layers.ICMPv6NeighborAdvertisement{Flags: 0x60, TargetAddress: target.AsSlice()})...)
}

func (n *network) arp(operation uint16, sender string, from, target netip.Addr) *layers.ARP {
	mac := n.cast.macOf(sender)
	return &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: operation, SourceHwAddress: mac[:], SourceProtAddress: from.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
	}
}

func (n *network) neighborDiscovery(from, to string, source, destination netip.Addr, kind uint8, message gopacket.SerializableLayer) []gopacket.SerializableLayer {
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: source.AsSlice(), DstIP: destination.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		n.t.Fatal(err)
	}
	return []gopacket.SerializableLayer{n.ethernet(from, to, layers.EthernetTypeIPv6), ip, icmp, message}
}

// tcp returns a segment between the client's port and the service, as it is on
// the wire between two hosts.
func (n *network) tcp(from, to string, port uint16, flags TCPFlags, sequence uint32, ttl uint8, payload string) []gopacket.SerializableLayer {
	source, destination := netip.AddrPortFrom(n.addr("client"), port), n.cast.Service
	if strings.HasPrefix(from, "rs") {
		source, destination = destination, source
	}
	segment := &layers.TCP{
		SrcPort: layers.TCPPort(source.Port()), DstPort: layers.TCPPort(destination.Port()), Seq: sequence, Window: 1000,
		SYN: flags&SYN != 0, ACK: flags&ACK != 0, FIN: flags&FIN != 0, PSH: flags&PSH != 0, RST: flags&RST != 0,
	}
	var ip gopacket.SerializableLayer
	kind := layers.EthernetTypeIPv4
	if source.Addr().Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: ttl, Protocol: layers.IPProtocolTCP, SrcIP: net.IP(source.Addr().AsSlice()), DstIP: net.IP(destination.Addr().AsSlice())}
		ip = v4
		if err := segment.SetNetworkLayerForChecksum(v4); err != nil {
			n.t.Fatal(err)
		}
	} else {
		v6 := &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: layers.IPProtocolTCP, SrcIP: source.Addr().AsSlice(), DstIP: destination.Addr().AsSlice()}
		ip, kind = v6, layers.EthernetTypeIPv6
		if err := segment.SetNetworkLayerForChecksum(v6); err != nil {
			n.t.Fatal(err)
		}
	}
	return []gopacket.SerializableLayer{n.ethernet(from, to, kind), ip, segment, gopacket.Payload(payload)}
}

// request is a segment from the client through the director to the server.
func (n *network) request(server string, port uint16, flags TCPFlags, sequence uint32, payload string) {
	n.pass("client", []string{"director"}, n.tcp("client", "director", port, flags, sequence, 64, payload)...)
	n.pass("director", []string{server}, n.tcp("director", server, port, flags, sequence, 63, payload)...)
}

// reply goes straight from the server to the client.
func (n *network) reply(server string, port uint16, flags TCPFlags, sequence uint32, payload string) {
	n.pass(server, []string{"client"}, n.tcp(server, "client", port, flags, sequence, 64, payload)...)
}

func (n *network) connection(server string, port uint16, sequence uint32) {
	n.request(server, port, SYN, sequence, "")
	n.resolve(server, "client", n.addr("client"))
	n.reply(server, port, SYN|ACK, 900, "")
	n.request(server, port, ACK, sequence+1, "")
	n.request(server, port, PSH|ACK, sequence+1, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	n.reply(server, port, PSH|ACK, 901, "HTTP/1.1 200 OK\r\n\r\nrs1\n")
	n.reply(server, port, FIN|ACK, 924, "")
	n.request(server, port, FIN|ACK, sequence+27, "")
	n.reply(server, port, ACK, 925, "")
}

// lvsDR plays two connections, and what else is heard on such a network.
func lvsDR(t *testing.T, ipv6 bool) *network {
	n := newNetwork(t, ipv6)
	n.resolve("director", "rs1", n.addr("rs1"))
	n.resolve("director", "rs2", n.addr("rs2"))
	n.resolve("client", "director", n.cast.Service.Addr())
	n.connection("rs1", 40000, 100)
	n.connection("rs2", 40001, 5000)
	n.resolve("director", "rs1", n.addr("rs1"))
	n.connection("rs1", 40000, 7000) // the port again
	return n
}

func TestTell(t *testing.T) {
	for _, family := range []string{"ipv4", "ipv6"} {
		t.Run(family, func(t *testing.T) {
			n := lvsDR(t, family == "ipv6")
			story, err := Tell(n.frames, n.cast)
			if err != nil {
				t.Fatal(err)
			}
			if story.Server != "rs1" || story.Client.Port() != 40000 {
				t.Errorf("told the journey of %s to %s", story.Client, story.Server)
			}
			var table bytes.Buffer
			if err := story.WriteTable(&table); err != nil {
				t.Fatal(err)
			}
			golden(t, family+".txt", table.Bytes())
			steps, err := json.MarshalIndent(story.Steps, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, family+".json", append(steps, '\n'))
		})
	}
}

// The recorded files are what fairlead lab --requests 2 --pcap wrote.
func TestTellRecorded(t *testing.T) {
	for _, family := range []string{"ipv4", "ipv6"} {
		t.Run(family, func(t *testing.T) {
			file, err := os.Open(filepath.Join("testdata", "recorded-"+family+".pcapng"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			story, err := Tell(readPcapng(t, file), newNetwork(t, family == "ipv6").cast)
			if err != nil {
				t.Fatal(err)
			}
			var table bytes.Buffer
			if err := story.WriteTable(&table); err != nil {
				t.Fatal(err)
			}
			golden(t, "recorded-"+family+".txt", table.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// Only MAC addresses that a host changed on the way are marked.
func TestTellMarksWhatChanged(t *testing.T) {
	n := lvsDR(t, false)
	story, err := Tell(n.frames, n.cast)
	if err != nil {
		t.Fatal(err)
	}
	marked := 0
	for _, step := range story.Steps {
		forwarded := step.At == "director" && step.Direction == Out && step.DestinationHost == "rs1" && !strings.HasPrefix(step.What, "ARP")
		if step.NewSourceMAC != forwarded || step.NewDestinationMAC != forwarded {
			t.Errorf("step %d: marked %v %v, want %v", step.Step, step.NewSourceMAC, step.NewDestinationMAC, forwarded)
		}
		if forwarded {
			marked++
		}
	}
	if marked != 4 {
		t.Errorf("%d forwarded packets in the journey, want 4", marked)
	}
}

func TestTellOrdersByTime(t *testing.T) {
	n := lvsDR(t, false)
	want, err := Tell(n.frames, n.cast)
	if err != nil {
		t.Fatal(err)
	}
	reversed := make([]Frame, 0, len(n.frames))
	for i := range n.frames {
		reversed = append(reversed, n.frames[len(n.frames)-1-i])
	}
	got, err := Tell(reversed, n.cast)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Steps, got.Steps, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the order of the input matters (-want +got):\n%s", diff)
	}
}

func TestTellWithoutServer(t *testing.T) {
	n := newNetwork(t, false)
	n.resolve("client", "director", n.cast.Service.Addr())
	n.pass("client", []string{"director"}, n.tcp("client", "director", 40000, SYN, 100, 64, "")...)
	story, err := Tell(n.frames, n.cast)
	if err != nil {
		t.Fatal(err)
	}
	if story.Server != "" || len(story.Steps) != 6 {
		t.Errorf("server %q, %d steps, want none and 6", story.Server, len(story.Steps))
	}
}

func TestTellNothing(t *testing.T) {
	n := newNetwork(t, false)
	n.resolve("client", "director", n.cast.Service.Addr())
	if _, err := Tell(n.frames, n.cast); !errors.Is(err, ErrNoConnection) {
		t.Errorf("got %v, want ErrNoConnection", err)
	}
}
