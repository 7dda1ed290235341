package config

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A serviceDeclaration is an item of services: one virtual service or several that
// differ in their keys.
type serviceDeclaration struct {
	offset      int
	places      []place
	scheduler   lvs.Scheduler
	flags       []flagWord
	persistence persistence
	onePacket   bool
	sysctls     []setting
	quorum      uint32
	hysteresis  uint32
	sorry       *sorryDeclaration
	// quorate: it says something of its quorum.
	quorate bool
	// server is what its servers begin with.
	server  serverDeclaration
	servers []serverDeclaration
}

type flagWord struct {
	word   string
	offset int
}

type persistence struct {
	offset  int
	timeout time.Duration
	mask    *uint32 // of IPv4, nil if none is given
	mask6   uint32  // a prefix length, 0 if none is given
	engine  string
}

type setting struct {
	lvs.SysctlSetting
	offset int
}

// A serverDeclaration is a real server, or what the servers of a service begin with.
type serverDeclaration struct {
	offset  int
	at      hostPort
	method  lvs.ForwardingMethod
	tunnel  lvs.Tunnel
	toa     bool
	weight  uint32
	upper   uint32
	lower   uint32
	checks  []checkDeclaration
	inhibit bool
	alpha   bool
	notify  []lvs.Notification
}

type sorryDeclaration struct {
	serverDeclaration
	inhibit bool
}

// newServiceDeclaration is what a service is that says nothing of itself.
func newServiceDeclaration() serviceDeclaration {
	return serviceDeclaration{
		scheduler: lvs.DefaultScheduler,
		quorum:    1,
		server:    serverDeclaration{method: lvs.DirectRouting, weight: 1},
	}
}

// Methods are the words of forwarding methods.
var (
	methodWords  = []string{"dr", "tunnel", "masquerade", "fullnat"}
	methodValues = []lvs.ForwardingMethod{lvs.DirectRouting, lvs.Tunnelling, lvs.Masquerading, lvs.FullNAT}

	tunnelWords  = []string{"ipip", "gue", "gre"}
	tunnelValues = []lvs.TunnelType{lvs.IPIP, lvs.GUE, lvs.GRE}

	checksumWords  = []string{"none", "full", "remote"}
	checksumValues = []lvs.TunnelChecksum{lvs.NoChecksum, lvs.Checksum, lvs.RemoteChecksum}
)

var tunnelObject = &object[lvs.Tunnel]{
	name:  "tunnel",
	about: "How packets are encapsulated, by method tunnel.",
	fields: []field[lvs.Tunnel]{
		of("type", "The encapsulation; ipip.", word("type", tunnelWords, tunnelValues), func(t *lvs.Tunnel) *lvs.TunnelType { return &t.Type }),
		of("port", "The UDP port of gue.", integer[uint16](1, 65535), func(t *lvs.Tunnel) *uint16 { return &t.Port }),
		of("checksum", "The outer header's checksum, of gue and gre; none.", word("checksum", checksumWords, checksumValues),
			func(t *lvs.Tunnel) *lvs.TunnelChecksum { return &t.Checksum }),
	},
	done: func(r *reader, n *node, t *lvs.Tunnel) {
		switch {
		case t.Type == lvs.GUE && t.Port == 0:
			r.refuse(n, "gue: key port is missing")
		case t.Type != lvs.GUE && t.Port != 0:
			r.refuse(n.at("port"), "port: it is of gue")
		case t.Type == lvs.IPIP && t.Checksum != lvs.NoChecksum:
			r.refuse(n.at("checksum"), "checksum: ipip has no header for it")
		case t.Type == lvs.GRE && t.Checksum == lvs.RemoteChecksum:
			r.refuse(n.at("checksum"), "checksum remote: it is of gue")
		}
	},
}

