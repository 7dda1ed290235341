package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Version is that of the file's form. A file that says no version has this one.
const Version = 1

// A File is a configuration that was read, and where each item of it stands.
type File struct {
	lvs.Configuration
	src   *source
	stand []standing
}

// A standing is where an item of the file stands in the text. Its name, of which there
// are many and hardly any is asked for, is format with as many of the numbers as it has.
type standing struct {
	offset  int
	format  string
	numbers [3]int
}

func (s standing) name() string {
	numbers := make([]any, strings.Count(s.format, "%d"))
	for i := range numbers {
		numbers[i] = s.numbers[i]
	}
	return fmt.Sprintf(s.format, numbers...)
}

// stands notes where an item stands: "services[%d].servers[%d]" with its numbers.
func (f *File) stands(offset int, format string, numbers ...int) {
	s := standing{offset: offset, format: format}
	copy(s.numbers[:], numbers)
	f.stand = append(f.stand, s)
}

// Where returns err with the place in the file of the item that it refuses, as an
// *Error; or err, if it is not an *lvs.ItemError about an item of the file.
func (f File) Where(err error) error {
	var item *lvs.ItemError
	if !errors.As(err, &item) {
		return err
	}
	offsets := make(map[string]int, len(f.stand))
	for _, s := range f.stand {
		offsets[s.name()] = s.offset
	}
	for name := item.Item; ; {
		if offset, ok := offsets[name]; ok {
			return &placedError{f.src.errorAt(offset, "%s", err), err}
		}
		before, _, more := cutLast(name, ".")
		if !more {
			return err
		}
		name = before
	}
}

// A placedError is a refusal with its place; it wraps both.
type placedError struct {
	place   *Error
	refusal error
}

// Error returns the refusal behind its place.
func (e *placedError) Error() string { return e.place.Error() }

// Unwrap returns the place and the refusal.
func (e *placedError) Unwrap() []error { return []error{e.place, e.refusal} }

// Parse reads a configuration file; name is the file's, for errors. What is wrong with
// it is told all at once, as [Errors]. What only a director knows (what it supports,
// what address is its own) is for it to refuse.
func Parse(name string, data []byte) (File, error) {
	src := &source{name: name, text: string(data)}
	root, failed := parseYAML(src)
	if failed != nil {
		return File{}, Errors{failed}
	}
	r := &reader{
		src: src, groups: map[string][]place{}, checks: map[string]checkDeclaration{}, defaults: newServiceDeclaration(),
	}
	var d fileDeclaration
	if root != nil {
		configurationObject.read(r, root, &d)
	}
	file := File{src: src}
	if len(r.errors) == 0 {
		r.resolve(&d, &file)
	}
	if len(r.errors) > 0 {
		return File{}, sortErrors(r.errors)
	}
	return file, nil
}

// A fileDeclaration is what stands in a file.
type fileDeclaration struct {
	version  int
	sysctls  []setting
	peers    []peerDeclaration
	marks    []markDeclaration
	locals   []localDeclaration
	services []serviceDeclaration
}

type peerDeclaration struct {
	addr   netip.Addr
	offset int
}

type localDeclaration struct {
	lvs.LocalAddress
	offset int
}

type markDeclaration struct {
	lvs.MarkRule
	offset int
}

// configurationObject is the whole file. What others refer to comes first.
var configurationObject = &object[fileDeclaration]{
	name:  "configuration",
	about: "The configuration of a fairlead director.",
	fields: []field[fileDeclaration]{
		of("version", "The version of this form; 1.", integer(Version, Version), func(d *fileDeclaration) *int { return &d.version }),
		{"groups", "Addresses and ports that several services share, by name.",
			map[string]any{"type": "object", "additionalProperties": vips.schema}, readGroups},
		{"checks", "Checks that services and servers refer to, by name.",
			map[string]any{"type": "object", "additionalProperties": checkObject.kind().schema}, readChecks},
		{"defaults", "What each service begins with.", defaultsObject.kind().schema, func(r *reader, n *node, _ *fileDeclaration) {
			defaultsObject.read(r, n, &r.defaults)
		}},
		of("sysctls", "Timeouts and other values that differ from their defaults; fairlead sysctl lists them.", sysctlsKind(false),
			func(d *fileDeclaration) *[]setting { return &d.sysctls }),
		of("peers", "Other directors whose packets for a virtual service are for this host.", listOf(peerKind(), "addresses"),
			func(d *fileDeclaration) *[]peerDeclaration { return &d.peers }),
		of("marks", "Which packets carry a firewall mark; the first rule that fits counts.", listOf(markObject.kind(), "mark rules"),
			func(d *fileDeclaration) *[]markDeclaration { return &d.marks }),
		of("local-addresses", "Addresses of the director's that clients come from, for real servers of method fullnat.",
			listOf(localObject.kind(), "local addresses"), func(d *fileDeclaration) *[]localDeclaration { return &d.locals }),
		{"services", "The virtual services.", listOf(serviceObject.kind(), "").schema, readServices},
	},
}

