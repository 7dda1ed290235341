package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// ImportKeepalived reads a keepalived.conf, with the files that it includes, and
// returns the configuration that asks for the same, and each line that it does not
// carry over, or not as a whole, in the order of their places. id is keepalived's
// configuration id, for lines that begin with @. An error is of a file that can't be
// read.
func ImportKeepalived(path, id string) (lvs.Configuration, []Listed, error) {
	im, err := importKeepalived(path, id)
	if err != nil {
		return lvs.Configuration{}, nil, err
	}
	return im.config, im.listed, nil
}

func importKeepalived(path, id string) (*keepalivedImport, error) {
	im := &keepalivedImport{keepalivedReader: newKeepalivedReader(id), keys: map[lvs.ServiceKey]bool{}}
	if err := im.file(path); err != nil {
		return nil, err
	}
	im.finish()
	im.convert()
	im.listRest(im.root.block)
	slices.SortStableFunc(im.listed, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return im, nil
}

type keepalivedImport struct {
	*keepalivedReader
	config lvs.Configuration
	keys   map[lvs.ServiceKey]bool
}

// drop lists a statement and all that is in it.
func (im *keepalivedImport) drop(s *statement, format string, args ...any) {
	s.listed = true
	im.list(s.at, format, args...)
	for _, inner := range s.block {
		im.drop(inner, format, args...)
	}
}

// note lists a statement that is carried over in part.
func (im *keepalivedImport) note(s *statement, format string, args ...any) {
	s.carried = true
	im.list(s.at, format, args...)
}

// listRest lists what nothing has dealt with.
func (im *keepalivedImport) listRest(block []*statement) {
	for _, s := range block {
		if !s.carried && !s.listed {
			im.drop(s, "keyword %s is not known here", s.words[0])
			continue
		}
		im.listRest(s.block)
	}
}

const (
	reasonVRRP  = "fairlead does not move addresses from host to host: leave that to VRRP beside it"
	reasonAlert = "mail is not sent: notify has scripts and webhooks"
)

// topReasons say why blocks and keywords of the top level are not carried over.
var topReasons = map[string]string{
	"vrrp_instance": reasonVRRP, "vrrp_sync_group": reasonVRRP, "vrrp_script": reasonVRRP, "vrrp_track_process": reasonVRRP,
	"track_process": reasonVRRP, "garp_group": reasonVRRP, "static_ipaddress": "the host's addresses are not fairlead's",
	"static_addresses": "the host's addresses are not fairlead's", "static_routes": "the host's routes are not fairlead's",
	"static_rules": "the host's rules are not fairlead's", "track_group": reasonVRRP, "linkbeat_interfaces": reasonVRRP,
	"interface_up_down_delays": reasonVRRP, "vrrp_track_file": "only VRRP and FILE_CHECK read it", "track_file": "only VRRP and FILE_CHECK read it",
	"bfd_instance": "there is no BFD", "SSL": "checks show no certificate of their own; of servers', tls: {ca: ...} says whom to trust",
	"net_namespace": "start the director in the namespace: nsenter --net=...", "net_namespace_ipvs": "start the director in the namespace: nsenter --net=...",
	"namespace_with_ipsets": "it is of keepalived itself", "instance": "it is of keepalived itself",
	"use_pid_dir": "it is of keepalived itself", "linkbeat_use_polling": reasonVRRP, "child_wait_time": "it is of keepalived itself",
}

func (im *keepalivedImport) convert() {
	groups := map[string][]member{}
	for _, s := range im.root.block {
		switch keyword := s.words[0]; keyword {
		case "virtual_server_group":
			groups[s.arg(0)] = im.group(s)
		case "global_defs":
			im.globals(s)
		case "virtual_server":
		default:
			if reason := topReasons[keyword]; reason != "" {
				im.drop(s, "%s", reason)
			}
		}
	}
	for _, s := range im.root.block {
		if s.words[0] == "virtual_server" {
			im.virtualServer(s, groups)
		}
	}
}

// globals takes what is of IPVS.
func (im *keepalivedImport) globals(s *statement) {
	s.carried = true
	for _, g := range s.block {
		switch g.words[0] {
		case "lvs_timeouts":
			im.timeouts(g)
		case "lvs_sync_daemon":
			im.drop(g, "there is no sync daemon")
		case "lvs_flush", "lvs_flush_onstop", "lvs_flush_on_stop":
			im.drop(g, "apply --prune takes away what the configuration does not have; what is pinned outlives the director")
		case "notification_email", "notification_email_from", "smtp_server", "smtp_connect_timeout", "smtp_alert", "smtp_alert_checker", "smtp_helo_name":
			im.drop(g, "%s", reasonAlert)
		case "nftables_ipvs", "nftables_ipvs_start_fwmark", "nftables_ipvs_priority":
			im.drop(g, "each address of a group is a service; one service for many: fwmark:N, with a rule of marks")
		default:
			im.drop(g, "it is of keepalived itself")
		}
	}
}

func (im *keepalivedImport) timeouts(s *statement) {
	names := map[string]string{"tcp": "timeout_established", "tcpfin": "timeout_finwait", "udp": "timeout_udp"}
	for i := 1; i+1 < len(s.words); i += 2 {
		name, known := names[s.words[i]]
		seconds, err := strconv.Atoi(s.words[i+1])
		if !known || err != nil || seconds < 1 || seconds > lvs.MaxTimeoutSeconds {
			im.drop(s, "want tcp, tcpfin or udp and 1 to %d seconds", lvs.MaxTimeoutSeconds)
			return
		}
		im.config.Sysctls = append(im.config.Sysctls, lvs.SysctlSetting{Name: name, Value: int32(seconds)})
	}
	s.carried = true
}

// A member is an address of a group, or of a virtual server: addresses and ports, or a
// mark.
type member struct {
	addrs  []netip.Addr
	port   uint16
	mark   uint32
	family string // of a mark: "inet", "inet6" or ""
	at     *statement
}

func (im *keepalivedImport) group(s *statement) []member {
	s.carried = true
	var members []member
	for _, line := range s.block {
		m, err := parseMember(line.words)
		if err != nil {
			im.drop(line, "%v", err)
			continue
		}
		line.carried = true
		m.at = line
		members = append(members, m)
	}
	return members
}

// parseMember reads "ADDRESS [PORT]", "RANGE [PORT]" or "fwmark N [FAMILY]".
func parseMember(words []string) (member, error) {
	var m member
	if len(words) == 0 {
		return m, fmt.Errorf("want an address")
	}
	if words[0] == "fwmark" {
		if len(words) < 2 {
			return m, fmt.Errorf("want the number of a mark")
		}
		mark, err := strconv.ParseUint(words[1], 0, 32)
		if err != nil || mark == 0 {
			return m, fmt.Errorf("want a mark from 1 to 4294967295")
		}
		m.mark = uint32(mark)
		if len(words) > 2 {
			m.family = words[2]
		}
		return m, nil
	}
	port := uint64(0)
	if len(words) > 1 {
		var err error
		if port, err = strconv.ParseUint(words[1], 10, 16); err != nil {
			return m, fmt.Errorf("port %q: want 0 to 65535", words[1])
		}
	}
	m.port = uint16(port)
	first, last, err := parseRange(words[0])
	if err != nil {
		return m, err
	}
	for addr := first; ; addr = addr.Next() {
		m.addrs = append(m.addrs, addr)
		if addr == last {
			return m, nil
		}
		if len(m.addrs) == maxServices {
			return m, fmt.Errorf("that is more than %d services; one service for many addresses: fwmark:N, with a rule of marks", maxServices)
		}
	}
}

// parseRange reads an address, "192.0.2.1-10", "192.0.2.1-192.0.2.10" or a prefix,
// whose host bits count for nothing.
func parseRange(text string) (first, last netip.Addr, err error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return first, last, fmt.Errorf("%q: want a prefix", text)
		}
		return parseNet(p.Masked().String())
	}
	from, to, isRange := strings.Cut(text, "-")
	if first, err = parseAddress(from); err != nil || !isRange {
		return first, first, err
	}
	if !strings.ContainsAny(to, ".:") { // the last part of the first address, replaced
		if i := strings.LastIndexAny(from, ".:"); i >= 0 {
			to = from[:i+1] + to
		}
	}
	if last, err = parseAddress(to); err == nil && (last.Less(first) || last.Is4() != first.Is4()) {
		err = fmt.Errorf("%q: want the lower address first", text)
	}
	return first, last, err
}

