package doctor

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"
)

// namesWithin bounds the time that all look-ups of names take together: a director
// often has no name server, and a finding is worth nothing late.
const namesWithin = 500 * time.Millisecond

// A directory knows the names of hosts. It is empty until a finding needs one.
type directory struct {
	left  time.Duration
	names map[netip.Addr]string
}

func newDirectory() *directory { return &directory{namesWithin, map[netip.Addr]string{}} }

// name returns the host's name by /etc/hosts or, as long as there is time, by the
// name server; "" if neither knows it.
func (d *directory) name(ctx context.Context, address netip.Addr) string {
	if name, known := d.names[address]; known || !address.IsValid() {
		return name
	}
	ctx, cancel := context.WithTimeout(ctx, d.left)
	defer cancel()
	began := time.Now()
	resolver := net.Resolver{PreferGo: true}
	names, err := resolver.LookupAddr(ctx, address.String())
	d.left -= time.Since(began)
	name := ""
	if err == nil && len(names) > 0 {
		name = strings.TrimSuffix(names[0], ".")
	}
	d.names[address] = name
	return name
}
