package lvs

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseServiceKey reads a service's key as commands and files write it:
// "tcp:192.0.2.100:80", "sctp:[2001:db8::100]:2905", "fwmark:7" or, for IPv6,
// "fwmark6:7". It wraps ErrInvalid.
func ParseServiceKey(text string) (ServiceKey, error) {
	wrong := fmt.Errorf("service %q: %w: want one like tcp:192.0.2.100:80, udp:[2001:db8::100]:53 or fwmark:7", text, ErrInvalid)
	kind, rest, _ := strings.Cut(text, ":")
	if kind == "fwmark" || kind == "fwmark6" {
		mark, err := strconv.ParseUint(rest, 10, 32)
		if err != nil || mark == 0 {
			return ServiceKey{}, wrong
		}
		return MarkKey(uint32(mark), kind == "fwmark6"), nil
	}
	protocol, ok := map[string]Protocol{"tcp": TCP, "udp": UDP, "sctp": SCTP}[kind]
	addr, err := netip.ParseAddrPort(rest)
	if !ok || err != nil || !IsPlain(addr.Addr()) {
		return ServiceKey{}, wrong
	}
	return ServiceKey{Protocol: protocol, Address: addr.Addr(), Port: addr.Port()}, nil
}

// Text returns the key as [ParseServiceKey] reads it.
func (k ServiceKey) Text() string {
	switch {
	case k.Mark != 0 && k.Address.Is6():
		return fmt.Sprintf("fwmark6:%d", k.Mark)
	case k.Mark != 0:
		return fmt.Sprintf("fwmark:%d", k.Mark)
	}
	return strings.ToLower(k.Protocol.String()) + ":" + netip.AddrPortFrom(k.Address, k.Port).String()
}

// Compare orders keys: marks come last; IPv4 before IPv6.
func (k ServiceKey) Compare(other ServiceKey) int {
	return cmp.Or(
		cmp.Compare(k.Mark, other.Mark),
		k.Address.Compare(other.Address),
		cmp.Compare(k.Port, other.Port),
		cmp.Compare(k.Protocol, other.Protocol),
	)
}
