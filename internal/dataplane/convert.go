package dataplane

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Everything that crosses the border between Go and the data plane is converted
// here, byte order included: generated types don't tell it.

func toAddress(addr netip.Addr) directorAddress {
	b := addr.As16()
	return directorAddress{
		High: binary.NativeEndian.Uint64(b[:8]),
		Low:  binary.NativeEndian.Uint64(b[8:]),
	}
}

func fromAddress(a directorAddress) netip.Addr {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], a.High)
	binary.NativeEndian.PutUint64(b[8:], a.Low)
	return netip.AddrFrom16(b).Unmap()
}

// sumAddress returns the one's complement sum of an address as it stands in a header: what
// maps one of IPv4 is no part of it.
func sumAddress(a directorAddress) uint16 {
	b := fromAddress(a).AsSlice()
	var sum uint16
	for i := 0; i < len(b); i += 2 {
		sum = addSums(sum, binary.NativeEndian.Uint16(b[i:]))
	}
	return sum
}

// addSums adds in one's complement (RFC 1071).
func addSums(a, b uint16) uint16 {
	sum, carry := bits.Add32(uint32(a)<<16, uint32(b)<<16, 0)
	return uint16(sum>>16) + uint16(carry)
}

// toPort and fromPort exchange a port with its form on the wire.
func toPort(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func fromPort(port uint16) uint16 { return toPort(port) }

// fromIdentification is the number by which a sender names a datagram: sixteen
// bits of IPv4, 32 of IPv6.
func fromIdentification(id uint32, ipv4 bool) uint32 {
	if ipv4 {
		return uint32(fromPort(uint16(id)))
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], id)
	return binary.BigEndian.Uint32(b[:])
}

func toServiceKey(key lvs.ServiceKey) directorServiceKey {
	if key.Mark != 0 {
		return directorServiceKey{Vaddr: toMark(key.Mark, key.Address.Is6())}
	}
	return directorServiceKey{
		Vaddr:    toAddress(key.Address),
		Vport:    toPort(key.Port),
		Protocol: uint8(key.Protocol),
	}
}

func fromServiceKey(key directorServiceKey) lvs.ServiceKey {
	if key.Protocol == 0 {
		return fromMark(key.Vaddr)
	}
	return lvs.ServiceKey{
		Address:  fromAddress(key.Vaddr),
		Port:     fromPort(key.Vport),
		Protocol: lvs.Protocol(key.Protocol),
	}
}

// toMark returns what the service of a mark has for an address: the mark in the
// first four bytes of an address of its family, as in IPVS's templates.
func toMark(mark uint32, ipv6 bool) directorAddress {
	var b [16]byte
	binary.BigEndian.PutUint32(b[:], mark)
	if ipv6 {
		return toAddress(netip.AddrFrom16(b))
	}
	return toAddress(netip.AddrFrom4([4]byte(b[:4])))
}

func fromMark(vaddr directorAddress) lvs.ServiceKey {
	addr := fromAddress(vaddr)
	return lvs.MarkKey(binary.BigEndian.Uint32(addr.AsSlice()), addr.Is6())
}

// toClientMask returns what of a client's address counts, for the persistence mask
// of a service of addr's family.
func toClientMask(addr netip.Addr, mask uint32) directorAddress {
	if addr.Is6() {
		return maskOf(int(min(mask, 128)))
	}
	full := maskOf(128)
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], mask)
	full.Low = full.Low&0xffffffff | uint64(binary.NativeEndian.Uint32(b[:]))<<32
	return full
}

func fromClientMask(addr netip.Addr, mask directorAddress) uint32 {
	if addr.Is6() {
		return uint32(bits.OnesCount64(mask.High) + bits.OnesCount64(mask.Low))
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(mask.Low>>32))
	return binary.BigEndian.Uint32(b[:])
}

