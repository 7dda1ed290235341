package lvs

import "net/netip"

// An AddressFault is why an address is none of one host that others can reach. What is written
// in commands, files and requests is judged by it, each in its own words.
type AddressFault uint8

// The faults, in the order in which they are looked for.
const (
	NoFault AddressFault = iota
	// NoAddress is the fault of the zero netip.Addr.
	NoAddress
	// HasZone is the fault of an IPv6 address that says on which link it is.
	HasZone
	// MappedIPv4 is the fault of an IPv4 address written as an IPv6 one, ::ffff:192.0.2.1,
	// which no two comparisons would take for the same.
	MappedIPv4
	// NotUnicast is the fault of the unspecified address, of groups and of the limited broadcast.
	NotUnicast
	// LinkLocal is the fault of a link-local IPv6 address, which does not say on which link.
	LinkLocal
)

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// FaultOf returns the first fault of an address.
func FaultOf(addr netip.Addr) AddressFault {
	switch {
	case !addr.IsValid():
		return NoAddress
	case addr.Zone() != "":
		return HasZone
	case addr.Is4In6():
		return MappedIPv4
	case addr.IsUnspecified(), addr.IsMulticast(), addr == limitedBroadcast:
		return NotUnicast
	case addr.Is6() && addr.IsLinkLocalUnicast():
		return LinkLocal
	}
	return NoFault
}

// IsPlain reports whether an address has the form that addresses are compared in, whatever it
// is of: there is one, without a zone, and IPv4 is written as IPv4.
func IsPlain(addr netip.Addr) bool {
	fault := FaultOf(addr)
	return fault == NoFault || fault > MappedIPv4
}
