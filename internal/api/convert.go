package api

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The domain to protobuf and back. What comes in is checked here for what any
// director would refuse: form, ranges of numbers, values of enums. What a
// director can do is for it to say.

// MaxTimeout is the longest timeout that can be asked for, 31 days, as ipvsadm
// has it.
const MaxTimeout = 31 * 24 * time.Hour

// invalid returns an lvs.ErrInvalid that says which field, what was given and
// what is allowed.
func invalid(field string, given any, allowed string) error {
	return fmt.Errorf("%s %q: %w: want %s", field, fmt.Sprint(given), lvs.ErrInvalid, allowed)
}

func missing(field string) error {
	return fmt.Errorf("%s: %w: it is missing", field, lvs.ErrInvalid)
}

func parseAddrPort(field, given string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(given)
	if err == nil && lvs.IsPlain(addr.Addr()) {
		return addr, nil
	}
	return netip.AddrPort{}, refuseAddress(field, given, addr.Addr(),
		`an address with a port, like "192.0.2.100:80" or "[2001:db8::100]:80"`,
		netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String())
}

func parseAddr(field, given string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(given)
	if err == nil && lvs.IsPlain(addr) {
		return addr, nil
	}
	return netip.Addr{}, refuseAddress(field, given, addr,
		`an address, like "192.0.2.11" or "2001:db8::11"`, addr.Unmap().String())
}

// refuseAddress says what is wrong with an address that is not plain: allowed is what is wanted
// instead, or plain, if it is an IPv4 one that was not written so.
func refuseAddress(field, given string, addr netip.Addr, allowed, plain string) error {
	switch lvs.FaultOf(addr) {
	case lvs.HasZone:
		allowed = "an address without a zone"
	case lvs.MappedIPv4:
		allowed = "an IPv4 address written as such: " + plain
	}
	return invalid(field, given, allowed)
}

func parseProtocol(field string, given fairleadv1.Protocol) (lvs.Protocol, error) {
	switch given {
	case fairleadv1.Protocol_PROTOCOL_TCP:
		return lvs.TCP, nil
	case fairleadv1.Protocol_PROTOCOL_UDP:
		return lvs.UDP, nil
	case fairleadv1.Protocol_PROTOCOL_SCTP:
		return lvs.SCTP, nil
	}
	return 0, invalid(field, given, "PROTOCOL_TCP, PROTOCOL_UDP or PROTOCOL_SCTP")
}

func keyToWire(key lvs.ServiceKey) *fairleadv1.ServiceKey {
	if key.Mark != 0 {
		return &fairleadv1.ServiceKey{FirewallMark: key.Mark, Ipv6: key.Address.Is6()}
	}
	return &fairleadv1.ServiceKey{
		Protocol: fairleadv1.Protocol(key.Protocol),
		Address:  netip.AddrPortFrom(key.Address, key.Port).String(),
	}
}

func keyFromWire(field string, key *fairleadv1.ServiceKey) (lvs.ServiceKey, error) {
	if key == nil {
		return lvs.ServiceKey{}, missing(field)
	}
	if key.FirewallMark != 0 {
		if key.Address != "" || key.Protocol != fairleadv1.Protocol_PROTOCOL_UNSPECIFIED {
			return lvs.ServiceKey{}, invalid(field, key, "either protocol and address, or firewall_mark")
		}
		return lvs.MarkKey(key.FirewallMark, key.Ipv6), nil
	}
	protocol, err := parseProtocol(field+".protocol", key.Protocol)
	if err != nil {
		return lvs.ServiceKey{}, err
	}
	addr, err := parseAddrPort(field+".address", key.Address)
	if err != nil {
		return lvs.ServiceKey{}, err
	}
	if key.Ipv6 && addr.Addr().Is4() {
		return lvs.ServiceKey{}, invalid(field+".ipv6", key.Ipv6, "it for a firewall mark only")
	}
	return lvs.ServiceKey{Protocol: protocol, Address: addr.Addr(), Port: addr.Port()}, nil
}