// maskOf returns an address whose first bits are ones.
func maskOf(ones int) directorAddress {
	var b [16]byte
	for i := range ones {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return directorAddress{
		High: binary.NativeEndian.Uint64(b[:8]),
		Low:  binary.NativeEndian.Uint64(b[8:]),
	}
}

// toPrefix returns an address and a mask that the zero prefix fits, and any address
// with it.
func toPrefix(prefix netip.Prefix) (addr, mask directorAddress) {
	if !prefix.IsValid() {
		return addr, mask
	}
	return toAddress(prefix.Addr()), maskOf(prefix.Bits() + 128 - prefix.Addr().BitLen())
}

func fromPrefix(addr, mask directorAddress) netip.Prefix {
	if mask == (directorAddress{}) && addr == mask {
		return netip.Prefix{}
	}
	at := fromAddress(addr)
	ones := bits.OnesCount64(mask.High) + bits.OnesCount64(mask.Low)
	return netip.PrefixFrom(at, ones+at.BitLen()-128)
}

func toMarkRule(rule lvs.MarkRule) directorMarkRule {
	wire := directorMarkRule{
		Mark:       rule.Mark,
		Protocol:   uint8(rule.Protocol),
		CportFirst: rule.SourcePorts.First, CportLast: rule.SourcePorts.Last,
		VportFirst: rule.DestinationPorts.First, VportLast: rule.DestinationPorts.Last,
	}
	wire.Caddr, wire.CaddrMask = toPrefix(rule.Source)
	wire.Vaddr, wire.VaddrMask = toPrefix(rule.Destination)
	return wire
}

func fromMarkRule(wire directorMarkRule) lvs.MarkRule {
	return lvs.MarkRule{
		Mark:             wire.Mark,
		Protocol:         lvs.Protocol(wire.Protocol),
		Source:           fromPrefix(wire.Caddr, wire.CaddrMask),
		Destination:      fromPrefix(wire.Vaddr, wire.VaddrMask),
		SourcePorts:      lvs.PortRange{First: wire.CportFirst, Last: wire.CportLast},
		DestinationPorts: lvs.PortRange{First: wire.VportFirst, Last: wire.VportLast},
	}
}

// toLocalAddress returns one address of a pool's prefix.
func toLocalAddress(addr netip.Addr, local lvs.LocalAddress) directorLocalAddress {
	return directorLocalAddress{
		Addr:      toAddress(addr),
		FirstPort: local.Ports.First,
		Ports:     local.Ports.Last - local.Ports.First + 1,
		Prefix:    uint32(local.Prefix.Bits()),
	}
}

// fromLocalAddress returns the prefix that an address is of.
func fromLocalAddress(wire directorLocalAddress) lvs.LocalAddress {
	return lvs.LocalAddress{
		Prefix: netip.PrefixFrom(fromAddress(wire.Addr), int(wire.Prefix)).Masked(),
		Ports:  lvs.PortRange{First: wire.FirstPort, Last: wire.FirstPort + wire.Ports - 1},
	}
}

func toNextHop(hop lvs.NextHop) directorNextHop {
	switch {
	case !hop.Usable():
		return directorNextHop{}
	case hop.Local:
		return directorNextHop{Local: 1}
	}
	return directorNextHop{
		Ifindex:           uint32(hop.InterfaceIndex),
		Vlan:              hop.VLAN,
		Mtu:               uint16(min(hop.MTU, math.MaxUint16)),
		DestinationSource: toMACs(hop.Destination, hop.Source),
	}
}

func fromNextHop(hop directorNextHop) lvs.NextHop {
	destination, source := fromMACs(hop.DestinationSource)
	return lvs.NextHop{
		InterfaceIndex: int(hop.Ifindex),
		VLAN:           hop.Vlan,
		MTU:            int(hop.Mtu),
		Destination:    destination,
		Source:         source,
		Local:          hop.Local != 0,
	}
}

// toMACs puts two MAC addresses as they stand in a frame into words.
func toMACs(destination, source lvs.MAC) (words [3]uint32) {
	b := append(destination[:], source[:]...)
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return words
}

// toMACWord puts a MAC address into a word as read_source in peer.h does.
func toMACWord(mac lvs.MAC) uint64 {
	return binary.LittleEndian.Uint64(append(mac[:], 0, 0))
}

func fromMACWord(word uint64) lvs.MAC {
	return lvs.MAC(binary.LittleEndian.AppendUint64(nil, word)[:6])
}

func fromMACs(words [3]uint32) (destination, source lvs.MAC) {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return lvs.MAC(b[:6]), lvs.MAC(b[6:])
}

func fromCounters(c directorCounters) lvs.Counters {
	return lvs.Counters{
		Connections: c.Connections,
		InPackets:   c.InPackets,
		OutPackets:  c.OutPackets,
		InBytes:     c.InBytes,
		OutBytes:    c.OutBytes,
	}
}

func toCounters(c lvs.Counters) directorCounters {
	return directorCounters{
		Connections: c.Connections,
		InPackets:   c.InPackets,
		OutPackets:  c.OutPackets,
		InBytes:     c.InBytes,
		OutBytes:    c.OutBytes,
	}
}

// schedulers maps the names of the schedulers that the data plane has.
var schedulers = map[lvs.Scheduler]directorScheduler{
	lvs.RoundRobin:                            directorSchedulerSCHEDULER_RR,
	lvs.WeightedRoundRobin:                    directorSchedulerSCHEDULER_WRR,
	lvs.LeastConnection:                       directorSchedulerSCHEDULER_LC,
	lvs.WeightedLeastConnection:               directorSchedulerSCHEDULER_WLC,
	lvs.ShortestExpectedDelay:                 directorSchedulerSCHEDULER_SED,
	lvs.NeverQueue:                            directorSchedulerSCHEDULER_NQ,
	lvs.WeightedFailover:                      directorSchedulerSCHEDULER_FO,
	lvs.WeightedOverflow:                      directorSchedulerSCHEDULER_OVF,
	lvs.PowerOfTwo:                            directorSchedulerSCHEDULER_TWOS,
	lvs.DestinationHashing:                    directorSchedulerSCHEDULER_DH,
	lvs.SourceHashing:                         directorSchedulerSCHEDULER_SH,
	lvs.MaglevHashing:                         directorSchedulerSCHEDULER_MH,
	lvs.LocalityBasedLeastConnection:          directorSchedulerSCHEDULER_LBLC,
	lvs.LocalityBasedLeastConnectionReplicate: directorSchedulerSCHEDULER_LBLCR,
}

// HasScheduler reports whether the data plane has a scheduler.
func HasScheduler(name lvs.Scheduler) bool {
	_, ok := schedulers[name]
	return ok
}

func fromScheduler(s directorScheduler) lvs.Scheduler {
	for name, value := range schedulers {
		if value == s {
			return name
		}
	}
	return ""
}

// addressOf returns a net.IP, which must be valid, as a netip.Addr.
func addressOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func toXDPMode(mode Mode) directorXdpMode {
	switch mode {
	case ModeGeneric:
		return directorXdpModeXDP_MODE_GENERIC
	case ModeTC:
		return directorXdpModeXDP_MODE_TC
	}
	return directorXdpModeXDP_MODE_NATIVE
}

func fromXDPMode(mode directorXdpMode) Mode {
	switch mode {
	case directorXdpModeXDP_MODE_GENERIC:
		return ModeGeneric
	case directorXdpModeXDP_MODE_TC:
		return ModeTC
	}
	return ModeNative
}
