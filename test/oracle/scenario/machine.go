package scenario

import (
	"net/netip"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Machine is a director that scenarios are played on, in the network that
// ../README.md draws. Its clock moves in Sleep only.
type Machine interface {
	// Ipvsadm runs an ipvsadm command line. That it was refused is no error.
	Ipvsadm(args []string, stdin string) (CommandResult, error)
	// Sysctl sets a value under net.ipv4.vs.
	Sysctl(name, value string) error
	// SetMark gives all packets from clients a firewall mark, from here on.
	SetMark(mark uint32) error
	// SetMTU changes the MTU of an interface, cl or rs.
	SetMTU(on string, mtu int) error
	Sleep(t time.Duration) error
	// Send hands a frame to the director on an interface, cl or rs.
	Send(frame []byte, on string) (Sent, error)
	// Services returns the services with their real servers as the schedulers
	// walk them.
	Services() ([]Service, error)
	Connections() ([]Connection, error)
}

// A Balancer is a machine that keepalived configures.
type Balancer interface {
	// Keepalived runs what a keepalived.conf describes, and returns when its virtual
	// servers are there.
	Keepalived(path string) error
	// KeepalivedOf does so with the text of one.
	KeepalivedOf(text string) error
}

// A CommandResult is what a command printed, and its exit status.
type CommandResult struct {
	Stdout, Stderr string
	Status         int
}

// Sent is what became of a frame.
type Sent struct {
	// Frames came out of the director.
	Frames []Output
	// Passed is what the machine's own stack would have got, for one that has
	// none; nil if it got nothing.
	Passed []byte
}

// An Output is a frame that left the director.
type Output struct {
	On    string // the interface: cl or rs
	Frame []byte
}

// A Service is what a read-out tells of a virtual service.
type Service struct {
	Name    string // "TCP 192.0.2.10:80" or "FWM 7"
	Servers []Server
}

// A Server is what a read-out tells of a real server.
type Server struct {
	Address                  netip.Addr
	Weight, Active, Inactive uint32
}

// A Connection is one entry of the connection table.
type Connection struct {
	Protocol                string
	Client, Virtual, Server netip.AddrPort
	State                   string
	Expires                 time.Duration
	Engine                  string // name and data of a persistence engine, with a blank between
}

// The addresses of the network.
var (
	ClientMAC = lvs.MAC{2, 0, 0, 0, 0, 0xfe} // the clients' gateway
	cl0MAC    = lvs.MAC{2, 0, 0, 0, 0, 0x01} // the director's interface to it
	rs0MAC    = lvs.MAC{2, 0, 0, 0, 1, 0x01} // and to the real servers
	serverMAC = lvs.MAC{2, 0, 0, 0, 1, 0xfe} // who else is there
)

// NearMAC returns the MAC address of the director's interface cl or rs, FarMAC that
// of whom frames on it come from.
func NearMAC(on string) lvs.MAC {
	if on == "rs" {
		return rs0MAC
	}
	return cl0MAC
}

// Near returns the address that the director's packets to a real server come from.
func Near(server netip.Addr) netip.Addr {
	if server.Is4() {
		return netip.AddrFrom4([4]byte{198, 51, 100, 1})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: 1, 15: 1})
}

// FarMAC returns the MAC address that frames on cl or rs come from.
func FarMAC(on string) lvs.MAC {
	if on == "rs" {
		return serverMAC
	}
	return ClientMAC
}

// Real servers are 198.51.100.11 to .16 and 2001:db8:1::11 to ::16.
const (
	FirstServer = 11
	ServerCount = 6
)

// ServerMAC returns the MAC address of the real server whose addresses end in n.
func ServerMAC(n int) lvs.MAC { return lvs.MAC{2, 0, 0, 0, 1, byte(n)} }
