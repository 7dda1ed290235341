package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
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
	// EchoPort is where real servers answer UDP, on the VIP: with their name, a
	// space and what they were sent.
	EchoPort = 7
)

// The names of the hosts; real servers are rs1, rs2 and so on.
const (
	Switch   = "switch"
	Client   = "client"
	Director = "director"
)

// hostInterface is the one interface that every host but the switch has.
const hostInterface = "eth0"

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

// A Config says which lab.
type Config struct {
	Name      string // DefaultName if ""
	Directory string // that holds all labs; DefaultDirectory if ""
	Binary    string // fairlead, an absolute path
	Servers   int    // real servers, 1 to MaxServers
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

// A Host is one network namespace with one interface on the switch.
type Host struct {
	Name string       `json:"name"`
	MAC  lvs.MAC      `json:"-"`
	IPv4 netip.Prefix `json:"ipv4"`
	IPv6 netip.Prefix `json:"ipv6"`
}

// Address returns the host's own address.
func (h Host) Address(f Family) netip.Addr {
	if f == IPv6 {
		return h.IPv6.Addr()
	}
	return h.IPv4.Addr()
}

// newHost returns the host whose IPv4 address ends in the given number below
// 100. MAC and IPv6 address end in the same digits, for people to see.
func newHost(name string, number byte) Host {
	digits := number/10<<4 | number%10
	return Host{
		Name: name,
		MAC:  lvs.MAC{0x02, 0, 0, 0, 0, digits},
		IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, number}), 24),
		IPv6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: digits}), 64),
	}
}

// hostsOf returns client, director and real servers, all on one segment.
func hostsOf(servers int) []Host {
	hosts := []Host{newHost(Client, 1), newHost(Director, 10)}
	for i := range servers {
		hosts = append(hosts, newHost(fmt.Sprintf("rs%d", i+1), byte(11+i)))
	}
	return hosts
}
