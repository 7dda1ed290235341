package dataplane

import (
	"encoding/binary"
	"math"
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

// toPort and fromPort exchange a port with its form on the wire.
func toPort(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func fromPort(port uint16) uint16 { return toPort(port) }

func toServiceKey(key lvs.ServiceKey) directorServiceKey {
	return directorServiceKey{
		Vaddr:    toAddress(key.Address),
		Vport:    toPort(key.Port),
		Protocol: uint8(key.Protocol),
	}
}

func fromServiceKey(key directorServiceKey) lvs.ServiceKey {
	return lvs.ServiceKey{
		Address:  fromAddress(key.Vaddr),
		Port:     fromPort(key.Vport),
		Protocol: lvs.Protocol(key.Protocol),
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
