package savefile

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var protocolWords = map[lvs.Protocol]string{lvs.TCP: "tcp", lvs.UDP: "udp", lvs.SCTP: "sctp"}

// markWords returns what a rule asks for, each with a blank before it.
func markWords(r lvs.MarkRule) string {
	var b strings.Builder
	if r.Protocol != 0 {
		fmt.Fprintf(&b, " protocol %s", protocolWords[r.Protocol])
	}
	if r.Source.IsValid() {
		fmt.Fprintf(&b, " source %s", r.Source)
	}
	if r.SourcePorts != lvs.AllPorts {
		fmt.Fprintf(&b, " source-ports %s", r.SourcePorts)
	}
	if r.Destination.IsValid() {
		fmt.Fprintf(&b, " destination %s", r.Destination)
	}
	if r.DestinationPorts != lvs.AllPorts {
		fmt.Fprintf(&b, " destination-ports %s", r.DestinationPorts)
	}
	return b.String()
}

// parseMark reads "N protocol P source PREFIX source-ports A-B destination PREFIX
// destination-ports A-B"; what is left out is any.
func parseMark(words []string) (lvs.MarkRule, error) {
	r := lvs.MarkRule{SourcePorts: lvs.AllPorts, DestinationPorts: lvs.AllPorts}
	n, err := strconv.ParseUint(words[0], 10, 32)
	if err != nil || n == 0 {
		return r, fmt.Errorf("mark %q: want 1 to %d", words[0], uint32(math.MaxUint32))
	}
	r.Mark = uint32(n)
	c := clauses{words: words[1:]}
	for {
		name, err := c.next()
		if err != nil {
			return r, err
		}
		switch name {
		case "":
			return r, r.Check()
		case "protocol":
			r.Protocol, err = choice(&c, name, protocolWords, "tcp, udp or sctp")
		case "source":
			r.Source, err = c.prefix(name)
		case "destination":
			r.Destination, err = c.prefix(name)
		case "source-ports":
			r.SourcePorts, err = c.ports(name)
		case "destination-ports":
			r.DestinationPorts, err = c.ports(name)
		default:
			err = fmt.Errorf("%q: want protocol, source, source-ports, destination or destination-ports", name)
		}
		if err != nil {
			return r, err
		}
	}
}

func (c *clauses) prefix(name string) (netip.Prefix, error) {
	word, err := c.value(name)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s %q: want a prefix, like 192.0.2.0/24 or 192.0.2.100/32", name, word)
	}
	return p, nil
}

func (c *clauses) ports(name string) (lvs.PortRange, error) {
	word, err := c.value(name)
	if err != nil {
		return lvs.PortRange{}, err
	}
	return lvs.ParsePortRange(word)
}

// markFields returns the words of a rule, at least one.
func markFields(text string) []string {
	if words := strings.Fields(text); len(words) > 0 {
		return words
	}
	return []string{""}
}