// readNamed reads a mapping of names of the file's own to values.
func readNamed(r *reader, n *node, what string, read func(name string, value *node)) {
	if n.kind != mappingNode {
		r.refuse(n, "%s: want a mapping of names to %s", describe(n), what)
		return
	}
	for _, p := range n.pairs {
		switch {
		case p.value.kind == nothingNode:
			r.refuse(p.key, "%s: a value is missing behind it", p.key.text)
		case p.key.text == "":
			r.refuse(p.key, "a name is empty")
		default:
			read(p.key.text, p.value)
		}
	}
}

func readGroups(r *reader, n *node, _ *fileDeclaration) {
	readNamed(r, n, "addresses", func(name string, value *node) {
		var places []place
		vips.read(r, value, &places)
		r.groups[name] = places
	})
}

func readChecks(r *reader, n *node, _ *fileDeclaration) {
	readNamed(r, n, "checks", func(name string, value *node) {
		var c checkDeclaration
		checkObject.read(r, value, &c)
		r.checks[name] = c
	})
}

func readServices(r *reader, n *node, d *fileDeclaration) {
	begun := kind[serviceDeclaration]{nil, func(r *reader, n *node, into *serviceDeclaration) {
		*into = r.defaults
		if r.defaults.sorry != nil {
			sorry := *r.defaults.sorry
			into.sorry = &sorry
		}
		serviceObject.read(r, n, into)
	}}
	listOf(begun, "services").read(r, n, &d.services)
}

func peerKind() kind[peerDeclaration] {
	return kind[peerDeclaration]{address().schema, func(r *reader, n *node, into *peerDeclaration) {
		into.offset = n.offset
		address().read(r, n, &into.addr)
	}}
}

var localObject = &object[localDeclaration]{
	name:  "local-address",
	about: "One of the pool of addresses of method fullnat.",
	fields: []field[localDeclaration]{
		of("address", "An address, or a prefix of which all addresses are meant.", prefix(), func(l *localDeclaration) *netip.Prefix { return &l.Prefix }),
		of("ports", "Its ports; 1024-32767.", ports(), func(l *localDeclaration) *lvs.PortRange { return &l.Ports }),
	},
	required: []string{"address"},
	done: func(r *reader, n *node, l *localDeclaration) {
		l.offset = n.offset
		if n.find("ports") == nil {
			l.Ports = lvs.DefaultLocalPorts
		}
		if n.find("address") == nil {
			return
		}
		if err := l.Check(); err != nil {
			r.refuse(n, "%s", shortReason(err))
		}
	},
}

var markObject = &object[markDeclaration]{
	name:  "mark",
	about: "A rule that says which packets carry a firewall mark: those of which everything holds.",
	fields: []field[markDeclaration]{
		of("mark", "The mark, 1 to 4294967295.", integer[uint32](1, 4294967295), func(m *markDeclaration) *uint32 { return &m.Mark }),
		of("protocol", "tcp, udp or sctp; any.", word("protocol", []string{"tcp", "udp", "sctp"}, []lvs.Protocol{lvs.TCP, lvs.UDP, lvs.SCTP}),
			func(m *markDeclaration) *lvs.Protocol { return &m.Protocol }),
		of("source", "The client: an address or a prefix; any.", prefix(), func(m *markDeclaration) *netip.Prefix { return &m.Source }),
		of("source-ports", "Its ports, like 1024-65535; any.", ports(), func(m *markDeclaration) *lvs.PortRange { return &m.SourcePorts }),
		of("destination", "The virtual address, or a prefix; any.", prefix(), func(m *markDeclaration) *netip.Prefix { return &m.Destination }),
		of("destination-ports", "The ports, like 80 or 6000-6100; any.", ports(), func(m *markDeclaration) *lvs.PortRange { return &m.DestinationPorts }),
	},
	required: []string{"mark"},
	done: func(r *reader, n *node, m *markDeclaration) {
		m.offset = n.offset
		if n.find("source-ports") == nil {
			m.SourcePorts = lvs.AllPorts
		}
		if n.find("destination-ports") == nil {
			m.DestinationPorts = lvs.AllPorts
		}
		if err := m.Check(); err != nil {
			r.refuse(n, "%s", shortReason(err))
		}
	},
}

