package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Write returns a file that asks for a configuration: [Parse] reads it back. Services
// that differ in their addresses alone are one item. It leaves out what is the default.
func Write(c lvs.Configuration) string {
	w := &writer{}
	w.line(0, "version: %d", Version)
	w.sysctls(0, c.Sysctls)
	if len(c.Peers) > 0 {
		w.line(0, "peers:")
		for _, addr := range c.Peers {
			w.line(0, "  - %s", quote(addr.String()))
		}
	}
	if len(c.Marks) > 0 {
		w.line(0, "marks:")
		for _, rule := range c.Marks {
			w.mark(rule)
		}
	}
	if len(c.LocalAddresses) > 0 {
		w.line(0, "local-addresses:")
		for _, local := range c.LocalAddresses {
			w.line(0, "  - address: %s", quote(local.String()))
			if local.Ports != lvs.DefaultLocalPorts {
				w.line(0, "    ports: %s", quote(local.Ports.String()))
			}
		}
	}
	if len(c.Services) > 0 {
		w.line(0, "services:")
		w.services(c)
	}
	return w.text.String()
}

type writer struct{ text strings.Builder }

func (w *writer) line(indent int, format string, args ...any) {
	w.text.WriteString(strings.Repeat(" ", indent))
	fmt.Fprintf(&w.text, format, args...)
	w.text.WriteByte('\n')
}

// plainText is text that reads as itself without quotes, anywhere.
var plainText = regexp.MustCompile(`^[A-Za-z0-9/.][A-Za-z0-9_./+:@=-]*$`)

// quote returns text as a scalar.
func quote(text string) string {
	if plainText.MatchString(text) && !strings.HasSuffix(text, ":") {
		return text
	}
	var quoted strings.Builder
	quoted.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			quoted.WriteByte('\\')
			quoted.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&quoted, `\x%02x`, r)
		default:
			quoted.WriteRune(r)
		}
	}
	quoted.WriteByte('"')
	return quoted.String()
}

// wordOf returns the word of a value.
func wordOf[V comparable](words []string, values []V, value V) string {
	for i, v := range values {
		if v == value {
			return words[i]
		}
	}
	return fmt.Sprint(value)
}

func (w *writer) sysctls(indent int, settings []lvs.SysctlSetting) {
	if len(settings) == 0 {
		return
	}
	w.line(indent, "sysctls:")
	for _, s := range settings {
		known, err := lvs.FindSysctl(s.Name)
		value := strconv.Itoa(int(s.Value))
		if err == nil && known.Unit == "s" {
			value = shortDuration(time.Duration(s.Value) * time.Second)
		}
		w.line(indent, "  %s: %s", s.Name, value)
	}
}

func (w *writer) mark(rule lvs.MarkRule) {
	w.line(0, "  - mark: %d", rule.Mark)
	if rule.Protocol != 0 {
		w.line(0, "    protocol: %s", strings.ToLower(rule.Protocol.String()))
	}
	if rule.Source.IsValid() {
		w.line(0, "    source: %s", quote(rule.Source.String()))
	}
	if rule.SourcePorts != lvs.AllPorts {
		w.line(0, "    source-ports: %s", rule.SourcePorts)
	}
	if rule.Destination.IsValid() {
		w.line(0, "    destination: %s", quote(rule.Destination.String()))
	}
	if rule.DestinationPorts != lvs.AllPorts {
		w.line(0, "    destination-ports: %s", rule.DestinationPorts)
	}
}

// services writes each body once, with the keys of all services that have it.
func (w *writer) services(c lvs.Configuration) {
	health := map[lvs.ServiceKey]lvs.ServiceHealth{}
	for _, h := range c.Health {
		health[h.ServiceKey] = h
	}
	var bodies []string
	keys := map[string][]lvs.ServiceKey{}
	for _, s := range c.Services {
		body := serviceBody(s, health[s.ServiceKey])
		if keys[body] == nil {
			bodies = append(bodies, body)
		}
		keys[body] = append(keys[body], s.ServiceKey)
	}
	for _, body := range bodies {
		if len(keys[body]) == 1 {
			w.line(0, "  - address: %s", quote(keys[body][0].Text()))
		} else {
			w.line(0, "  - address:")
			for _, key := range keys[body] {
				w.line(0, "      - %s", quote(key.Text()))
			}
		}
		// Families do not share a body: which servers are of which would be lost.
		_, body, _ = strings.Cut(body, "\n")
		w.text.WriteString(body)
	}
}