func serviceToWire(s lvs.Service) *fairleadv1.Service {
	return &fairleadv1.Service{
		Key:                keyToWire(s.ServiceKey),
		Scheduler:          string(s.Scheduler),
		SchedulerFlags:     uint32(s.SchedulerFlags),
		PersistenceSeconds: secondsToWire(s.PersistenceTimeout),
		PersistenceMask:    s.PersistenceMask,
		PersistenceEngine:  s.PersistenceEngine,
		OnePacket:          s.OnePacket,
	}
}

func serviceFromWire(field string, s *fairleadv1.Service) (lvs.Service, error) {
	if s == nil {
		return lvs.Service{}, missing(field)
	}
	key, err := keyFromWire(field+".key", s.Key)
	if err != nil {
		return lvs.Service{}, err
	}
	const allFlags = lvs.Flag1 | lvs.Flag2 | lvs.Flag3
	if s.SchedulerFlags > uint32(allFlags) {
		return lvs.Service{}, invalid(field+".scheduler_flags", s.SchedulerFlags, "0 to 7")
	}
	persistence, err := secondsFromWire(field+".persistence_seconds", s.PersistenceSeconds)
	if err != nil {
		return lvs.Service{}, err
	}
	if key.Address.Is6() && s.PersistenceMask > 128 {
		return lvs.Service{}, invalid(field+".persistence_mask", s.PersistenceMask, "an IPv6 prefix length, 1 to 128")
	}
	return lvs.Service{
		ServiceKey:         key,
		Scheduler:          lvs.Scheduler(s.Scheduler),
		SchedulerFlags:     lvs.SchedulerFlags(s.SchedulerFlags),
		PersistenceTimeout: persistence,
		PersistenceMask:    s.PersistenceMask,
		PersistenceEngine:  s.PersistenceEngine,
		OnePacket:          s.OnePacket,
	}, nil
}

// The enums of a real server are those of the domain, one higher: 0 is "not
// said" on the wire.

func serverToWire(r lvs.RealServer) *fairleadv1.RealServer {
	wire := &fairleadv1.RealServer{
		Address:        r.RealServerKey.String(),
		Method:         fairleadv1.ForwardingMethod(r.Method) + 1,
		Weight:         r.Weight,
		UpperThreshold: r.UpperThreshold,
		LowerThreshold: r.LowerThreshold,
	}
	if r.Method == lvs.Tunnelling {
		wire.Tunnel = &fairleadv1.Tunnel{
			Type:     fairleadv1.TunnelType(r.Tunnel.Type) + 1,
			Port:     uint32(r.Tunnel.Port),
			Checksum: fairleadv1.TunnelChecksum(r.Tunnel.Checksum) + 1,
		}
	}
	wire.Toa = r.TOA
	return wire
}

func serverFromWire(field string, r *fairleadv1.RealServer) (lvs.RealServer, error) {
	if r == nil {
		return lvs.RealServer{}, missing(field)
	}
	key, err := serverKeyFromWire(field+".address", r.Address)
	if err != nil {
		return lvs.RealServer{}, err
	}
	if r.Method != fairleadv1.ForwardingMethod_FORWARDING_METHOD_FULL_NAT && (r.Method < fairleadv1.ForwardingMethod_FORWARDING_METHOD_MASQUERADING ||
		r.Method > fairleadv1.ForwardingMethod_FORWARDING_METHOD_DIRECT_ROUTING) {
		return lvs.RealServer{}, invalid(field+".method", r.Method, "a forwarding method: FORWARDING_METHOD_MASQUERADING, "+
			"_LOCAL, _TUNNELLING, _DIRECT_ROUTING or _FULL_NAT")
	}
	if r.Toa && r.Method != fairleadv1.ForwardingMethod_FORWARDING_METHOD_FULL_NAT {
		return lvs.RealServer{}, invalid(field+".toa", r.Toa, "it with FORWARDING_METHOD_FULL_NAT only")
	}
	if r.Weight > math.MaxInt32 {
		return lvs.RealServer{}, fmt.Errorf("%s.weight %d: %w: want 0 to %d", field, r.Weight, lvs.ErrRange, math.MaxInt32)
	}
	server := lvs.RealServer{
		RealServerKey:  key,
		Method:         lvs.ForwardingMethod(r.Method - 1),
		Weight:         r.Weight,
		UpperThreshold: r.UpperThreshold,
		LowerThreshold: r.LowerThreshold,
		TOA:            r.Toa,
	}
	if server.Method != lvs.Tunnelling {
		if r.Tunnel != nil {
			return lvs.RealServer{}, invalid(field+".tunnel", r.Tunnel, "it with FORWARDING_METHOD_TUNNELLING only")
		}
		return server, nil
	}
	server.Tunnel, err = tunnelFromWire(field+".tunnel", r.Tunnel)
	return server, err
}