func ports() kind[lvs.PortRange] {
	return scalar(anyOf(map[string]any{"type": "integer", "minimum": 0, "maximum": 65535}, text(`^([0-9]+(-[0-9]+)?|any)$`)), lvs.ParsePortRange)
}

// resolve turns what was declared into values of the domain.
func (r *reader) resolve(d *fileDeclaration, file *File) {
	for i, s := range d.sysctls {
		file.stands(s.offset, "sysctls[%d]", i)
		file.Sysctls = append(file.Sysctls, s.SysctlSetting)
	}
	for i, p := range d.peers {
		if slices.Contains(file.Peers, p.addr) {
			r.errors = append(r.errors, r.src.errorAt(p.offset, "peer %s is given twice", p.addr))
		}
		file.stands(p.offset, "peers[%d]", i)
		file.Peers = append(file.Peers, p.addr)
	}
	for i, m := range d.marks {
		if at := slices.Index(file.Marks, m.MarkRule); at >= 0 {
			r.errors = append(r.errors, r.src.errorAt(m.offset, "the same rule is in line %d", r.src.line(d.marks[at].offset)))
		}
		file.stands(m.offset, "marks[%d]", i)
		file.Marks = append(file.Marks, m.MarkRule)
	}
	for i, l := range d.locals {
		file.stands(l.offset, "local_addresses[%d]", i)
		file.LocalAddresses = append(file.LocalAddresses, l.LocalAddress)
	}
	if at, err := lvs.CheckLocalAddresses(file.LocalAddresses); err != nil {
		r.errors = append(r.errors, r.src.errorAt(d.locals[at].offset, "%s", shortReason(err)))
	}
	seen := make(map[lvs.ServiceKey]int, len(d.services))
	for i := range d.services {
		s := &d.services[i]
		families := s.families()
		for _, p := range s.places {
			if before, twice := seen[p.key]; twice {
				r.errors = append(r.errors, r.src.errorAt(p.offset, "service %s is given twice: first in line %d", p.key.Text(), r.src.line(before)))
				continue
			}
			seen[p.key] = p.offset
			r.service(s, p, families, file)
			if len(r.errors) > 100*maxErrors {
				return
			}
			if len(file.Services) > maxServices {
				r.errors = append(r.errors, r.src.errorAt(p.offset, "more than %d services; one service for many addresses or ports: fwmark:N, with a rule of marks", maxServices))
				return
			}
		}
	}
}

// families says which families the services of a declaration are of.
func (s *serviceDeclaration) families() (is struct{ v4, v6 bool }) {
	for _, p := range s.places {
		is.v4 = is.v4 || p.key.Address.Is4()
		is.v6 = is.v6 || p.key.Address.Is6()
	}
	return is
}

