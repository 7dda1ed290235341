package config

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A checkDeclaration is a check, and where it is declared.
type checkDeclaration struct {
	lvs.Check
	offset int
}

const (
	defaultInterval = 5 * time.Second
	defaultTimeout  = 2 * time.Second
	defaultRise     = 1
	defaultFall     = 3
)

// sections are the types that a key is for.
var sections = map[string][]lvs.CheckType{
	"tls":     {lvs.CheckHTTPS, lvs.CheckTCP, lvs.CheckHTTP2, lvs.CheckGRPC, lvs.CheckSMTP},
	"http":    {lvs.CheckHTTP, lvs.CheckHTTPS, lvs.CheckHTTP2},
	"grpc":    {lvs.CheckGRPC},
	"dns":     {lvs.CheckDNS},
	"smtp":    {lvs.CheckSMTP},
	"udp":     {lvs.CheckUDP},
	"script":  {lvs.CheckScript},
	"file":    {lvs.CheckFile},
	"path":    notOf(lvs.CheckScript, lvs.CheckFile),
	"address": notOf(lvs.CheckScript, lvs.CheckFile),
	"port":    notOf(lvs.CheckScript, lvs.CheckFile, lvs.CheckICMP),
}

func notOf(types ...lvs.CheckType) []lvs.CheckType {
	return slices.DeleteFunc(lvs.CheckTypes(), func(t lvs.CheckType) bool { return slices.Contains(types, t) })
}

var checkObject = &object[checkDeclaration]{
	name:  "check",
	about: "A question to each real server, which is up while all of its checks succeed.",
	fields: []field[checkDeclaration]{
		of("type", "What is asked.", name("type", lvs.CheckTypes()), func(c *checkDeclaration) *lvs.CheckType { return &c.Type }),
		of("path", "vip: to the virtual address by the server's forwarding method, as clients' packets go. rip: to the server's own address.",
			name("path", []lvs.CheckPath{lvs.PathVIP, lvs.PathRIP}), func(c *checkDeclaration) *lvs.CheckPath { return &c.Path }),
		{"address", "Another address to ask, instead of the server's.", address().schema, func(r *reader, n *node, c *checkDeclaration) {
			address().read(r, n, &c.Address)
		}},
		of("port", "Another port to ask than the server's.", integer[uint16](1, 65535), func(c *checkDeclaration) *uint16 { return &c.Port }),
		of("interval", "From the start of one check to that of the next; 5s.", duration(100*time.Millisecond, 24*time.Hour, time.Millisecond),
			func(c *checkDeclaration) *time.Duration { return &c.Interval }),
		of("timeout", "How long an answer is waited for, not longer than interval; 2s.", duration(time.Millisecond, 24*time.Hour, time.Millisecond),
			func(c *checkDeclaration) *time.Duration { return &c.Timeout }),
		of("jitter", "By how much an interval is longer or shorter, at random; a tenth of interval.", duration(0, 24*time.Hour, time.Millisecond),
			func(c *checkDeclaration) *time.Duration { return &c.Jitter }),
		of("rise", "Successes in a row that bring a server up; 1.", integer(1, 1000), func(c *checkDeclaration) *int { return &c.Rise }),
		of("fall", "Failures in a row that take a server down; 3.", integer(1, 1000), func(c *checkDeclaration) *int { return &c.Fall }),
		of("tls", "How TLS is spoken. https always speaks it, tcp, http2, grpc and smtp with this key.", pointer(tlsObject.kind()),
			func(c *checkDeclaration) **lvs.TLSCheck { return &c.TLS }),
		of("http", "The request, and what its answer has to be.", httpObject.kind(), func(c *checkDeclaration) *lvs.HTTPCheck { return &c.HTTP }),
		of("grpc", "What is asked by the gRPC health protocol.", grpcObject.kind(), func(c *checkDeclaration) *lvs.GRPCCheck { return &c.GRPC }),
		of("dns", "The query.", dnsObject.kind(), func(c *checkDeclaration) *lvs.DNSCheck { return &c.DNS }),
		of("smtp", "How the checker behaves.", smtpObject.kind(), func(c *checkDeclaration) *lvs.SMTPCheck { return &c.SMTP }),
		of("udp", "The datagram, and its answer.", udpObject.kind(), func(c *checkDeclaration) *lvs.UDPCheck { return &c.UDP }),
		of("script", "The command.", scriptObject.kind(), func(c *checkDeclaration) *lvs.ScriptCheck { return &c.Script }),
		of("file", "The file.", fileCheckObject.kind(), func(c *checkDeclaration) *lvs.FileCheck { return &c.File }),
	},
	required: []string{"type"},
	done: func(r *reader, n *node, c *checkDeclaration) {
		c.offset = n.offset
		c.complete(func(key string) bool { return n.find(key) != nil })
		c.check(r, n)
	},
}