// forwardingFields say how packets reach a real server.
func forwardingFields[T any](part func(*T) *serverDeclaration) []field[T] {
	return []field[T]{
		of("method", "The forwarding method: dr (direct routing), tunnel, masquerade or fullnat (with local-addresses); dr.", word("method", methodWords, methodValues),
			func(t *T) *lvs.ForwardingMethod { return &part(t).method }),
		of("tunnel", "How packets are encapsulated, by method tunnel.", afresh(tunnelObject.kind()), func(t *T) *lvs.Tunnel { return &part(t).tunnel }),
		of("toa", "true: by method fullnat, a TCP option tells the client's address and port; false.", truth(), func(t *T) *bool { return &part(t).toa }),
	}
}

// serverFields are of a server, and of a service for all of its servers.
func serverFields[T any](part func(*T) *serverDeclaration) []field[T] {
	return append(forwardingFields(part),
		of("weight", "The share of new connections; 0: none (quiesced); 1.", integer[uint32](0, math.MaxInt32), func(t *T) *uint32 { return &part(t).weight }),
		of("upper", "Connections, active and inactive, at which no new ones come; 0: no limit.", integer[uint32](0, math.MaxUint32),
			func(t *T) *uint32 { return &part(t).upper }),
		of("lower", "Connections below which new ones come again; three quarters of upper.", integer[uint32](0, math.MaxUint32),
			func(t *T) *uint32 { return &part(t).lower }),
		of("checks", "What the server is asked: mappings, names of checks, or types alone, like tcp.", listOf(checkKind(), "checks"),
			func(t *T) *[]checkDeclaration { return &part(t).checks }),
		of("inhibit", "true: a server that is down has weight 0, and its connections go on; false: it is taken out.", truth(),
			func(t *T) *bool { return &part(t).inhibit }),
		of("alpha", "true: a server is down until its first check succeeds; false: it is up until one has failed.", truth(),
			func(t *T) *bool { return &part(t).alpha }),
		of("notify", "Who is told of transitions.", listOf(notifyObject.kind(), "mappings with on, script or webhook"),
			func(t *T) *[]lvs.Notification { return &part(t).notify }),
	)
}

// serverPort is a port that a server has for itself.
func serverPort[T any](part func(*T) *serverDeclaration) field[T] {
	return of("port", "Its port, of methods masquerade and fullnat; the service's.", integer[uint16](1, 65535), func(t *T) *uint16 { return &part(t).at.port })
}

func serverAddress[T any](about string, part func(*T) *serverDeclaration) field[T] {
	return of("address", about, serverPlace, func(t *T) *hostPort { return &part(t).at })
}

var serverObject = &object[serverDeclaration]{
	name:  "server",
	about: "A real server. What it does not say for itself is as the service says.",
	fields: slices.Concat(
		[]field[serverDeclaration]{serverAddress("Its address, with a port or without.", ofServer), serverPort(ofServer)},
		serverFields(ofServer)),
	required: []string{"address"},
	done:     func(r *reader, n *node, s *serverDeclaration) { s.finish(r, n) },
}

func ofServer(s *serverDeclaration) *serverDeclaration { return s }

// finish looks at a server as a whole.
func (s *serverDeclaration) finish(r *reader, n *node) {
	s.offset = n.offset
	if tunnel := n.find("tunnel"); tunnel != nil && s.method != lvs.Tunnelling {
		r.refuse(tunnel, "tunnel: want method tunnel with it")
	}
	if toa := n.find("toa"); toa != nil && s.toa && s.method != lvs.FullNAT {
		r.refuse(toa, "toa: want method fullnat with it")
	}
	if n.find("upper") != nil && n.find("lower") == nil {
		s.lower = 0 // what defaults say is of another upper
	}
	if s.lower > s.upper {
		r.refuse(n, "lower %d: the upper threshold is %d", s.lower, s.upper)
	}
}

