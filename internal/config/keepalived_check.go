package config

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// checkTypes are the checkers that are carried over.
var checkTypes = map[string]lvs.CheckType{
	"TCP_CHECK": lvs.CheckTCP, "HTTP_GET": lvs.CheckHTTP, "SSL_GET": lvs.CheckHTTPS, "SMTP_CHECK": lvs.CheckSMTP, "DNS_CHECK": lvs.CheckDNS,
	"MISC_CHECK": lvs.CheckScript, "PING_CHECK": lvs.CheckICMP, "UDP_CHECK": lvs.CheckUDP,
}

// defaultRetries are those of checkers that don't have one.
var defaultRetries = map[lvs.CheckType]int{lvs.CheckDNS: 3, lvs.CheckScript: 0}

// check takes a block of a real server.
func (im *keepalivedImport) check(server *realServer, t timing, s *statement) {
	kind, ok := checkTypes[s.words[0]]
	if !ok {
		reason := map[string]string{
			"BFD_CHECK":  "there is no BFD",
			"FILE_CHECK": "the file's number is the weight here, or up above 0, not an offset: write a check of type file",
		}[s.words[0]]
		if reason != "" {
			im.drop(s, "%s", reason)
		}
		return
	}
	s.carried = true
	c := checkDeclaration{Check: lvs.Check{Type: kind}}
	if kind != lvs.CheckScript {
		c.Path = lvs.PathRIP // keepalived asks the real server itself
	}
	if kind == lvs.CheckHTTPS {
		c.TLS = &lvs.TLSCheck{SkipVerify: true} // as keepalived does
	}
	var urls []lvs.HTTPCheck
	var script *statement
	for _, inner := range s.block {
		switch {
		case im.connection(&c.Check, inner):
		case inner.words[0] == "url" && inner.braced:
			if url, ok := im.url(inner); ok {
				urls = append(urls, url)
			}
		case inner.words[0] == "misc_path":
			script = inner
		case im.special(&c.Check, &t, inner):
		default:
			im.timingKeyword(&t, inner)
		}
	}
	if kind == lvs.CheckScript && !im.script(&c.Check, s, script) {
		return
	}
	im.time(&c, t, s)
	server.health.Alpha, server.health.Inhibit = server.health.Alpha || t.alpha, server.health.Inhibit || t.inhibit
	if len(urls) == 0 {
		urls = append(urls, lvs.HTTPCheck{})
	}
	for _, url := range urls {
		one := c
		if kind == lvs.CheckHTTP || kind == lvs.CheckHTTPS {
			one.HTTP = url
			if url.Host == "" {
				one.HTTP.Host = t.virtualhost
			}
		}
		one.complete(func(string) bool { return false })
		server.health.Checks = append(server.health.Checks, one.Check)
	}
}

// time says when a check is put.
func (im *keepalivedImport) time(c *checkDeclaration, t timing, s *statement) {
	retry := t.retry
	if retry < 0 {
		var ok bool
		if retry, ok = defaultRetries[c.Type]; !ok {
			retry = 1
		}
	}
	c.Interval, c.Timeout, c.Fall = max(t.interval, 100*time.Millisecond), max(t.timeout, time.Millisecond), retry+1
	if c.Timeout > c.Interval {
		im.list(s.at, "a check may take %s, longer than its interval: it is cut at %s", shortDuration(c.Timeout), shortDuration(c.Interval))
		c.Timeout = c.Interval
	}
}

// connection takes a keyword that says where to connect; it reports whether it was one.
func (im *keepalivedImport) connection(c *lvs.Check, s *statement) bool {
	switch s.words[0] {
	case "connect_ip":
		addr, err := parseAddress(s.arg(0))
		if err == nil && c.Type == lvs.CheckScript {
			err = fmt.Errorf("a script is not connected to")
		}
		if err == nil {
			c.Address = addr
		}
		im.take(s, err)
	case "connect_port":
		var port int
		err := number(s, &port, 1, 65535)
		if err == nil && (c.Type == lvs.CheckScript || c.Type == lvs.CheckICMP) {
			err = fmt.Errorf("a check of type %s has no port", c.Type)
		}
		if err == nil {
			c.Port = uint16(port)
		}
		im.take(s, err)
	case "host": // an old form of SMTP_CHECK
		if c.Type != lvs.CheckSMTP || !s.braced || c.Address.IsValid() || c.Port != 0 {
			im.drop(s, "one address is asked by a check: write another check for this one")
			return true
		}
		s.carried = true
		for _, inner := range s.block {
			if !im.connection(c, inner) {
				im.timingKeyword(&timing{}, inner)
			}
		}
	default:
		return false
	}
	return true
}

