package random

import (
	"fmt"
	"slices"
	"strings"
)

// isSIP reports whether templates of a service are named by Call-IDs.
func (s *service) isSIP() bool { return strings.Contains(s.options, " --pe sip") }

// tracksCalls reports whether IPVS would make a connection of what a service's masqueraded real server
// begins itself, as the engine does for that of any service.
func (g *generator) tracksCalls(svc *service) bool {
	return slices.ContainsFunc(g.services, func(other *service) bool { return other.number == svc.number && other.isSIP() })
}

// message returns what is behind the address of a datagram of SIP: mostly a plain message of one of a
// few calls, else one that is as odd as can be.
func (g *generator) message() string {
	if !g.chance(3) {
		return "/sip=" + pick(g, "one", "two", "three", "four") + pick(g, "@example.com", "")
	}
	var text strings.Builder
	text.WriteString(pick(g, "INVITE sip:bob@example.com SIP/2.0\r\n", "\r\n", "i:early@example.com\r\n", ""))
	for range 1 + g.random.IntN(4) {
		text.WriteString(g.header())
	}
	return "/text=" + escape(text.String())
}

// header returns a line, or what looks like one.
func (g *generator) header() string {
	end := pick(g, "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n\r\n", "\n\n", "\n\r", " \r\n", "")
	if g.chance(4) {
		return pick(g, "Via: SIP/2.0/UDP 203.0.113.1", "X-Call-ID: x", " Call-ID: folded", "\tgoes on", "Call-Identity: x", "ix: y", "i\xe9: z", "", " ") + end
	}
	blank := func() string {
		return pick(g, "", "", "", "", " ", "  \t", "\r\n ", "\n\t ", "\r ", "\r\n", " \r\n\r\n ")
	}
	return pick(g, "Call-ID", "Call-ID", "Call-ID", "call-id", "CALL-iD", "i", "I") + blank() + pick(g, ":", ":", ":", ":", "", ";") + blank() + g.callID() + end
}

// callID returns one that may be none. Long ones are not among them: ipvsadm has no room for their rows.
func (g *generator) callID() string {
	return pick(g,
		"one", "two@example.com", "one@example.com", "", "@example.com", "one@", "one@two@three", "one;x", "one two", `!"%'()*+-./:<>?[\]_{}~@`+"`0Az", "caf\xe9", "a\xd7b", "a\x7fb", "a=b", "one@;",
		strings.Repeat("l", 80), strings.Repeat("l", 256),
	)
}

// escape writes bytes as a packet's text= takes them: whatever may mean something else, in hexadecimal.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("-.:@_", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
