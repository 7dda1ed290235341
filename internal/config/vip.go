package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A place is the key of a virtual service, and where the file asks for it.
type place struct {
	key    lvs.ServiceKey
	offset int
}

// maxServices is how many services a director has room for.
const maxServices = 4096

var protocolWords = map[string]lvs.Protocol{"tcp": lvs.TCP, "udp": lvs.UDP, "sctp": lvs.SCTP}

// parseVIPs returns the services that a word names: "tcp:192.0.2.100:80",
// "udp:[2001:db8::100]:53", "fwmark:7"; or, of a range of addresses, a prefix or a
// range of ports, one for each: "tcp:192.0.2.100-192.0.2.109:80",
// "tcp:192.0.2.96/28:8000-8010", "udp:[2001:db8::/124]:53".
func parseVIPs(text string) ([]lvs.ServiceKey, error) {
	kind, rest, _ := strings.Cut(text, ":")
	if kind == "fwmark" || kind == "fwmark6" {
		key, err := lvs.ParseServiceKey(text)
		return []lvs.ServiceKey{key}, err
	}
	protocol, ok := protocolWords[kind]
	hosts, ports, found := cutLast(rest, ":")
	if !ok || !found {
		return nil, fmt.Errorf(`%s: want a service like tcp:192.0.2.100:80, "udp:[2001:db8::100]:53" or fwmark:7`, quoteShort(text))
	}
	first, last, err := parseHosts(hosts)
	if err != nil {
		return nil, err
	}
	from, to, err := parsePorts(ports)
	if err != nil {
		return nil, err
	}
	var keys []lvs.ServiceKey
	for addr := first; ; addr = addr.Next() {
		for port := from; port <= to; port++ {
			if len(keys) == maxServices {
				return nil, fmt.Errorf("%s: that is more than %d services; one service for many addresses or ports: fwmark:N, with a rule of marks", quoteShort(text), maxServices)
			}
			keys = append(keys, lvs.ServiceKey{Protocol: protocol, Address: addr, Port: uint16(port)})
		}
		if addr == last {
			return keys, nil
		}
	}
}

// cutLast cuts text around the last sep.
func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

func parseHosts(text string) (first, last netip.Addr, err error) {
	inner := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	bracketed := len(inner) == len(text)-2
	if len(inner) != len(text) && !bracketed {
		return first, last, fmt.Errorf("%s: a bracket without its other one", quoteShort(text))
	}
	from, to, isRange := strings.Cut(inner, "-")
	switch {
	case isRange:
		if first, err = parseAddress(from); err == nil {
			last, err = parseAddress(to)
		}
		if err == nil && (first.Is4() != last.Is4() || last.Less(first)) {
			err = fmt.Errorf("%s: want the lower address first, and one family", quoteShort(inner))
		}
	case strings.Contains(inner, "/"):
		first, last, err = parseNet(inner)
	default:
		first, err = parseAddress(inner)
		last = first
	}
	if err == nil && first.Is6() != bracketed {
		err = fmt.Errorf("%s: want IPv6 addresses in brackets, and no others", quoteShort(text))
	}
	return first, last, err
}

// parseNet returns the first and the last address of a prefix.
func parseNet(text string) (first, last netip.Addr, err error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Masked() != p {
		return first, last, fmt.Errorf("%s: want a prefix like 192.0.2.96/28, without bits behind it", quoteShort(text))
	}
	if p.Addr().BitLen()-p.Bits() > 12 {
		return first, last, fmt.Errorf("%s: that is more than %d addresses", quoteShort(text), maxServices)
	}
	first, last = p.Addr(), p.Addr()
	for next := first; p.Contains(next); next = next.Next() {
		last = next
	}
	if err := checkAddress(first); err != nil {
		return first, last, err
	}
	return first, last, checkAddress(last)
}

// parsePorts reads a port, or a range; 0 is all ports of a persistent service.
func parsePorts(text string) (first, last int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	f, err := strconv.ParseUint(from, 10, 16)
	if err == nil {
		var t uint64
		if t, err = strconv.ParseUint(to, 10, 16); err == nil && (!isRange || f > 0 && f <= t) {
			return int(f), int(t), nil
		}
	}
	return 0, 0, fmt.Errorf("port %s: want 1 to 65535, a range like 8000-8010, or 0 for all ports of a persistent service", quoteShort(text))
}

// vips is a word that names services, or a sequence of them.
var vips = newVIPs()

func newVIPs() kind[[]place] {
	one := kind[[]place]{text(""), func(r *reader, n *node, into *[]place) {
		if n.kind != scalarNode {
			r.refuse(n, `%s: want a service like tcp:192.0.2.100:80; one with brackets goes into quotes`, describe(n))
			return
		}
		keys, err := parseVIPs(n.text)
		if err != nil {
			r.refuse(n, "%s", shortReason(err))
			return
		}
		for _, key := range keys {
			*into = append(*into, place{key, n.offset})
		}
	}}
	several := oneOrMore(one, "services like tcp:192.0.2.100:80")
	return kind[[]place]{several.schema, func(r *reader, n *node, into *[]place) {
		var lists [][]place
		several.read(r, n, &lists)
		*into = nil
		for _, list := range lists {
			if *into = append(*into, list...); len(*into) > maxServices {
				r.refuse(n, "that is more than %d services", maxServices)
				return
			}
		}
	}}
}