// A virtualServer is a virtual_server as it was read.
type virtualServer struct {
	members  []member
	protocol lvs.Protocol
	service  lvs.Service // without its key
	mask     *statement  // persistence_granularity
	ipv6     bool        // ip_family inet6
	method   forwarding
	weight   uint32
	timing   timing
	health   lvs.ServiceHealth
	sorry    *statement
	sorryBy  *forwarding
	servers  []realServer
	at       *statement
}

type forwarding struct {
	method lvs.ForwardingMethod
	tunnel lvs.Tunnel
}

// A timing is what checks are told, by a virtual server, a real server or a check of
// its own.
type timing struct {
	interval    time.Duration
	timeout     time.Duration
	retry       int // -1: not said
	alpha       bool
	inhibit     bool
	virtualhost string
}

func (im *keepalivedImport) virtualServer(s *statement, groups map[string][]member) {
	s.carried = true
	vs := &virtualServer{
		method: forwarding{method: lvs.Masquerading}, weight: 1, at: s,
		service: lvs.Service{Scheduler: lvs.DefaultScheduler},
		timing:  timing{interval: 60 * time.Second, timeout: 5 * time.Second, retry: -1},
		health:  lvs.ServiceHealth{Quorum: 1},
	}
	switch {
	case len(s.words) < 2:
		im.drop(s, "want an address, fwmark N or group NAME")
		return
	case s.arg(0) == "group":
		members, ok := groups[s.arg(1)]
		if !ok {
			im.drop(s, "there is no virtual_server_group %s", s.arg(1))
			return
		}
		vs.members = members
	default:
		m, err := parseMember(s.words[1:])
		if err != nil {
			im.drop(s, "%v", err)
			return
		}
		m.at = s
		vs.members = []member{m}
	}
	for _, inner := range s.block {
		if inner.words[0] != "real_server" {
			im.virtualServerKeyword(vs, inner)
		}
	}
	if addressed := func(m member) bool { return m.mark == 0 }; vs.protocol == 0 && slices.ContainsFunc(vs.members, addressed) {
		vs.protocol = lvs.UDP
		im.note(s, "no protocol is said, and keepalived takes UDP")
	}
	for _, inner := range s.block {
		if inner.words[0] == "real_server" {
			im.realServer(vs, inner)
		}
	}
	for _, m := range vs.members {
		im.services(vs, m)
	}
}

