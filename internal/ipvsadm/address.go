package ipvsadm

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strings"
)

// isSpace is C's isspace in the C locale.
func isSpace(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// leadingNumber reads a decimal number as C's strtol does: white space and a
// sign may lead. It returns what follows the number, and false without digits;
// a number that is too large is the nearest that fits.
func leadingNumber(s string) (n int64, rest string, ok bool) {
	i := 0
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	negative := false
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		negative = s[i] == '-'
		i++
	}
	start := i
	for ; i < len(s) && isDigit(s[i]); i++ {
		digit := int64(s[i] - '0')
		if negative {
			digit = -digit
		}
		switch {
		case n > (math.MaxInt64-9)/10:
			n = math.MaxInt64
		case n < (math.MinInt64+9)/10:
			n = math.MinInt64
		default:
			n = n*10 + digit
		}
	}
	return n, s[i:], i > start
}

// parseNumber reads a decimal number of lowest..highest that is all of s.
func parseNumber(s string, lowest, highest int64) (int64, bool) {
	n, rest, ok := leadingNumber(s)
	return n, ok && rest == "" && n >= lowest && n <= highest
}

// parseIPv4 reads an IPv4 address as C's inet_aton does: one to four numbers,
// decimal, octal or hexadecimal, of which the last fills all bytes that are
// left; what follows white space is not looked at.
func parseIPv4(s string) (netip.Addr, bool) {
	if i := strings.IndexFunc(s, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) }); i >= 0 {
		s = s[:i]
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint32
	for i, part := range parts {
		n, ok := parseIPv4Part(part)
		if !ok {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 0xff {
				return netip.Addr{}, false
			}
			value |= uint32(n) << (24 - 8*i)
			continue
		}
		if n > math.MaxUint32>>(8*i) {
			return netip.Addr{}, false
		}
		value |= uint32(n)
	}
	return addrFromUint32(value), true
}

func parseIPv4Part(s string) (uint64, bool) {
	base := uint64(10)
	switch {
	case len(s) > 1 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X'):
		base, s = 16, s[2:]
	case len(s) > 1 && s[0] == '0':
		base, s = 8, s[1:]
	}
	if s == "" {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		digit := uint64(base)
		switch c := s[i]; {
		case isDigit(c):
			digit = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			digit = uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			digit = uint64(c-'A') + 10
		}
		if digit >= base {
			return 0, false
		}
		if n = n*base + digit; n > math.MaxUint32 {
			return 0, false
		}
	}
	return n, true
}

// parseIPv6 reads an IPv6 address as C's inet_pton does: no zone.
func parseIPv6(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	return addr, err == nil && addr.Is6() && addr.Zone() == ""
}

// appendAddress writes an address as C's inet_ntop does.
func appendAddress(b []byte, addr netip.Addr) []byte {
	if addr.Is6() {
		if raw := addr.As16(); [12]byte(raw[:12]) == [12]byte{} && (raw[12] != 0 || raw[13] != 0) {
			return netip.AddrFrom4([4]byte(raw[12:])).AppendTo(append(b, "::"...))
		}
	}
	return addr.AppendTo(b)
}

func addrFromUint32(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}

func addrToUint32(addr netip.Addr) uint32 {
	raw := addr.As4()
	return binary.BigEndian.Uint32(raw[:])
}