// service adds one of the services of a declaration.
func (r *reader) service(s *serviceDeclaration, p place, families struct{ v4, v6 bool }, file *File) {
	i := len(file.Services)
	file.stands(p.offset, "services[%d]", i)
	state := lvs.ServiceState{Service: lvs.Service{
		ServiceKey: p.key, Scheduler: s.scheduler, PersistenceTimeout: s.persistence.timeout,
		PersistenceMask: lvs.FullPersistenceMask(p.key.Address), PersistenceEngine: s.persistence.engine, OnePacket: s.onePacket,
	}}
	switch is6 := p.key.Address.Is6(); {
	case is6 && s.persistence.mask6 != 0:
		state.PersistenceMask = s.persistence.mask6
	case !is6 && s.persistence.mask != nil:
		state.PersistenceMask = *s.persistence.mask
	case is6 && s.persistence.mask != nil && !families.v4, !is6 && s.persistence.mask6 != 0 && !families.v6:
		r.errors = append(r.errors, r.src.errorAt(s.persistence.offset, "mask is of IPv4 and mask6 of IPv6: %s has none of it", p.key.Text()))
	}
	r.schedulerFlags(s, &state)
	for k, value := range s.sysctls {
		file.stands(value.offset, "services[%d].sysctls[%d]", i, k)
		state.Sysctls = append(state.Sysctls, value.SysctlSetting)
	}
	health := lvs.ServiceHealth{ServiceKey: p.key, Quorum: s.quorum, Hysteresis: s.hysteresis, Notify: s.server.notify}
	if s.sorry != nil {
		health.Sorry, health.SorryInhibit = s.sorry.resolve(p.key), s.sorry.inhibit
		file.stands(s.sorry.offset, "health[%d].sorry", len(file.Health))
	}
	seen := make(map[lvs.RealServerKey]int, len(s.servers))
	state.Servers = slices.Grow(state.Servers, len(s.servers))
	for k := range s.servers {
		declared := &s.servers[k]
		server := declared.resolve(p.key)
		if server.Method != lvs.Tunnelling && server.Address.Is4() != p.key.Address.Is4() {
			if !families.v4 || !families.v6 {
				r.errors = append(r.errors, r.src.errorAt(declared.offset, "address %s: %s is of the other family, which needs method tunnel", server.Address, p.key.Text()))
			}
			continue // it serves the services of its own family
		}
		if before, twice := seen[server.RealServerKey]; twice {
			r.errors = append(r.errors, r.src.errorAt(declared.offset, "real server %s is given twice: first in line %d", server.RealServerKey, r.src.line(before)))
			continue
		}
		seen[server.RealServerKey] = declared.offset
		file.stands(declared.offset, "services[%d].servers[%d]", i, len(state.Servers))
		state.Servers = append(state.Servers, server)
		if len(declared.checks) == 0 {
			if len(s.server.checks) > 0 {
				health.Unchecked = append(health.Unchecked, server.RealServerKey)
			}
			continue
		}
		h := declared.health()
		h.RealServerKey = server.RealServerKey
		for c, check := range declared.checks {
			file.stands(check.offset, "health[%d].servers[%d].checks[%d]", len(file.Health), len(health.Servers), c)
		}
		file.stands(declared.offset, "health[%d].servers[%d]", len(file.Health), len(health.Servers))
		health.Servers = append(health.Servers, h)
	}
	file.Services = append(file.Services, state)
	if len(s.server.checks) > 0 {
		health.Usual = s.server.health()
	}
	if len(health.Servers) > 0 || len(health.Usual.Checks) > 0 || s.quorate {
		file.stands(p.offset, "health[%d]", len(file.Health))
		file.Health = append(file.Health, health)
	}
}

// schedulerFlags reads the words of flags as the service's scheduler has them.
func (r *reader) schedulerFlags(s *serviceDeclaration, state *lvs.ServiceState) {
	for _, f := range s.flags {
		flag, err := s.scheduler.ParseFlags([]string{f.word})
		if err != nil {
			r.errors = append(r.errors, r.src.errorAt(f.offset, "%s", shortReason(err)))
		}
		state.SchedulerFlags |= flag
	}
}

// health returns how the health of a real server is found out that is declared so.
func (s *serverDeclaration) health() lvs.ServerHealth {
	h := lvs.ServerHealth{Inhibit: s.inhibit, Alpha: s.alpha, Notify: s.notify}
	for _, check := range s.checks {
		h.Checks = append(h.Checks, check.Check)
	}
	return h
}

// resolve returns a real server of a service.
func (s *serverDeclaration) resolve(key lvs.ServiceKey) lvs.RealServer {
	port := s.at.port
	if port == 0 && !s.at.anyPort {
		port = key.Port
	}
	server := lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: s.at.address, Port: port},
		Method:        s.method, Weight: s.weight, UpperThreshold: s.upper, LowerThreshold: s.lower,
	}
	if s.method == lvs.Tunnelling { // else a tunnel is what defaults say, for others
		server.Tunnel = s.tunnel
	}
	server.TOA = s.toa && s.method == lvs.FullNAT // the same
	return server
}