func serverKeyFromWire(field, given string) (lvs.RealServerKey, error) {
	addr, err := parseAddrPort(field, given)
	return lvs.RealServerKey{Address: addr.Addr(), Port: addr.Port()}, err
}

func tunnelFromWire(field string, t *fairleadv1.Tunnel) (lvs.Tunnel, error) {
	switch {
	case t == nil:
		return lvs.Tunnel{}, missing(field)
	case t.Type < fairleadv1.TunnelType_TUNNEL_TYPE_IPIP || t.Type > fairleadv1.TunnelType_TUNNEL_TYPE_GRE:
		return lvs.Tunnel{}, invalid(field+".type", t.Type, "TUNNEL_TYPE_IPIP, TUNNEL_TYPE_GUE or TUNNEL_TYPE_GRE")
	case t.Port > math.MaxUint16:
		return lvs.Tunnel{}, invalid(field+".port", t.Port, "0 to 65535")
	case t.Checksum < fairleadv1.TunnelChecksum_TUNNEL_CHECKSUM_NONE ||
		t.Checksum > fairleadv1.TunnelChecksum_TUNNEL_CHECKSUM_REMOTE:
		return lvs.Tunnel{}, invalid(field+".checksum", t.Checksum,
			"TUNNEL_CHECKSUM_NONE, TUNNEL_CHECKSUM_FULL or TUNNEL_CHECKSUM_REMOTE")
	}
	return lvs.Tunnel{
		Type:     lvs.TunnelType(t.Type - 1),
		Port:     uint16(t.Port),
		Checksum: lvs.TunnelChecksum(t.Checksum - 1),
	}, nil
}

func countersToWire(c lvs.Counters) *fairleadv1.Counters {
	return &fairleadv1.Counters{
		Connections: c.Connections,
		InPackets:   c.InPackets,
		OutPackets:  c.OutPackets,
		InBytes:     c.InBytes,
		OutBytes:    c.OutBytes,
	}
}

func countersFromWire(c *fairleadv1.Counters) lvs.Counters {
	return lvs.Counters{
		Connections: c.GetConnections(),
		InPackets:   c.GetInPackets(),
		OutPackets:  c.GetOutPackets(),
		InBytes:     c.GetInBytes(),
		OutBytes:    c.GetOutBytes(),
	}
}

func nextHopToWire(h lvs.NextHop) *fairleadv1.NextHop {
	return &fairleadv1.NextHop{
		Interface:      h.InterfaceName,
		InterfaceIndex: uint32(h.InterfaceIndex),
		SourceMac:      macToWire(h.Source),
		DestinationMac: macToWire(h.Destination),
		Vlan:           uint32(h.VLAN),
		Mtu:            uint32(h.MTU),
		Gateway:        addrToWire(h.Gateway),
		Local:          h.Local,
		Problem:        h.Problem,
	}
}

func nextHopFromWire(field string, h *fairleadv1.NextHop) (lvs.NextHop, error) {
	source, err := macFromWire(field+".source_mac", h.GetSourceMac())
	if err != nil {
		return lvs.NextHop{}, err
	}
	destination, err := macFromWire(field+".destination_mac", h.GetDestinationMac())
	if err != nil {
		return lvs.NextHop{}, err
	}
	if h.GetVlan() > 4095 {
		return lvs.NextHop{}, invalid(field+".vlan", h.GetVlan(), "0 to 4095")
	}
	var gateway netip.Addr
	if given := h.GetGateway(); given != "" {
		if gateway, err = parseAddr(field+".gateway", given); err != nil {
			return lvs.NextHop{}, err
		}
	}
	return lvs.NextHop{
		InterfaceIndex: int(h.GetInterfaceIndex()),
		InterfaceName:  h.GetInterface(),
		Source:         source,
		Destination:    destination,
		VLAN:           uint16(h.GetVlan()),
		MTU:            int(h.GetMtu()),
		Gateway:        gateway,
		Local:          h.GetLocal(),
		Problem:        h.GetProblem(),
	}, nil
}