// complete fills in what is left out.
func (c *checkDeclaration) complete(given func(key string) bool) {
	if c.Interval == 0 {
		c.Interval = defaultInterval
	}
	if c.Timeout == 0 {
		c.Timeout = min(defaultTimeout, c.Interval)
	}
	if !given("jitter") {
		c.Jitter = c.Interval / 10
	}
	if c.Rise == 0 {
		c.Rise = defaultRise
	}
	if c.Fall == 0 {
		c.Fall = defaultFall
	}
	if c.Path == "" && slices.Contains(sections["path"], c.Type) {
		c.Path = lvs.PathVIP
		if c.Address.IsValid() {
			c.Path = lvs.PathRIP
		}
	}
	if c.Type == lvs.CheckHTTPS && c.TLS == nil {
		c.TLS = &lvs.TLSCheck{}
	}
	if slices.Contains(sections["http"], c.Type) {
		if c.HTTP.Method == "" {
			c.HTTP.Method = "GET"
		}
		if c.HTTP.Path == "" {
			c.HTTP.Path = "/"
		}
		if c.HTTP.Status == nil {
			c.HTTP.Status = []lvs.StatusRange{{First: 200, Last: 299}}
		}
	}
	if c.Type == lvs.CheckDNS && c.DNS.Name == "" {
		c.DNS.Name = "."
	}
	if c.Type == lvs.CheckDNS && c.DNS.Type == "" {
		c.DNS.Type = "SOA"
	}
}

// check refuses what does not go together.
func (c *checkDeclaration) check(r *reader, n *node) {
	for _, p := range n.pairs {
		if types, ok := sections[p.key.text]; ok && !slices.Contains(types, c.Type) {
			r.refuse(p.key, "%s: a check of type %s has none: it is for %v", p.key.text, c.Type, types)
		}
	}
	switch {
	case c.Type == lvs.CheckScript && n.find("script") == nil, c.Type == lvs.CheckFile && n.find("file") == nil:
		r.refuse(n, "key %s is missing", c.Type)
	case c.Timeout > c.Interval:
		r.refuse(n, "timeout %s: want it not longer than the interval, %s", shortDuration(c.Timeout), shortDuration(c.Interval))
	case c.Jitter > c.Interval/2:
		r.refuse(n, "jitter %s: want at most half the interval, %s", shortDuration(c.Jitter), shortDuration(c.Interval))
	case c.Address.IsValid() && c.Path == lvs.PathVIP:
		r.refuse(n.at("path"), "path vip: with another address to ask, the path can only be rip")
	}
}

// checkKind is a check: the name of one under checks, a type alone, or a mapping.
func checkKind() kind[checkDeclaration] {
	return kind[checkDeclaration]{anyOf(text(""), checkObject.kind().schema), func(r *reader, n *node, into *checkDeclaration) {
		if n.kind != scalarNode {
			checkObject.read(r, n, into)
			return
		}
		if named, ok := r.checks[n.text]; ok {
			*into = named
			return
		}
		t := lvs.CheckType(n.text)
		if !slices.Contains(lvs.CheckTypes(), t) || t == lvs.CheckScript || t == lvs.CheckFile {
			words := []string{"tcp", "http", "https", "http2", "grpc", "dns", "smtp", "udp", "icmp"}
			for name := range r.checks {
				words = append(words, name)
			}
			slices.Sort(words)
			r.unknown(n, "check", words)
			return
		}
		*into = checkDeclaration{lvs.Check{Type: t}, n.offset}
		into.complete(func(string) bool { return false })
	}}
}

var tlsObject = &object[lvs.TLSCheck]{
	name:  "tls",
	about: "How a check speaks TLS. The certificate is verified: its chain, its name and its time.",
	fields: []field[lvs.TLSCheck]{
		of("sni", "The name that is sent, and that the certificate has to be of; the HTTP host if there is one.", freeText("a name"),
			func(t *lvs.TLSCheck) *string { return &t.ServerName }),
		of("ca", "A file of the certificates to trust, PEM; those of the system.", filePath(), func(t *lvs.TLSCheck) *string { return &t.CA }),
		{"verify", "false takes any certificate.", truth().schema, func(r *reader, n *node, t *lvs.TLSCheck) {
			verify := true
			truth().read(r, n, &verify)
			t.SkipVerify = !verify
		}},
	},
}

