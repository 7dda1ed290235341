package ipvsadm

import (
	"math"
	"net/netip"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// parseService reads the virtual service of -t, -u, --sctp-service or -f.
func (p *parser) parseService(value string) error {
	line := &p.line
	switch p.scan.current.long {
	case "tcp-service":
		line.protocol = lvs.TCP
	case "udp-service":
		line.protocol = lvs.UDP
	case "sctp-service":
		line.protocol = lvs.SCTP
	default:
		mark, ok := parseNumber(value, 1, math.MaxUint32)
		if !ok {
			return usageError("invalid fwmark value `%s' specified", value)
		}
		line.mark = uint32(mark)
		line.protocol = lvs.TCP
		return nil
	}
	addr, port, _, ok := p.parseHostPort(value)
	if !ok {
		return usageError("illegal virtual server address[:port] specified")
	}
	line.address, line.port = addr, port
	if addr.Is6() {
		line.ipv6, line.netmask = true, 128
	}
	return nil
}

// parseServer reads the real server of -r. Without a port it has that of the
// service, if that stands before it.
func (p *parser) parseServer(value string) error {
	addr, port, hasPort, ok := p.parseHostPort(value)
	if !ok {
		return usageError("illegal real server address[:port] specified")
	}
	if !hasPort {
		port = p.line.port
	}
	p.line.server.RealServerKey = lvs.RealServerKey{Address: addr, Port: port}
	return nil
}

// parseHostPort reads HOST, HOST:PORT or [HOST]:PORT. A port outside of brackets
// is an IPv6 address's; brackets around anything else are taken off first, with
// the port that follows them.
func (p *parser) parseHostPort(value string) (addr netip.Addr, port uint16, hasPort, ok bool) {
	host, portText := value, ""
	if strings.Trim(value, "0123456789") == "" {
		return addr, 0, false, false
	}
	if strings.HasPrefix(host, "[") {
		host, portText, ok = strings.Cut(host[1:], "]")
		if !ok || !strings.HasPrefix(portText, ":") {
			return addr, 0, false, false
		}
		portText, hasPort = portText[1:], true
	}
	if addr, ok = parseIPv6(host); !ok {
		host, portText, hasPort = cutLast(host)
		if addr, ok = p.hostAddress(host); !ok {
			return addr, 0, false, false
		}
	}
	if !hasPort {
		return addr, 0, false, true
	}
	port, ok = p.parsePort(portText)
	return addr, port, true, ok
}

// cutLast cuts s at its last colon.
func cutLast(s string) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// hostAddress returns the IPv4 address that a host is written as or has.
func (p *parser) hostAddress(host string) (netip.Addr, bool) {
	if addr, ok := parseIPv4(host); ok {
		return addr, true
	}
	if host == "" {
		return netip.Addr{}, false
	}
	return p.names.address(p.ctx, host)
}

func (p *parser) parsePort(value string) (uint16, bool) {
	if n, ok := parseNumber(value, 0, 65535); ok {
		return uint16(n), true
	}
	return p.names.port(value, p.line.protocol)
}

// parseNetmask reads -M: for IPv6 a prefix length, of which only the leading
// digits count; else a dotted mask, written as any IPv4 address.
func (p *parser) parseNetmask(value string) error {
	if !p.line.ipv6 {
		mask, ok := p.hostAddress(value)
		if !ok {
			return usageError("illegal virtual server persistent mask specified")
		}
		p.line.netmask = addrToUint32(mask)
		return nil
	}
	n, _, _ := leadingNumber(value)
	prefix := int32(n)
	if prefix < 1 || prefix > 128 {
		return usageError("illegal ipv6 netmask specified")
	}
	p.line.netmask = uint32(prefix)
	return nil
}