// serviceBody returns what is below the address; its first line tells the family.
func serviceBody(s lvs.ServiceState, h lvs.ServiceHealth) string {
	w := &writer{}
	w.line(0, "%v", s.Address.Is6())
	w.line(4, "scheduler: %s", s.Scheduler)
	if flags := s.Scheduler.FlagNames(s.SchedulerFlags); len(flags) > 0 {
		w.line(4, "flags: [%s]", strings.Join(flags, ", "))
	}
	usual := usualForwarding(s)
	w.method(4, usual, lvs.RealServer{Method: lvs.DirectRouting})
	w.persistence(s.Service)
	if s.OnePacket {
		w.line(4, "one-packet: true")
	}
	w.sysctls(4, s.Sysctls)
	declared := h.ServiceKey == s.ServiceKey
	if declared && h.Quorum != 1 {
		w.line(4, "quorum: %d", h.Quorum)
	}
	if h.Hysteresis != 0 {
		w.line(4, "hysteresis: %d", h.Hysteresis)
	}
	usually := usualHealth(s, h)
	if len(usually.Checks) > 0 {
		w.serverHealth(4, usually, lvs.ServerHealth{})
	}
	w.notify(4, h.Notify)
	if h.Sorry.Address.IsValid() {
		w.line(4, "sorry-server:")
		w.line(6, "address: %s", quote(serverPlaceText(s.ServiceKey, h.Sorry.RealServerKey)))
		w.method(6, h.Sorry, usual)
		if h.SorryInhibit {
			w.line(6, "inhibit: true")
		}
	}
	if len(s.Servers) == 0 {
		return w.text.String()
	}
	w.line(4, "servers:")
	health := map[lvs.RealServerKey]lvs.ServerHealth{}
	for _, one := range h.Among(s.Servers) {
		health[one.RealServerKey] = one
	}
	for _, server := range s.Servers {
		w.server(s.ServiceKey, server, usual, health[server.RealServerKey], usually, h.Notify)
	}
	return w.text.String()
}

func (w *writer) persistence(s lvs.Service) {
	if s.PersistenceTimeout == 0 {
		return
	}
	timeout := shortDuration(s.PersistenceTimeout)
	full := s.PersistenceMask == lvs.FullPersistenceMask(s.Address)
	if full && s.PersistenceEngine == "" {
		w.line(4, "persistence: %s", timeout)
		return
	}
	w.line(4, "persistence:")
	w.line(6, "timeout: %s", timeout)
	if s.PersistenceEngine != "" {
		w.line(6, "engine: %s", s.PersistenceEngine)
	}
	m := s.PersistenceMask
	switch {
	case full:
	case s.Address.Is6():
		w.line(6, "mask6: %d", m)
	default:
		w.line(6, "mask: %s", netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}))
	}
}

// serverPlaceText returns a server's address, with its port where that is not the
// service's.
func serverPlaceText(service lvs.ServiceKey, server lvs.RealServerKey) string {
	if server.Port == service.Port {
		return server.Address.String()
	}
	return server.String()
}

// usualForwarding returns how all servers of a service are forwarded to, or how a
// server is that says nothing.
func usualForwarding(s lvs.ServiceState) lvs.RealServer {
	usual := lvs.RealServer{Method: lvs.DirectRouting}
	for i, server := range s.Servers {
		if i > 0 && (server.Method != usual.Method || server.Tunnel != usual.Tunnel || server.TOA != usual.TOA) {
			return lvs.RealServer{Method: lvs.DirectRouting}
		}
		usual.Method, usual.Tunnel, usual.TOA = server.Method, server.Tunnel, server.TOA
	}
	return usual
}

// method writes how a server is forwarded to, if that is not as usual.
func (w *writer) method(indent int, s, usual lvs.RealServer) {
	if s.Method != usual.Method {
		w.line(indent, "method: %s", wordOf(methodWords, methodValues, s.Method))
	}
	if s.Method == lvs.FullNAT && s.TOA != usual.TOA {
		w.line(indent, "toa: %t", s.TOA)
	}
	if s.Method != lvs.Tunnelling || s.Tunnel == usual.Tunnel {
		return
	}
	w.line(indent, "tunnel:")
	w.line(indent+2, "type: %s", s.Tunnel.Type)
	if s.Tunnel.Port != 0 {
		w.line(indent+2, "port: %d", s.Tunnel.Port)
	}
	if s.Tunnel.Checksum != lvs.NoChecksum {
		w.line(indent+2, "checksum: %s", wordOf(checksumWords, checksumValues, s.Tunnel.Checksum))
	}
}

// server writes a real server: what of it is not as usual.
func (w *writer) server(service lvs.ServiceKey, s, usual lvs.RealServer, own, usually lvs.ServerHealth, inherited []lvs.Notification) {
	place := quote(serverPlaceText(service, s.RealServerKey))
	rest := &writer{}
	if s.Weight != 1 {
		rest.line(8, "weight: %d", s.Weight)
	}
	rest.method(8, s, usual)
	if s.UpperThreshold != 0 {
		rest.line(8, "upper: %d", s.UpperThreshold)
	}
	if s.LowerThreshold != 0 {
		rest.line(8, "lower: %d", s.LowerThreshold)
	}
	own.RealServerKey = usually.RealServerKey
	switch {
	case reflect.DeepEqual(own, usually):
	case len(own.Checks) == 0:
		rest.line(8, "checks: []")
	default:
		rest.serverHealth(8, own, usually)
		if !reflect.DeepEqual(own.Notify, inherited) {
			if len(own.Notify) == 0 {
				rest.line(8, "notify: []")
			}
			rest.notify(8, own.Notify)
		}
	}
	if rest.text.Len() == 0 {
		w.line(6, "- %s", place)
		return
	}
	w.line(6, "- address: %s", place)
	w.text.WriteString(rest.text.String())
}

// flowQuote returns text as a scalar within brackets, where a colon may end it.
func flowQuote(text string) string {
	if strings.Contains(text, ":") && !strings.HasPrefix(quote(text), `"`) {
		return `"` + text + `"`
	}
	return quote(text)
}