// serverKind is a real server: an address, or a mapping. It begins as it is.
var serverKind = kind[serverDeclaration]{anyOf(text(""), serverObject.kind().schema), func(r *reader, n *node, into *serverDeclaration) {
	switch n.kind {
	case mappingNode:
		serverObject.read(r, n, into)
	case scalarNode:
		serverPlace.read(r, n, &into.at)
		into.offset = n.offset
	default:
		r.refuse(n, "%s: want an address, or a mapping with keys like address and weight; an address in brackets goes into quotes", describe(n))
	}
}}

// serverPlace is an address with a port or without.
var serverPlace = scalar(text(""), parseHostPort)

var sorryObject = &object[sorryDeclaration]{
	name:  "sorry-server",
	about: "Who takes the place of all servers while the quorum is lost.",
	fields: slices.Concat(
		[]field[sorryDeclaration]{serverAddress("Its address, with a port or without.", ofSorry), serverPort(ofSorry)},
		forwardingFields(ofSorry),
		[]field[sorryDeclaration]{of("inhibit", "true: while the quorum is kept it has weight 0; false: it is not there.", truth(),
			func(s *sorryDeclaration) *bool { return &s.inhibit })}),
	required: []string{"address"},
	done:     func(r *reader, n *node, s *sorryDeclaration) { s.finish(r, n) },
}

func ofSorry(s *sorryDeclaration) *serverDeclaration { return &s.serverDeclaration }

var persistenceObject = &object[persistence]{
	name:  "persistence",
	about: "The same client is sent to the same server.",
	fields: []field[persistence]{
		of("timeout", "How long a client is remembered after its last connection.", persistenceTimeout(), func(p *persistence) *time.Duration { return &p.timeout }),
		of("mask", "What counts of an IPv4 client's address: a mask like 255.255.255.0, or a prefix length; 0 makes all clients one.", mask4(), func(p *persistence) **uint32 { return &p.mask }),
		of("mask6", "What counts of an IPv6 client's address: a prefix length.", integer[uint32](1, 128), func(p *persistence) *uint32 { return &p.mask6 }),
		of("engine", "What else a client is told by: sip, the Call-ID of its datagrams; nothing.", engine, func(p *persistence) *string { return &p.engine }),
	},
	required: []string{"timeout"},
}

// engine is a persistence engine.
var engine = name("engine", []string{lvs.EngineSIP})

func persistenceTimeout() kind[time.Duration] {
	return duration(time.Second, lvs.MaxTimeoutSeconds*time.Second, time.Second)
}

func mask4() kind[*uint32] {
	return scalar(text(""), func(text string) (*uint32, error) {
		if n, err := strconv.ParseUint(text, 10, 8); err == nil && n <= 32 {
			mask := uint32(math.MaxUint32 << (32 - n))
			return &mask, nil
		}
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.Is4() {
			return nil, fmt.Errorf("%s: want a mask like 255.255.255.0, or 0 to 32", quoteShort(text))
		}
		mask := binary.BigEndian.Uint32(addr.AsSlice())
		return &mask, nil
	})
}

func persistenceKind() kind[persistence] {
	return kind[persistence]{anyOf(persistenceTimeout().schema, persistenceObject.kind().schema), func(r *reader, n *node, into *persistence) {
		*into = persistence{offset: n.offset}
		if n.kind == mappingNode {
			persistenceObject.read(r, n, into)
			return
		}
		persistenceTimeout().read(r, n, &into.timeout)
	}}
}

func flagKind() kind[flagWord] {
	words := []string{"flag-1", "flag-2", "flag-3", "sh-fallback", "sh-port", "mh-fallback", "mh-port", "mh-stable"}
	return kind[flagWord]{map[string]any{"enum": words}, func(r *reader, n *node, into *flagWord) {
		into.offset = n.offset
		name("flag", words).read(r, n, &into.word)
	}}
}