var (
	httpToken  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	httpTarget = regexp.MustCompile(`^/[!-~]*$`)
	hexDigest  = regexp.MustCompile(`^([0-9a-fA-F]{32}|[0-9a-fA-F]{64})$`)
	dnsType    = regexp.MustCompile(`^[A-Z0-9]+$`)
	absolute   = regexp.MustCompile(`^/[^\x00]+$`)
)

// matching is text that matches an expression.
func matching(expression *regexp.Regexp, want string) kind[string] {
	return scalar(text(expression.String()), func(text string) (string, error) {
		if !expression.MatchString(text) {
			return "", fmt.Errorf("%s: want %s", quoteShort(text), want)
		}
		return text, nil
	})
}

func filePath() kind[string] { return matching(absolute, "an absolute path") }

var httpObject = &object[lvs.HTTPCheck]{
	name:  "http",
	about: "An HTTP request, and what its answer has to be.",
	fields: []field[lvs.HTTPCheck]{
		of("method", "GET.", matching(httpToken, "a method, like GET or HEAD"), func(h *lvs.HTTPCheck) *string { return &h.Method }),
		of("path", "The path and the query; /.", matching(httpTarget, "a path that begins with /"), func(h *lvs.HTTPCheck) *string { return &h.Path }),
		of("host", "The Host header; the address.", freeText("a name"), func(h *lvs.HTTPCheck) *string { return &h.Host }),
		of("status", "The statuses that are right: 200, a range like 200-299, or a list of them; 200-299.",
			oneOrMore(statusRange(), "statuses, like 200 or 200-299"), func(h *lvs.HTTPCheck) *[]lvs.StatusRange { return &h.Status }),
		of("body-regex", "An expression (syntax of Go's regexp) that is to match in the body.", expression(), func(h *lvs.HTTPCheck) *string { return &h.BodyRegex }),
		{"digest", "The body's MD5 (32 hexadecimal digits) or SHA-256 (64).", text(hexDigest.String()), func(r *reader, n *node, h *lvs.HTTPCheck) {
			matching(hexDigest, "32 hexadecimal digits of MD5, or 64 of SHA-256").read(r, n, &h.Digest)
			h.Digest = strings.ToLower(h.Digest)
		}},
		of("header-weight", "The header of the answer that holds the server's weight.", matching(httpToken, "the name of a header"),
			func(h *lvs.HTTPCheck) *string { return &h.HeaderWeight }),
	},
}

func statusRange() kind[lvs.StatusRange] {
	schema := anyOf(map[string]any{"type": "integer", "minimum": 100, "maximum": 599}, text("^[1-5][0-9][0-9]-[1-5][0-9][0-9]$"))
	return scalar(schema, func(text string) (lvs.StatusRange, error) {
		r, err := lvs.ParsePortRange(text)
		if err != nil || r.First < 100 || r.Last > 599 {
			return lvs.StatusRange{}, fmt.Errorf("%s: want a status, 100 to 599, or a range like 200-299", quoteShort(text))
		}
		return lvs.StatusRange{First: int(r.First), Last: int(r.Last)}, nil
	})
}

func expression() kind[string] {
	return scalar(map[string]any{"type": "string", "format": "regex"}, func(text string) (string, error) {
		_, err := regexp.Compile(text)
		return text, err
	})
}

var grpcObject = &object[lvs.GRPCCheck]{
	name:  "grpc",
	about: "What the gRPC health protocol is asked for.",
	fields: []field[lvs.GRPCCheck]{
		of("service", "The name of a service; the whole server.", freeText("a name"), func(g *lvs.GRPCCheck) *string { return &g.Service }),
	},
}

var dnsObject = &object[lvs.DNSCheck]{
	name:  "dns",
	about: "A DNS query.",
	fields: []field[lvs.DNSCheck]{
		of("name", "The name that is asked for; the root.", freeText("a name"), func(d *lvs.DNSCheck) *string { return &d.Name }),
		of("type", "A, AAAA, NS, ...; SOA.", matching(dnsType, "a type, like A"), func(d *lvs.DNSCheck) *string { return &d.Type }),
	},
	done: func(_ *reader, _ *node, d *lvs.DNSCheck) {
		if d.Name != "" && !strings.HasSuffix(d.Name, ".") {
			d.Name += "."
		}
	},
}

var smtpObject = &object[lvs.SMTPCheck]{
	name:  "smtp",
	about: "How an SMTP check behaves.",
	fields: []field[lvs.SMTPCheck]{
		of("helo", "The name by which it introduces itself; the host's.", freeText("a name"), func(s *lvs.SMTPCheck) *string { return &s.Helo }),
	},
}