// services adds the services of a member.
func (im *keepalivedImport) services(vs *virtualServer, m member) {
	if m.mark != 0 {
		ipv6 := m.family == "inet6" || m.family == "" && vs.ipv6
		if m.family == "" && !vs.ipv6 && len(vs.servers) > 0 && vs.servers[0].Method != lvs.Tunnelling {
			ipv6 = vs.servers[0].Address.Is6()
		}
		im.service(vs, m, lvs.MarkKey(m.mark, ipv6))
		return
	}
	for _, addr := range m.addrs {
		im.service(vs, m, lvs.ServiceKey{Protocol: vs.protocol, Address: addr, Port: m.port})
	}
}

func (im *keepalivedImport) service(vs *virtualServer, m member, key lvs.ServiceKey) {
	switch {
	case im.keys[key]:
		im.list(m.at.at, "service %s is there already", key.Text())
		return
	case key.Mark == 0 && key.Port == 0 && vs.service.PersistenceTimeout == 0:
		im.list(m.at.at, "service %s: a service of all ports needs persistence_timeout", key.Text())
		return
	}
	im.keys[key] = true
	state := lvs.ServiceState{Service: vs.service}
	state.ServiceKey = key
	state.PersistenceMask = im.mask(vs, key)
	if state.OnePacket && key.Mark == 0 && key.Protocol != lvs.UDP {
		im.list(vs.at.at, "service %s: ops is of UDP, and left out", key.Text())
		state.OnePacket = false
	}
	health := vs.health
	health.ServiceKey = key
	seen := map[lvs.RealServerKey]bool{}
	for _, declared := range vs.servers {
		server, checks := im.server(declared, key)
		switch {
		case seen[server.RealServerKey]:
			im.list(declared.at.at, "real server %s is there already", server.RealServerKey)
			continue
		case server.Method != lvs.Tunnelling && server.Address.Is4() != key.Address.Is4():
			im.list(declared.at.at, "%s is of the other family, which needs TUN", key.Text())
			continue
		}
		seen[server.RealServerKey] = true
		state.Servers = append(state.Servers, server)
		if len(checks.Checks) > 0 {
			health.Servers = append(health.Servers, checks)
		}
	}
	if vs.sorry != nil {
		health.Sorry = im.sorryServer(vs, key)
	}
	im.config.Services = append(im.config.Services, state)
	health.Usual = usualHealth(state, health)
	if len(health.Servers) > 0 || health.Sorry.Address.IsValid() || len(health.Notify) > 0 {
		im.config.Health = append(im.config.Health, health)
	}
}