// sysctlsKind is a mapping of names to values; ofService says whether it is a
// service's.
func sysctlsKind(ofService bool) kind[[]setting] {
	properties := map[string]any{}
	var names []string
	for _, s := range lvs.Sysctls() {
		if ofService && !s.PerService {
			continue
		}
		names = append(names, s.Name)
		properties[s.Name] = described(sysctlSchema(s), s.Meaning)
	}
	schema := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	return kind[[]setting]{schema, func(r *reader, n *node, into *[]setting) {
		if n.kind != mappingNode {
			r.refuse(n, "%s: want a mapping of names to values, like timeout_established: 15m", describe(n))
			return
		}
		settings := slices.Clone(*into) // those of the defaults
		for _, p := range n.pairs {
			known, err := lvs.FindSysctl(p.key.text)
			switch {
			case err != nil && slices.ContainsFunc(lvs.AbsentSysctls(), func(a lvs.AbsentSysctl) bool { return a.Name == p.key.text }):
				r.refuse(p.key, "%s", shortReason(err))
			case err != nil:
				r.unknown(p.key, "sysctl", names)
			case ofService && !known.PerService:
				r.refuse(p.key, "sysctl %s: it is the director's, no service has its own", p.key.text)
			default:
				s := setting{offset: p.key.offset, SysctlSetting: lvs.SysctlSetting{Name: known.Name}}
				sysctlValue(known).read(r, p.value, &s.Value)
				settings = slices.DeleteFunc(settings, func(d setting) bool { return d.Name == s.Name })
				settings = append(settings, s)
			}
		}
		*into = settings
	}}
}

func sysctlSchema(s lvs.Sysctl) map[string]any {
	number := map[string]any{"type": "integer", "minimum": s.Min, "maximum": s.Max}
	if s.Unit != "s" {
		return number
	}
	return anyOf(number, duration(0, 0, 1).schema)
}

// sysctlValue is a number, or a time where the number counts seconds.
func sysctlValue(s lvs.Sysctl) kind[int32] {
	return kind[int32]{nil, func(r *reader, n *node, into *int32) {
		if s.Unit == "s" && n.kind == scalarNode {
			if _, err := strconv.Atoi(n.text); err != nil {
				var d time.Duration
				duration(time.Duration(s.Min)*time.Second, time.Duration(s.Max)*time.Second, time.Second).read(r, n, &d)
				*into = int32(d / time.Second)
				return
			}
		}
		integer(s.Min, s.Max).read(r, n, into)
	}}
}

// bodyFields are what a service says beside its key and its servers.
var bodyFields = slices.Concat(
	[]field[serviceDeclaration]{
		of("scheduler", "Who gets a new connection; wlc.", name("scheduler", lvs.Schedulers()), func(s *serviceDeclaration) *lvs.Scheduler { return &s.scheduler }),
		of("flags", "Flags of the scheduler: sh-port, sh-fallback, mh-port, mh-fallback, mh-stable.", listOf(flagKind(), "flags"),
			func(s *serviceDeclaration) *[]flagWord { return &s.flags }),
		of("persistence", "The same client is sent to the same server: for how long after its last connection, or a mapping.", persistenceKind(),
			func(s *serviceDeclaration) *persistence { return &s.persistence }),
		of("one-packet", "true: each datagram is scheduled for itself; of UDP and firewall marks.", truth(), func(s *serviceDeclaration) *bool { return &s.onePacket }),
		of("sysctls", "Timeouts and other values that differ from the director's; fairlead sysctl lists them.", sysctlsKind(true),
			func(s *serviceDeclaration) *[]setting { return &s.sysctls }),
		of("quorum", "The sum of the weights of live servers that is needed; 0: none is; 1.", integer[uint32](0, math.MaxInt32),
			func(s *serviceDeclaration) *uint32 { return &s.quorum }),
		of("hysteresis", "The quorum is lost that much below, and regained that much above; 0.", integer[uint32](0, math.MaxInt32),
			func(s *serviceDeclaration) *uint32 { return &s.hysteresis }),
	},
	serverFields(func(s *serviceDeclaration) *serverDeclaration { return &s.server }),
	[]field[serviceDeclaration]{
		{"sorry-server", "Who takes the place of all servers while the quorum is lost: an address, or a mapping.",
			anyOf(text(""), sorryObject.kind().schema), readSorry},
	},
)

