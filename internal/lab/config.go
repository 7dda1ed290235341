package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
)

const (
	// DefaultDirectory holds one directory for each lab.
	DefaultDirectory = "/run/fairlead/lab"
	// DefaultName is the name of a lab that was given none.
	DefaultName = "lab"
	// MaxServers is how many real servers fit in the address plan.
	MaxServers = 80

	// HTTPPort is where real servers answer HTTP, on every address.
	HTTPPort = 80
	// EchoPort is where services answer UDP, with the real server's name, a space and what it
	// was sent. Where real servers do is said by [Method.ServerPort].
	EchoPort = 7
)

// The names of the hosts; real servers are rs1, rs2 and so on.
const (
	Switch   = "switch"
	Client   = "client"
	Director = "director"
	// Router is there in a routed lab only, and Bystander in one that was built
	// for a fault of a host that has no part in the service.
	Router    = "router"
	Bystander = "bystander"
)

// The refusals of a lab.
var (
	ErrRunning    = errors.New("is there already")
	ErrNotRunning = errors.New("is not there")
	ErrBusy       = errors.New("is in use")
	ErrNoHost     = errors.New("no such host")
)

// A Family is an IP version, 4 or 6.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// VIP returns the virtual address of every lab.
func (f Family) VIP() netip.Addr {
	if f == IPv6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: 0x01, 15: 0x00})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, 100})
}

// LocalAddress returns where clients come from for real servers with FullNAT.
func (f Family) LocalAddress() netip.Addr {
	if f == IPv6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: 0x02, 15: 0x00})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, 200})
}

// A Topology is where clients are.
type Topology string

// The topologies.
const (
	Flat   Topology = "flat"   // the client is on the segment of director and real servers
	Routed Topology = "routed" // it is on a segment of its own, behind a router
)

// A Config says which lab.
type Config struct {
	Name      string   // DefaultName if ""
	Directory string   // that holds all labs; DefaultDirectory if ""
	Binary    string   // fairlead, an absolute path
	Servers   int      // real servers, 1 to MaxServers
	Topology  Topology // Flat if ""
	Method    Method   // DirectRouting if ""
	// Bystander adds a host on the segment of the real servers that has no part in
	// the service.
	Bystander bool
}

// Check returns what is wrong with the number of servers, the topology or the method.
func (c Config) Check() error {
	switch {
	case c.Servers < 1 || c.Servers > MaxServers:
		return fmt.Errorf("a lab of %d real servers: 1 to %d fit", c.Servers, MaxServers)
	case c.Topology != "" && c.Topology != Flat && c.Topology != Routed:
		return fmt.Errorf("topology %q: %s or %s", c.Topology, Flat, Routed)
	case !c.Method.known():
		return fmt.Errorf("method %q: %s", c.Method, methodNames())
	}
	return nil
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// path returns the lab's own directory.
func (c Config) path() (string, error) {
	name, directory := c.Name, c.Directory
	if name == "" {
		name = DefaultName
	}
	if directory == "" {
		directory = DefaultDirectory
	}
	if !validName.MatchString(name) {
		return "", fmt.Errorf("lab %q: a name is 1 to 32 letters a-z, digits and hyphens, and begins with no hyphen", name)
	}
	if !filepath.IsAbs(directory) {
		return "", fmt.Errorf("directory of labs %q: not an absolute path", directory)
	}
	return filepath.Join(directory, name), nil
}
