package lvs

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// A Protocol is an IP protocol number that virtual services know.
type Protocol uint8

// The protocols of virtual services (IANA protocol numbers). A service of a
// firewall mark has protocol 0, which its templates are listed by as IP.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the name that listings use: IP, TCP, UDP, SCTP, or the number.
func (p Protocol) String() string {
	switch p {
	case 0:
		return "IP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(p))
}

// A ServiceKey names a virtual service: either protocol, VIP and port, or a
// firewall mark (Mark is not 0). For a mark, Address is the unspecified address
// of the service's family, and Protocol and Port are 0.
type ServiceKey struct {
	Protocol Protocol
	Address  netip.Addr
	Port     uint16
	Mark     uint32
}

// MarkKey returns the key of the service of a firewall mark; ipv6 says its
// address family.
func MarkKey(mark uint32, ipv6 bool) ServiceKey {
	if ipv6 {
		return ServiceKey{Address: netip.IPv6Unspecified(), Mark: mark}
	}
	return ServiceKey{Address: netip.IPv4Unspecified(), Mark: mark}
}

// String returns the key as a person reads it: "TCP 192.0.2.100:80",
// "TCP [2001:db8::100]:80", "FWM 7", "FWM 8 IPv6".
func (k ServiceKey) String() string {
	if k.Mark != 0 {
		if k.Address.Is6() {
			return fmt.Sprintf("FWM %d IPv6", k.Mark)
		}
		return fmt.Sprintf("FWM %d", k.Mark)
	}
	return k.Protocol.String() + " " + netip.AddrPortFrom(k.Address, k.Port).String()
}

// A Service is what is wanted of one virtual service.
type Service struct {
	ServiceKey
	Scheduler      Scheduler
	SchedulerFlags SchedulerFlags

	// PersistenceTimeout is 0 for a service without persistence; whole seconds.
	PersistenceTimeout time.Duration
	// PersistenceMask groups clients: for IPv4 the dotted mask as a number in
	// host order (255.255.255.0 is 0xffffff00; masks with holes are allowed, as
	// in IPVS), for IPv6 the prefix length 1..128.
	PersistenceMask uint32
	// PersistenceEngine is "" or EngineSIP.
	PersistenceEngine string
	// OnePacket schedules every datagram by itself (UDP and marks only).
	OnePacket bool
}

// EngineSIP is the persistence engine that tells calls apart: datagrams of SIP with one Call-ID go
// to one server.
const EngineSIP = "sip"

// FullPersistenceMask returns the mask that keeps every client by itself, the
// default, for the family of addr.
func FullPersistenceMask(addr netip.Addr) uint32 {
	if addr.Is4() {
		return 0xffffffff
	}
	return 128
}

// A ServiceStatus is a service as it was read back.
type ServiceStatus struct {
	Service
	Counters Counters
	Rates    Rates
	// Servers are in the order in which schedulers walk them: the newest first
	// (the kernel's ip_vs_ctl.c adds at the head).
	Servers []RealServerStatus
	// Withheld are those that are not there because they are not healthy, or because a
	// sorry server has their place. They come back by themselves.
	Withheld []RealServerStatus
	Quorum   QuorumStatus
}

// All returns the servers that are there, and those that are withheld, for changes.
func (s *ServiceStatus) All() []*RealServerStatus {
	all := make([]*RealServerStatus, 0, len(s.Servers)+len(s.Withheld))
	for i := range s.Servers {
		all = append(all, &s.Servers[i])
	}
	for i := range s.Withheld {
		all = append(all, &s.Withheld[i])
	}
	return all
}

// Counters are totals since the service or server was added or zeroed.
type Counters struct {
	Connections uint64
	InPackets   uint64
	OutPackets  uint64
	InBytes     uint64
	OutBytes    uint64
}

// Add returns the sums of c and d, field by field, modulo 2^64.
func (c Counters) Add(d Counters) Counters {
	return Counters{
		Connections: c.Connections + d.Connections,
		InPackets:   c.InPackets + d.InPackets,
		OutPackets:  c.OutPackets + d.OutPackets,
		InBytes:     c.InBytes + d.InBytes,
		OutBytes:    c.OutBytes + d.OutBytes,
	}
}

// Sub returns the differences of c and d, field by field, modulo 2^64.
func (c Counters) Sub(d Counters) Counters {
	return Counters{
		Connections: c.Connections - d.Connections,
		InPackets:   c.InPackets - d.InPackets,
		OutPackets:  c.OutPackets - d.OutPackets,
		InBytes:     c.InBytes - d.InBytes,
		OutBytes:    c.OutBytes - d.OutBytes,
	}
}

// Rates are per second, averaged as the kernel's estimator does (ip_vs_est.c):
// every 2 s, the newest interval with weight 1/4.
type Rates struct {
	Connections uint64
	InPackets   uint64
	OutPackets  uint64
	InBytes     uint64
	OutBytes    uint64
}

// Timeouts are the three that ipvsadm --set changes; whole seconds. A zero asks
// for no change.
type Timeouts struct {
	TCP    time.Duration // ESTABLISHED
	TCPFin time.Duration // FIN_WAIT
	UDP    time.Duration
}
