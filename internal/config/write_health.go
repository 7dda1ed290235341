package config

import (
	"encoding/hex"
	"reflect"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// usualHealth returns what a service declares of the health of its servers: what it is
// said to, or what all of them have.
func usualHealth(s lvs.ServiceState, h lvs.ServiceHealth) lvs.ServerHealth {
	if len(h.Usual.Checks) > 0 {
		return h.Usual
	}
	if len(h.Servers) == 0 || len(h.Servers) != len(s.Servers) {
		return lvs.ServerHealth{}
	}
	first := h.Servers[0]
	first.RealServerKey = lvs.RealServerKey{}
	for _, one := range h.Servers {
		one.RealServerKey = first.RealServerKey
		if !reflect.DeepEqual(one, first) || !reflect.DeepEqual(one.Notify, h.Notify) {
			return lvs.ServerHealth{}
		}
	}
	return first
}

// serverHealth writes what differs from what is usual.
func (w *writer) serverHealth(indent int, h, usually lvs.ServerHealth) {
	if h.Inhibit != usually.Inhibit {
		w.line(indent, "inhibit: %t", h.Inhibit)
	}
	if h.Alpha != usually.Alpha {
		w.line(indent, "alpha: %t", h.Alpha)
	}
	w.line(indent, "checks:")
	for _, c := range h.Checks {
		w.check(indent+2, c)
	}
}

func (w *writer) notify(indent int, all []lvs.Notification) {
	if len(all) == 0 {
		return
	}
	w.line(indent, "notify:")
	for _, n := range all {
		dash := "- "
		put := func(format string, args ...any) {
			w.line(indent+2, dash+format, args...)
			dash = "  "
		}
		if len(n.On) > 0 {
			words := make([]string, 0, len(n.On))
			for _, t := range n.On {
				words = append(words, string(t))
			}
			put("on: [%s]", strings.Join(words, ", "))
		}
		if n.Script.Path != "" {
			put("script: {%s}", command(n.Script))
		}
		if n.Webhook != "" {
			put("webhook: %s", quote(n.Webhook))
		}
	}
}

func command(c lvs.Command) string {
	text := "command: " + flowQuote(c.Path)
	if len(c.Args) > 0 {
		args := make([]string, 0, len(c.Args))
		for _, arg := range c.Args {
			args = append(args, flowQuote(arg))
		}
		text += ", args: [" + strings.Join(args, ", ") + "]"
	}
	return text
}

// check writes a check: the keys that are not as complete makes them.
func (w *writer) check(indent int, c lvs.Check) {
	usual := checkDeclaration{Check: lvs.Check{Type: c.Type, Interval: c.Interval, Timeout: 0, Address: c.Address}}
	usual.complete(func(string) bool { return false })
	w.line(indent, "- type: %s", c.Type)
	indent += 2
	if c.Path != usual.Path {
		w.line(indent, "path: %s", c.Path)
	}
	if c.Address.IsValid() {
		w.line(indent, "address: %s", quote(c.Address.String()))
	}
	if c.Port != 0 {
		w.line(indent, "port: %d", c.Port)
	}
	if c.Interval != defaultInterval {
		w.line(indent, "interval: %s", shortDuration(c.Interval))
	}
	if c.Timeout != usual.Timeout {
		w.line(indent, "timeout: %s", shortDuration(c.Timeout))
	}
	if c.Jitter != usual.Jitter {
		w.line(indent, "jitter: %s", shortDuration(c.Jitter))
	}
	if c.Rise != usual.Rise {
		w.line(indent, "rise: %d", c.Rise)
	}
	if c.Fall != usual.Fall {
		w.line(indent, "fall: %d", c.Fall)
	}
	if c.TLS != nil && (c.Type != lvs.CheckHTTPS || *c.TLS != lvs.TLSCheck{}) {
		w.keys(indent, "tls", "sni", c.TLS.ServerName, "ca", c.TLS.CA, "verify", falseIf(c.TLS.SkipVerify))
	}
	w.http(indent, c.HTTP, usual.HTTP)
	switch c.Type {
	case lvs.CheckGRPC:
		w.keys(indent, "grpc", "service", c.GRPC.Service)
	case lvs.CheckDNS:
		w.keys(indent, "dns", "name", c.DNS.Name, "type", c.DNS.Type)
	case lvs.CheckSMTP:
		w.keys(indent, "smtp", "helo", c.SMTP.Helo)
	case lvs.CheckUDP:
		w.udp(indent, c.UDP)
	case lvs.CheckScript:
		weight := ""
		if c.Script.Weight {
			weight = ", weight: true"
		}
		w.line(indent, "script: {%s%s}", command(c.Script.Command), weight)
	case lvs.CheckFile:
		w.keys(indent, "file", "path", c.File.Path, "weight", trueIf(c.File.Weight))
	}
}

// keys writes a mapping of pairs of keys and values, without those whose value is "";
// nothing if it is empty, but for tls, which says something by being there.
func (w *writer) keys(indent int, name string, pairs ...string) {
	var parts []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			parts = append(parts, pairs[i]+": "+flowQuote(pairs[i+1]))
		}
	}
	if len(parts) > 0 || name == "tls" {
		w.line(indent, "%s: {%s}", name, strings.Join(parts, ", "))
	}
}

func falseIf(is bool) string {
	if is {
		return "false"
	}
	return ""
}

func trueIf(is bool) string {
	if is {
		return "true"
	}
	return ""
}

func (w *writer) http(indent int, h, usual lvs.HTTPCheck) {
	if reflect.DeepEqual(h, usual) {
		return
	}
	w.line(indent, "http:")
	indent += 2
	put := func(key, value, usual string) {
		if value != usual {
			w.line(indent, "%s: %s", key, quote(value))
		}
	}
	put("method", h.Method, usual.Method)
	put("path", h.Path, usual.Path)
	put("host", h.Host, "")
	if !reflect.DeepEqual(h.Status, usual.Status) {
		words := make([]string, 0, len(h.Status))
		for _, r := range h.Status {
			words = append(words, lvs.PortRange{First: uint16(r.First), Last: uint16(r.Last)}.String())
		}
		w.line(indent, "status: [%s]", strings.Join(words, ", "))
	}
	put("body-regex", h.BodyRegex, "")
	put("digest", h.Digest, "")
	put("header-weight", h.HeaderWeight, "")
}

func (w *writer) udp(indent int, u lvs.UDPCheck) {
	if u.Payload == "" && u.Expect == nil {
		return
	}
	w.line(indent, "udp:")
	if u.Payload != "" {
		w.line(indent+2, "payload: %s", bytesText(u.Payload))
	}
	if u.Expect == nil {
		return
	}
	if u.Expect.Mask == strings.Repeat("\xff", len(u.Expect.Value)) {
		w.line(indent+2, "expect: %s", bytesText(u.Expect.Value))
		return
	}
	digits := []byte(hex.EncodeToString([]byte(u.Expect.Value)))
	for i, m := range []byte(hex.EncodeToString([]byte(u.Expect.Mask))) {
		if m == '0' {
			digits[i] = '?'
		}
	}
	w.line(indent+2, "expect: %s", quote("hex:"+string(digits)))
}

// bytesText returns bytes as text where they are, else in hexadecimal digits.
func bytesText(data string) string {
	for _, r := range data {
		if r < ' ' || r > '~' {
			return quote("hex:" + hex.EncodeToString([]byte(data)))
		}
	}
	if strings.HasPrefix(data, "hex:") {
		return "hex:" + hex.EncodeToString([]byte(data))
	}
	return quote(data)
}
