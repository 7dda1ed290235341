package lvs

import (
	"fmt"
	"net/netip"
)

// A LocalAddress is one of the pool that clients of FullNAT real servers come from, for
// these: addresses of the director's, each with ports of its own.
type LocalAddress struct {
	// Prefix has no host bits. All of its addresses belong to the pool.
	Prefix netip.Prefix
	// Ports do not include 0. Each can be one client's for every real server's address
	// and port.
	Ports PortRange
}

// A LocalAddressStatus is one of a pool as it was read back.
type LocalAddressStatus struct {
	LocalAddress
	// Problem says why answers to it may not come back to the director; "" if it has them.
	Problem string
}

// DefaultLocalPorts are those of a local address that says none: below the ports that the
// host gives its own connections (net.ipv4.ip_local_port_range), which may go to the same
// real servers.
var DefaultLocalPorts = PortRange{1024, 32767}

// MaxLocalAddresses is how many addresses a pool has, of both families together.
const MaxLocalAddresses = 256

// ParseLocalPrefix reads "192.0.2.20" or "192.0.2.32/28". It wraps ErrInvalid.
func ParseLocalPrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("local address %q: %w: want an address or a prefix, like 192.0.2.20 or 192.0.2.32/28", text, ErrInvalid)
	}
	return prefix, nil
}

// String returns what ParseLocalPrefix reads.
func (a LocalAddress) String() string {
	if a.Prefix.IsSingleIP() {
		return a.Prefix.Addr().String()
	}
	return a.Prefix.String()
}

// Len returns how many addresses it stands for, at most MaxLocalAddresses + 1.
func (a LocalAddress) Len() int {
	bits := a.Prefix.Addr().BitLen() - a.Prefix.Bits()
	if bits > 8 {
		return MaxLocalAddresses + 1
	}
	return 1 << bits
}

// Check returns why no director takes it, nil if there is no reason. What it returns wraps
// ErrInvalid.
func (a LocalAddress) Check() error {
	switch p, fault := a.Prefix, FaultOf(a.Prefix.Addr()); {
	case fault == LinkLocal:
		return fmt.Errorf("local address %s: %w: a link-local address does not say on which link", p.Addr(), ErrInvalid)
	case fault != NoFault, !p.IsValid(), p.Addr().IsLoopback():
		return fmt.Errorf("local address %s: %w: want a unicast address of the director's, or a prefix of them", p, ErrInvalid)
	case p.Masked() != p:
		return fmt.Errorf("local address %s: %w: bits beyond the prefix are set; did you mean %s?", p, ErrInvalid, p.Masked())
	case a.Len() > MaxLocalAddresses:
		return fmt.Errorf("local address %s: %w: there can be %d addresses in all", p, ErrInvalid, MaxLocalAddresses)
	case a.Ports.First == 0, a.Ports.First > a.Ports.Last:
		return fmt.Errorf("ports %s of local address %s: %w: want 1 to 65535, like %s", a.Ports, a, ErrInvalid, DefaultLocalPorts)
	}
	return nil
}

// CheckLocalAddresses returns the index of the first of a pool that no director takes, and
// why; -1 and nil if there is none. What it returns wraps ErrInvalid.
func CheckLocalAddresses(pool []LocalAddress) (int, error) {
	total := 0
	for i, a := range pool {
		if err := a.Check(); err != nil {
			return i, err
		}
		for _, b := range pool[:i] {
			if a.Prefix.Overlaps(b.Prefix) {
				return i, fmt.Errorf("local address %s: %w: %s has it already", a, ErrInvalid, b)
			}
		}
		if total += a.Len(); total > MaxLocalAddresses {
			return i, fmt.Errorf("local address %s: %w: there can be %d addresses in all", a, ErrInvalid, MaxLocalAddresses)
		}
	}
	return -1, nil
}

// HasFamily reports whether a pool has an address of IPv6, or of IPv4.
func HasFamily(pool []LocalAddress, ipv6 bool) bool {
	for _, a := range pool {
		if a.Prefix.Addr().Is6() == ipv6 {
			return true
		}
	}
	return false
}