// addrToWire returns "" for the zero Addr: none.
func addrToWire(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// macToWire returns "" for the address that is all zeros: none.
func macToWire(m lvs.MAC) string {
	if m == (lvs.MAC{}) {
		return ""
	}
	return m.String()
}

func macFromWire(field, given string) (lvs.MAC, error) {
	var mac lvs.MAC
	if given == "" {
		return mac, nil
	}
	parsed, err := net.ParseMAC(given)
	if err != nil || len(parsed) != len(mac) {
		return mac, invalid(field, given, `an Ethernet address, like "02:00:00:00:00:01"`)
	}
	return lvs.MAC(parsed), nil
}

func serviceStatusToWire(s lvs.ServiceStatus) *fairleadv1.ServiceStatus {
	return &fairleadv1.ServiceStatus{
		Service:  serviceToWire(s.Service),
		Counters: countersToWire(s.Counters),
		Rates:    countersToWire(lvs.Counters(s.Rates)),
		Servers:  each(s.Servers, serverStatusToWire),
		Withheld: each(s.Withheld, serverStatusToWire),
		Quorum:   quorumToWire(s.Quorum),
	}
}

func serverStatusToWire(r lvs.RealServerStatus) *fairleadv1.RealServerStatus {
	return &fairleadv1.RealServerStatus{
		Server:                serverToWire(r.RealServer),
		ActiveConnections:     r.Active,
		InactiveConnections:   r.Inactive,
		PersistentConnections: r.Persistent,
		Retries:               r.Retries,
		Resets:                r.Resets,
		Counters:              countersToWire(r.Counters),
		Rates:                 countersToWire(lvs.Counters(r.Rates)),
		NextHop:               nextHopToWire(r.NextHop),
		Health:                healthToWire(r.Health),
		ConfiguredWeight:      r.ConfiguredWeight,
		Draining:              r.Draining,
	}
}

func serviceStatusFromWire(field string, s *fairleadv1.ServiceStatus) (lvs.ServiceStatus, error) {
	service, err := serviceFromWire(field+".service", s.GetService())
	if err != nil {
		return lvs.ServiceStatus{}, err
	}
	status := lvs.ServiceStatus{
		Service:  service,
		Counters: countersFromWire(s.GetCounters()),
		Rates:    lvs.Rates(countersFromWire(s.GetRates())),
	}
	if status.Servers, err = eachFromWire(field+".servers", s.GetServers(), serverStatusFromWire); err != nil {
		return lvs.ServiceStatus{}, err
	}
	if status.Withheld, err = eachFromWire(field+".withheld", s.GetWithheld(), serverStatusFromWire); err != nil {
		return lvs.ServiceStatus{}, err
	}
	status.Quorum = quorumFromWire(s.GetQuorum())
	return status, nil
}

func serverStatusFromWire(field string, r *fairleadv1.RealServerStatus) (lvs.RealServerStatus, error) {
	server, err := serverFromWire(field+".server", r.GetServer())
	if err != nil {
		return lvs.RealServerStatus{}, err
	}
	hop, err := nextHopFromWire(field+".next_hop", r.GetNextHop())
	if err != nil {
		return lvs.RealServerStatus{}, err
	}
	return lvs.RealServerStatus{
		RealServer:       server,
		Active:           r.GetActiveConnections(),
		Inactive:         r.GetInactiveConnections(),
		Persistent:       r.GetPersistentConnections(),
		Retries:          r.GetRetries(),
		Resets:           r.GetResets(),
		Counters:         countersFromWire(r.GetCounters()),
		Rates:            lvs.Rates(countersFromWire(r.GetRates())),
		NextHop:          hop,
		Health:           healthFromWire(r.GetHealth()),
		ConfiguredWeight: r.GetConfiguredWeight(),
		Draining:         r.GetDraining(),
	}, nil
}

// secondsToWire rounds down to whole seconds. The durations of the domain are
// whole and in range; others are held at the ends of the range.
func secondsToWire(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 0), math.MaxUint32))
}

