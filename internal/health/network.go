package health

import (
	"context"
	"net"
	"net/netip"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Target is whom a question is put to, and by which way. It is comparable.
type Target struct {
	// Path says by which way. For PathVIP, packets to Address go to Server by its
	// forwarding method, whoever else has the address.
	Path lvs.CheckPath
	// Address is the destination of the packets: the virtual one for PathVIP.
	Address netip.AddrPort
	// Server is the real server. Of Weight and thresholds nothing is said.
	Server lvs.RealServer
}

// A Network opens the connections of checks. It is safe for concurrent use.
type Network interface {
	// Dial connects to a target by "tcp", "udp" or "icmp", in the time that ctx has.
	// What is read of an ICMP connection is the messages of the target alone, without
	// IP headers. Its error is an *UnreachableError if the way is known to be none.
	Dial(ctx context.Context, network string, target Target) (net.Conn, error)
}

// An UnreachableError says that no packet can be sent to a target.
type UnreachableError struct {
	Cause  Cause
	Detail string
}

// Error returns the detail.
func (e *UnreachableError) Error() string { return e.Detail }

// A Host is a Network that sends as any program of this host does. It knows no PathVIP.
type Host struct{}

// Dial implements [Network].
func (Host) Dial(ctx context.Context, network string, target Target) (net.Conn, error) {
	var dialer net.Dialer
	// A server that is asked so often need not keep what it would remember of each
	// connection: it is ended by a RST.
	address := target.Address.String()
	if network == "icmp" {
		network, address = "ip6:ipv6-icmp", target.Address.Addr().String()
		if target.Address.Addr().Is4() {
			network = "ip4:icmp"
		}
	}
	conn, err := dialer.DialContext(ctx, network, address)
	switch c := conn.(type) {
	case *net.TCPConn:
		err = c.SetLinger(0)
	case *net.IPConn:
		conn = messages{c}
	}
	return conn, err
}

// messages reads ICMP messages without the IP header before them.
type messages struct{ *net.IPConn }

// Read implements [net.Conn].
func (m messages) Read(data []byte) (int, error) {
	size, _, err := m.ReadFrom(data)
	return size, err
}
