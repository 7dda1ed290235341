package ipvsadm

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// difference compares numbers as ipvsadm does, by the sign of their 32-bit
// difference: 192.0.2.1 comes before 10.0.0.1, that before 127.0.0.1, and that
// before 192.0.2.1. Such an order runs in circles, so the result hangs on how it
// is sorted too: see sortBy.
func difference(a, b uint32) int { return int(int32(a - b)) }

// compareServices orders services by mark, family, protocol, address, port.
func compareServices(a, b lvs.ServiceStatus) int {
	return cmp.Or(
		difference(a.Mark, b.Mark),
		cmp.Compare(a.Address.BitLen(), b.Address.BitLen()),
		cmp.Compare(a.Protocol, b.Protocol),
		compareAddresses(a.Address, b.Address),
		cmp.Compare(a.Port, b.Port),
	)
}

// compareServers orders real servers by address and port, whatever the family.
func compareServers(a, b lvs.RealServerStatus) int {
	return cmp.Or(compareAddresses(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
}

// compareAddresses compares addresses by 32-bit words; of an IPv4 address the
// one that it has, also with an IPv6 one.
func compareAddresses(a, b netip.Addr) int {
	for i := range a.BitLen() / 32 {
		if c := difference(addressWord(a, i), addressWord(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

// addressWord returns the i-th word of an address, 0 after its end.
func addressWord(addr netip.Addr, i int) uint32 {
	if i >= addr.BitLen()/32 {
		return 0
	}
	return binary.BigEndian.Uint32(addr.AsSlice()[4*i:])
}

// sortBy sorts by merging halves, as the C library's qsort does, so that an order
// that runs in circles ends the same.
func sortBy[T any](list []T, compare func(a, b T) int) {
	if len(list) < 2 {
		return
	}
	left := append([]T(nil), list[:len(list)/2]...)
	right := append([]T(nil), list[len(list)/2:]...)
	sortBy(left, compare)
	sortBy(right, compare)
	for i := range list {
		if len(right) == 0 || (len(left) > 0 && compare(left[0], right[0]) <= 0) {
			list[i], left = left[0], left[1:]
		} else {
			list[i], right = right[0], right[1:]
		}
	}
}