func secondsFromWire(field string, seconds uint32) (time.Duration, error) {
	d := time.Duration(seconds) * time.Second
	if d > MaxTimeout {
		return 0, invalid(field, seconds, fmt.Sprintf("0 to %d, 31 days", MaxTimeout/time.Second))
	}
	return d, nil
}

func timeoutsToWire(t lvs.Timeouts) *fairleadv1.Timeouts {
	return &fairleadv1.Timeouts{
		TcpSeconds:    secondsToWire(t.TCP),
		TcpFinSeconds: secondsToWire(t.TCPFin),
		UdpSeconds:    secondsToWire(t.UDP),
	}
}

func timeoutsFromWire(field string, t *fairleadv1.Timeouts) (lvs.Timeouts, error) {
	if t == nil {
		return lvs.Timeouts{}, missing(field)
	}
	var timeouts lvs.Timeouts
	for _, f := range []struct {
		name  string
		given uint32
		to    *time.Duration
	}{
		{"tcp_seconds", t.TcpSeconds, &timeouts.TCP},
		{"tcp_fin_seconds", t.TcpFinSeconds, &timeouts.TCPFin},
		{"udp_seconds", t.UdpSeconds, &timeouts.UDP},
	} {
		d, err := secondsFromWire(field+"."+f.name, f.given)
		if err != nil {
			return lvs.Timeouts{}, err
		}
		*f.to = d
	}
	return timeouts, nil
}

func statusToWire(s Status) *fairleadv1.GetStatusResponse {
	wire := &fairleadv1.GetStatusResponse{
		Version:       s.Version,
		UptimeSeconds: uint64(max(s.Uptime, 0) / time.Second),
		ConnectionTable: &fairleadv1.ConnectionTable{
			Size: uint64(max(s.TableSize, 0)),
			Used: uint64(max(s.TableUsed, 0)),
		},
		Sweeps: &fairleadv1.Sweeps{
			Count: s.Sweeps.Count, Expired: s.Sweeps.Expired,
			Microseconds:     uint64(max(s.Sweeps.Time, 0) / time.Microsecond),
			LastMicroseconds: uint64(max(s.Sweeps.Last, 0) / time.Microsecond),
		},
	}
	for _, i := range s.Interfaces {
		wire.Interfaces = append(wire.Interfaces, &fairleadv1.Interface{Name: i.Name, Mode: i.Mode})
	}
	for _, v := range s.Verdicts {
		wire.Verdicts = append(wire.Verdicts, &fairleadv1.Verdict{
			Name: v.Name, Kind: v.Kind, Meaning: v.Meaning, Packets: v.Packets,
		})
	}
	return wire
}

func statusFromWire(wire *fairleadv1.GetStatusResponse) Status {
	s := Status{
		Version:   wire.GetVersion(),
		Uptime:    time.Duration(wire.GetUptimeSeconds()) * time.Second,
		TableSize: int(wire.GetConnectionTable().GetSize()),
		TableUsed: int(wire.GetConnectionTable().GetUsed()),
		Sweeps: Sweeps{
			Count: wire.GetSweeps().GetCount(), Expired: wire.GetSweeps().GetExpired(),
			Time: time.Duration(wire.GetSweeps().GetMicroseconds()) * time.Microsecond,
			Last: time.Duration(wire.GetSweeps().GetLastMicroseconds()) * time.Microsecond,
		},
	}
	for _, i := range wire.GetInterfaces() {
		s.Interfaces = append(s.Interfaces, Interface{Name: i.GetName(), Mode: i.GetMode()})
	}
	for _, v := range wire.GetVerdicts() {
		s.Verdicts = append(s.Verdicts, Verdict{
			Name: v.GetName(), Kind: v.GetKind(), Meaning: v.GetMeaning(), Packets: v.GetPackets(),
		})
	}
	return s
}
