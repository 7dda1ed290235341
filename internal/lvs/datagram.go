package lvs

import (
	"fmt"
	"net/netip"
)

// A Datagram names an IP datagram that comes in fragments (RFC 791, RFC 8200 4.5).
// It is comparable.
type Datagram struct {
	Source, Destination netip.Addr
	// Identification is the number that its sender gave it.
	Identification uint32
	// Protocol names a datagram of IPv4 too; of IPv6 it is 0.
	Protocol Protocol
}

// String is for people.
func (d Datagram) String() string {
	return fmt.Sprintf("datagram %#x from %s to %s", d.Identification, d.Source, d.Destination)
}
