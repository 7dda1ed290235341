package lvs

import "net/netip"

// A Peer is another director that forwards to this host, a real server of its own:
// its frames for a virtual service are for this host, and not to be scheduled a
// second time. They are known by their source MAC address.
type Peer struct {
	Address netip.Addr
	// Configured: it was added by name; else it is a peer because it is a real
	// server beside one that is this host.
	Configured bool
	// MAC is the zero value while that is not known: Problem says why.
	MAC       MAC
	Interface string
	Problem   string
}