var udpObject = &object[lvs.UDPCheck]{
	name:  "udp",
	about: "A datagram, and its answer.",
	fields: []field[lvs.UDPCheck]{
		of("payload", "What is sent: text, or hex: and hexadecimal digits; nothing.", payload(), func(u *lvs.UDPCheck) *string { return &u.Payload }),
		of("expect", "How the answer begins: text, or hex: and digits of which ? is any. An empty text: any answer. Without the key no answer is needed.",
			pattern(), func(u *lvs.UDPCheck) **lvs.BytePattern { return &u.Expect }),
	},
}

func payload() kind[string] {
	return scalar(text(""), func(text string) (string, error) {
		digits, isHex := strings.CutPrefix(text, "hex:")
		if !isHex {
			return text, nil
		}
		bytes, err := hex.DecodeString(digits)
		if err != nil {
			return "", fmt.Errorf("%s: want hex: and pairs of hexadecimal digits", quoteShort(text))
		}
		return string(bytes), nil
	})
}

func pattern() kind[*lvs.BytePattern] {
	return scalar(text(""), func(text string) (*lvs.BytePattern, error) {
		digits, isHex := strings.CutPrefix(text, "hex:")
		if !isHex {
			return &lvs.BytePattern{Value: text, Mask: strings.Repeat("\xff", len(text))}, nil
		}
		value, err := hex.DecodeString(strings.ReplaceAll(digits, "?", "0"))
		if err != nil {
			return nil, fmt.Errorf("%s: want hex: and pairs of hexadecimal digits or ?", quoteShort(text))
		}
		mask, err := hex.DecodeString(strings.Map(func(r rune) rune {
			if r == '?' {
				return '0'
			}
			return 'f'
		}, digits))
		return &lvs.BytePattern{Value: string(value), Mask: string(mask)}, err
	})
}

func commandFields[T any](part func(*T) *lvs.Command) []field[T] {
	return []field[T]{
		of("command", "The program, by its absolute path. No shell is asked.", filePath(), func(t *T) *string { return &part(t).Path }),
		of("args", "Its arguments.", listOf(scalar(text(""), func(text string) (string, error) { return text, nil }), "words"),
			func(t *T) *[]string { return &part(t).Args }),
	}
}

var scriptObject = &object[lvs.ScriptCheck]{
	name:  "script",
	about: "A command whose exit status 0 is success.",
	fields: append(commandFields(func(s *lvs.ScriptCheck) *lvs.Command { return &s.Command }),
		of("weight", "true: an exit status from 2 to 255 is success too, and sets the weight to the status minus 2.", truth(),
			func(s *lvs.ScriptCheck) *bool { return &s.Weight })),
	required: []string{"command"},
}

var fileCheckObject = &object[lvs.FileCheck]{
	name:  "file",
	about: "A file that holds a whole number: above 0 is success.",
	fields: []field[lvs.FileCheck]{
		of("path", "The file.", filePath(), func(f *lvs.FileCheck) *string { return &f.Path }),
		of("weight", "true: the number is the server's weight, and 0 is success too.", truth(), func(f *lvs.FileCheck) *bool { return &f.Weight }),
	},
	required: []string{"path"},
}

var commandObject = &object[lvs.Command]{
	name:     "command",
	about:    "A program and its arguments.",
	fields:   commandFields(func(c *lvs.Command) *lvs.Command { return c }),
	required: []string{"command"},
}

var notifyObject = &object[lvs.Notification]{
	name:  "notify",
	about: "Who is told of transitions, with their cause.",
	fields: []field[lvs.Notification]{
		of("on", "The transitions; all of them.", oneOrMore(name("transition", lvs.Transitions()), "transitions"),
			func(n *lvs.Notification) *[]lvs.Transition { return &n.On }),
		of("script", "A command that is run.", commandObject.kind(), func(n *lvs.Notification) *lvs.Command { return &n.Script }),
		of("webhook", "A URL that JSON is posted to.", webhook(), func(n *lvs.Notification) *string { return &n.Webhook }),
	},
	oneOf: []string{"script", "webhook"},
}

func webhook() kind[string] {
	return scalar(map[string]any{"type": "string", "format": "uri"}, func(text string) (string, error) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", fmt.Errorf("%s: want a URL like https://alerts.example.com/fairlead", quoteShort(text))
		}
		return text, nil
	})
}

// pointer is a kind of which nil says that the key is not given.
func pointer[V any](k kind[V]) kind[*V] {
	return kind[*V]{k.schema, func(r *reader, n *node, into **V) {
		*into = new(V)
		k.read(r, n, *into)
	}}
}