// readSorry reads a sorry server, which is forwarded to as the service's servers are
// unless it says otherwise.
func readSorry(r *reader, n *node, s *serviceDeclaration) {
	s.sorry = &sorryDeclaration{serverDeclaration: serverDeclaration{offset: n.offset, method: s.server.method, tunnel: s.server.tunnel, toa: s.server.toa, weight: 1}}
	if n.kind == mappingNode {
		sorryObject.read(r, n, s.sorry)
		return
	}
	serverPlace.read(r, n, &s.sorry.at)
}

var defaultsObject = &object[serviceDeclaration]{
	name:   "defaults",
	about:  "What each service begins with.",
	fields: bodyFields,
	done:   func(r *reader, n *node, s *serviceDeclaration) { s.finishBody(r, n) },
}

var serviceObject = &object[serviceDeclaration]{
	name:  "service",
	about: "A virtual service, or several that differ in their addresses and ports alone.",
	fields: slices.Concat(
		[]field[serviceDeclaration]{
			{"address", "tcp:192.0.2.100:80, udp:[2001:db8::100]:53, fwmark:7; ranges like tcp:192.0.2.100-192.0.2.109:80, tcp:192.0.2.96/28:8000-8010; or a list.",
				vips.schema, func(r *reader, n *node, s *serviceDeclaration) { vips.read(r, n, &s.places) }},
			{"group", "The name of a group of addresses, instead of address.", text(""), readGroup},
		},
		bodyFields,
		[]field[serviceDeclaration]{
			{"servers", "The real servers, in the order in which schedulers walk them: addresses, or mappings.",
				map[string]any{"type": "array", "items": serverKind.schema}, readServers},
		}),
	oneOf: []string{"address", "group"},
	done: func(r *reader, n *node, s *serviceDeclaration) {
		s.offset = n.offset
		s.finishBody(r, n)
		checked := slices.ContainsFunc(s.servers, func(server serverDeclaration) bool { return len(server.checks) > 0 })
		for _, key := range []string{"inhibit", "alpha"} {
			if value := n.find(key); value != nil && !checked {
				r.refuse(value, "%s: want checks with it: without them no server is ever down", key)
			}
		}
	},
}

func readGroup(r *reader, n *node, s *serviceDeclaration) {
	places, ok := r.groups[n.text]
	if n.kind != scalarNode || !ok {
		names := make([]string, 0, len(r.groups))
		for name := range r.groups {
			names = append(names, name)
		}
		slices.Sort(names)
		r.unknown(n, "group", names)
		return
	}
	for _, p := range places {
		s.places = append(s.places, place{p.key, n.offset})
	}
}

// finishBody looks at what services and defaults have in common.
func (s *serviceDeclaration) finishBody(r *reader, n *node) {
	if n.find("scheduler") != nil && n.find("flags") == nil {
		s.flags = nil // those of the defaults are of another scheduler
	}
	s.server.finish(r, n)
	for _, key := range []string{"quorum", "hysteresis", "notify", "sorry-server"} {
		s.quorate = s.quorate || n.find(key) != nil
	}
	if uint64(s.hysteresis) >= uint64(s.quorum) && s.hysteresis > 0 {
		r.refuse(n, "hysteresis %d: want it below the quorum, %d", s.hysteresis, s.quorum)
	}
}

// readServers reads real servers, which begin as the service says.
func readServers(r *reader, n *node, s *serviceDeclaration) {
	readList(r, n, &s.servers, "real servers", func(r *reader, n *node, into *serverDeclaration) {
		*into = s.server
		serverKind.read(r, n, into)
	})
}