// special takes a keyword of one sort of check; it reports whether it was one.
func (im *keepalivedImport) special(c *lvs.Check, t *timing, s *statement) bool {
	keyword := s.words[0]
	switch {
	case c.Type == lvs.CheckSMTP && keyword == "helo_name":
		c.SMTP.Helo = s.arg(0)
		im.take(s, nil)
	case c.Type == lvs.CheckDNS && keyword == "type":
		c.DNS.Type = strings.ToUpper(s.arg(0))
		im.take(s, nil)
	case c.Type == lvs.CheckDNS && keyword == "name":
		c.DNS.Name = strings.TrimSuffix(s.arg(0), ".") + "."
		im.take(s, nil)
	case c.Type == lvs.CheckScript && keyword == "misc_timeout":
		im.take(s, timer(s, &t.timeout))
	case c.Type == lvs.CheckScript && keyword == "misc_dynamic":
		im.take(s, flag(s, &c.Script.Weight))
	case c.Type == lvs.CheckScript && keyword == "user":
		im.drop(s, "the command is run by the director's own user")
	case c.Type == lvs.CheckUDP && keyword == "payload":
		payload, err := freeHex(strings.Join(s.words[1:], " "))
		if err == nil && payload.Mask != strings.Repeat("\xff", len(payload.Mask)) {
			err = fmt.Errorf("want hexadecimal digits")
		}
		c.UDP.Payload = payload.Value
		im.take(s, err)
	case c.Type == lvs.CheckUDP && keyword == "require_reply":
		reply, err := freeHex(strings.Join(s.words[1:], " "))
		c.UDP.Expect = &reply
		im.take(s, err)
	case c.Type == lvs.CheckUDP && (keyword == "min_reply_length" || keyword == "max_reply_length"):
		im.drop(s, "an answer is as long as what it has to begin with, or longer")
	case c.Type == lvs.CheckHTTPS && keyword == "enable_sni":
		im.take(s, nil) // the host is always sent
	case c.Type == lvs.CheckHTTPS && keyword == "sni_name":
		c.TLS.ServerName = s.arg(0)
		im.take(s, nil)
	case c.Type == lvs.CheckHTTPS && keyword == "tls_compliant":
		im.drop(s, "TLS is spoken as it is written")
	case keyword == "http_protocol" && s.arg(0) == "1.1":
		im.take(s, nil)
	case keyword == "http_protocol":
		im.drop(s, "HTTP/1.1 is spoken, and the connection closed")
	case keyword == "fast_recovery":
		im.drop(s, "each URL is a check of its own, and asked at each interval")
	default:
		return false
	}
	return true
}

// freeHex reads digits that are grouped by blanks; x is any digit. A group of an odd
// number of digits ends with one that is a byte by itself.
func freeHex(text string) (lvs.BytePattern, error) {
	var digits strings.Builder
	for _, group := range strings.Fields(text) {
		if len(group)%2 != 0 {
			group = group[:len(group)-1] + "0" + group[len(group)-1:]
		}
		digits.WriteString(group)
	}
	value := regexp.MustCompile("[xX]").ReplaceAllString(digits.String(), "0")
	bytes, err := hex.DecodeString(value)
	if err != nil {
		return lvs.BytePattern{}, fmt.Errorf("want hexadecimal digits")
	}
	mask, err := hex.DecodeString(strings.Map(func(r rune) rune {
		if r == 'x' || r == 'X' {
			return '0'
		}
		return 'f'
	}, digits.String()))
	return lvs.BytePattern{Value: string(bytes), Mask: string(mask)}, err
}

// script takes the command of a MISC_CHECK.
func (im *keepalivedImport) script(c *lvs.Check, s, path *statement) bool {
	if path == nil {
		im.drop(s, "misc_path is missing")
		return false
	}
	command, err := parseCommand(path)
	if err != nil {
		im.drop(s, "misc_path: %v", err)
		return false
	}
	path.carried = true
	c.Script.Command = command
	return true
}

// url takes a url block of HTTP_GET or SSL_GET.
func (im *keepalivedImport) url(s *statement) (lvs.HTTPCheck, bool) {
	s.carried = true
	var h lvs.HTTPCheck
	var insensitive bool
	for _, inner := range s.block {
		var err error
		switch value := inner.arg(0); inner.words[0] {
		case "path":
			if !httpTarget.MatchString(value) {
				err = fmt.Errorf("want a path that begins with /")
				break
			}
			h.Path = value
		case "digest":
			h.Digest = strings.ToLower(value)
			if !hexDigest.MatchString(value) {
				h.Digest, err = "", fmt.Errorf("want 32 hexadecimal digits of MD5, or 64 of SHA-256")
			}
		case "status_code":
			h.Status, err = statusCodes(inner.words[1:])
		case "virtualhost":
			h.Host = value
		case "regex":
			h.BodyRegex = value
			if _, failed := regexp.Compile(value); failed != nil {
				h.BodyRegex, err = "", fmt.Errorf("it is not in the syntax of Go's regexp: %w", failed)
			}
		case "regex_options":
			insensitive = len(inner.words) == 2 && value == "caseless"
			if !insensitive {
				err = fmt.Errorf("only caseless is carried over; write the rest into body-regex, like (?s)")
			}
		case "regex_no_match":
			im.drop(s, "a body that is not to match is not asked for")
			return h, false
		case "regex_stack", "regex_min_offset", "regex_max_offset":
			err = fmt.Errorf("the whole body is searched")
		default:
			continue
		}
		im.take(inner, err)
	}
	if insensitive && h.BodyRegex != "" {
		h.BodyRegex = "(?i)" + h.BodyRegex
	}
	return h, true
}

func statusCodes(words []string) ([]lvs.StatusRange, error) {
	var ranges []lvs.StatusRange
	for _, word := range words {
		r, err := lvs.ParsePortRange(word)
		if err != nil || r.First < 100 || r.Last > 599 {
			return nil, fmt.Errorf("status %q: want 100 to 599, or a range", word)
		}
		ranges = append(ranges, lvs.StatusRange{First: int(r.First), Last: int(r.Last)})
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("want a status")
	}
	return ranges, nil
}