// server returns a real server as one of a service has it, and its checks.
func (im *keepalivedImport) server(declared realServer, key lvs.ServiceKey) (lvs.RealServer, lvs.ServerHealth) {
	server, health := declared.RealServer, declared.health
	if server.Port == 0 {
		server.Port = key.Port
	}
	if server.Method != lvs.Masquerading && server.Port != key.Port {
		if key.Mark == 0 {
			im.list(declared.at.at, "only NAT changes the port: the server has the service's, %d; checks ask port %d", key.Port, server.Port)
		}
		health.Checks = slices.Clone(health.Checks)
		for i := range health.Checks {
			if c := &health.Checks[i]; c.Port == 0 && slices.Contains(sections["port"], c.Type) {
				c.Port = server.Port
			}
		}
		server.Port = key.Port
	}
	health.RealServerKey = server.RealServerKey
	return server, health
}

func (im *keepalivedImport) mask(vs *virtualServer, key lvs.ServiceKey) uint32 {
	full := lvs.FullPersistenceMask(key.Address)
	if vs.mask == nil {
		return full
	}
	given := vs.mask.arg(0)
	if n, err := strconv.ParseUint(given, 10, 8); key.Address.Is6() && err == nil && n >= 1 && n <= 128 {
		return uint32(n)
	}
	var mask *uint32
	r := &reader{src: &source{}}
	mask4().read(r, &node{text: given}, &mask)
	if key.Address.Is6() || len(r.errors) > 0 {
		im.list(vs.mask.at, "%s is no mask of %s", given, key.Text())
		return full
	}
	return *mask
}

func (im *keepalivedImport) sorryServer(vs *virtualServer, key lvs.ServiceKey) lvs.RealServer {
	by := vs.method
	if vs.sorryBy != nil {
		by = *vs.sorryBy
	}
	m, err := parseMember(vs.sorry.words[1:])
	if err != nil || len(m.addrs) != 1 {
		im.list(vs.sorry.at, "want an address and a port")
		return lvs.RealServer{}
	}
	sorry := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: m.addrs[0], Port: cmp.Or(m.port, key.Port)}, Method: by.method, Tunnel: by.tunnel, Weight: 1,
	}
	if by.method != lvs.Masquerading && sorry.Port != key.Port {
		if key.Mark == 0 {
			im.list(vs.sorry.at, "only NAT changes the port: the server has the service's, %d", key.Port)
		}
		sorry.Port = key.Port
	}
	if by.method != lvs.Tunnelling && sorry.Address.Is4() != key.Address.Is4() {
		im.list(vs.sorry.at, "%s is of the other family, which needs TUN", key.Text())
		return lvs.RealServer{}
	}
	return sorry
}
