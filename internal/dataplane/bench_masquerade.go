package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A benchDirection is which way packets of the benchmark go.
type benchDirection uint8

const (
	benchRequests benchDirection = iota
	benchReplies                 // of a masqueraded real server
)

// Where packets of masquerading go at the real server.
const benchServerPort = 8080

// The port of one client, with which the packet generator begins: BENCH_FIRST_PORT of
// bench.bpf.c. It is the one port of the pool of FullNAT, too.
const benchClientPort = 1024

// masqueradeCases are what is measured of masquerading, both ways.
func masqueradeCases() []BenchCase {
	var cases []BenchCase
	for _, method := range []string{"nat", "fullnat"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			c := BenchCase{
				Name: method + "/" + family + "/1", IPv6: family == "ipv6", Flows: 1, Masqueraded: true, FullNAT: method == "fullnat",
			}
			cases = append(cases, c)
			c.Name, c.Direction = method+"-reply/"+family+"/1", benchReplies
			cases = append(cases, c)
		}
	}
	return cases
}

// servers returns how many real servers there are: one of masquerading, so that it is
// known who replies.
func (c BenchCase) servers() int {
	if c.Masqueraded {
		return 1
	}
	return benchServers
}

// server returns the i-th real server, whose address is that.
func (c BenchCase) server(i int, address netip.Addr) lvs.RealServer {
	rs := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: address, Port: 80},
		Method:        lvs.DirectRouting,
		Weight:        benchWeight(c.Scheduler, i),
	}
	switch {
	case c.Tunnel != nil:
		rs.Method, rs.Tunnel = lvs.Tunnelling, *c.Tunnel
	case c.FullNAT:
		rs.Method, rs.Port = lvs.FullNAT, benchServerPort
	case c.Masqueraded:
		rs.Method, rs.Port = lvs.Masquerading, benchServerPort
	}
	return rs
}

// local returns where the client of FullNAT comes from at the real server. It differs from
// the client's address in what the packet generator writes of that.
func (b *bench) local() netip.Addr {
	if b.IPv6 {
		return netip.MustParseAddr("2001:db8:3::ffff:1")
	}
	return netip.MustParseAddr("198.51.100.253")
}

// localAddresses returns the pool of FullNAT: one port.
func (b *bench) localAddresses() []lvs.LocalAddress {
	local := b.local()
	return []lvs.LocalAddress{{
		Prefix: netip.PrefixFrom(local, local.BitLen()), Ports: lvs.PortRange{First: benchClientPort, Last: benchClientPort},
	}}
}

// ends returns the ends of a packet: the client's is without its port, which the packet
// generator fills in.
func (b *bench) ends(direction benchDirection) (from, to netip.AddrPort) {
	vip, server, client := b.addresses()
	if direction == benchReplies {
		if b.FullNAT {
			client = b.local()
		}
		return netip.AddrPortFrom(server, benchServerPort), netip.AddrPortFrom(client, 0)
	}
	return netip.AddrPortFrom(client, 0), netip.AddrPortFrom(vip, 80)
}

// Offsets of addresses and ports in a frame.
const (
	ipv4Source = ethernetHeader + 12
	ipv4Upper  = ethernetHeader + 20
	ipv6Source = ethernetHeader + 8
	ipv6Upper  = ethernetHeader + 40
)

// place says where in a frame the packet generator writes, and what of that translation
// changes besides.
func (b *bench) place(run *benchBenchRun, frame []byte, direction benchDirection) {
	source, upper, length := uint32(ipv4Source), uint32(ipv4Upper), uint32(4)
	run.TtlOffset, run.CheckOffset = ipv4TTL, ipv4Check
	if b.IPv6 {
		source, upper, length = ipv6Source, ipv6Upper, 16
		run.TtlOffset, run.CheckOffset = ipv6TTL, 0
	}
	client, peer, clientPort, peerPort := source, source+length, upper, upper+2
	if direction == benchReplies {
		client, peer, clientPort, peerPort = peer, client, peerPort, clientPort
	}
	run.ClientOffset, run.PortOffset = client+length-4, clientPort
	run.Client = binary.BigEndian.Uint32(frame[run.ClientOffset:])
	if !b.Masqueraded {
		return
	}
	run.PeerOffset, run.PeerPortOffset, run.PeerWords = peer, peerPort, length/4
	for i := range run.PeerWords {
		run.Peer[i] = binary.NativeEndian.Uint32(frame[peer+4*i:])
	}
	run.PeerPort = binary.NativeEndian.Uint16(frame[peerPort:])
}

// routeReplies keeps the way to the client, as if the kernel had just been asked for it:
// loopback, by which the packets come in here, has none.
func (b *bench) routeReplies() error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("route replies: %w", err)
	}
	now, err := b.plane.now()
	if err != nil {
		return fmt.Errorf("route replies: %w", err)
	}
	vip, _, client := b.addresses()
	hop := directorClientHop{
		Caddr: toAddress(client), Vaddr: toAddress(vip), Verdict: uint32(directorVerdictFORWARD_REPLY),
		Hop:   toNextHop(lvs.NextHop{InterfaceIndex: benchIfindex, MTU: 1500, Source: benchMAC, Destination: lvs.MAC{2, 0, 0, 0, 0, 0xfe}}),
		Until: now + 1<<30,
	}
	hops := make([]directorClientHop, cpus)
	for i := range hops {
		hops[i] = hop
	}
	for i := range b.plane.maps.ClientHops.MaxEntries() {
		if err := b.plane.maps.ClientHops.Put(i, hops); err != nil {
			return fmt.Errorf("route replies: %w", err)
		}
	}
	return nil
}
