package ipvsadm

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A resolver knows the names of hosts and services.
type resolver interface {
	// address returns the IPv4 address of a host.
	address(ctx context.Context, host string) (netip.Addr, bool)
	// host returns the name of an address.
	host(ctx context.Context, addr netip.Addr) (string, bool)
	// port returns the port of a service of /etc/services.
	port(service string, protocol lvs.Protocol) (uint16, bool)
	// service returns the name of a port in /etc/services.
	service(port uint16, protocol lvs.Protocol) (string, bool)
}

// How long names are waited for: one look-up, and all host names of a listing.
// A host whose name does not come in time is shown by its address.
const (
	lookupTimeout = 5 * time.Second
	lookupBudget  = 20 * time.Second
)

// systemNames resolves as the C library does: /etc/hosts, DNS, /etc/services.
// It serves one command line.
type systemNames struct {
	hosts   map[netip.Addr]string // "": has no name
	waited  time.Duration
	byName  map[serviceName]uint16
	byPort  map[servicePort]string
	haveSvc bool
}

type serviceName struct {
	name     string
	protocol lvs.Protocol
}

type servicePort struct {
	port     uint16
	protocol lvs.Protocol
}

func (n *systemNames) address(ctx context.Context, host string) (netip.Addr, bool) {
	if strings.Trim(host, "0123456789.") == "" {
		return netip.Addr{}, false // an address that went wrong; DNS has no such names
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil || len(addrs) == 0 {
		return netip.Addr{}, false
	}
	return addrs[0].Unmap(), true
}

func (n *systemNames) host(ctx context.Context, addr netip.Addr) (string, bool) {
	name, known := n.hosts[addr]
	if !known && n.waited < lookupBudget {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		start := time.Now()
		found, err := net.DefaultResolver.LookupAddr(ctx, addr.String())
		n.waited += time.Since(start)
		if err == nil && len(found) > 0 {
			name = strings.TrimSuffix(found[0], ".")
		}
		if n.hosts == nil {
			n.hosts = make(map[netip.Addr]string)
		}
		n.hosts[addr] = name
	}
	return name, name != ""
}

func (n *systemNames) port(service string, protocol lvs.Protocol) (uint16, bool) {
	n.readServices()
	port, ok := n.byName[serviceName{service, protocol}]
	return port, ok
}

func (n *systemNames) service(port uint16, protocol lvs.Protocol) (string, bool) {
	n.readServices()
	name, ok := n.byPort[servicePort{port, protocol}]
	return name, ok
}

// readServices reads /etc/services, once; a host without the file has no names.
func (n *systemNames) readServices() {
	if n.haveSvc {
		return
	}
	n.haveSvc = true
	n.byName = make(map[serviceName]uint16)
	n.byPort = make(map[servicePort]string)
	file, err := os.Open("/etc/services")
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		n.addService(lines.Text())
	}
}

// addService takes one line: "NAME PORT/PROTOCOL ALIAS... # comment". The first
// line of a name or a port holds.
func (n *systemNames) addService(line string) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return
	}
	number, protocolName, _ := strings.Cut(fields[1], "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return
	}
	protocol, ok := map[string]lvs.Protocol{"tcp": lvs.TCP, "udp": lvs.UDP, "sctp": lvs.SCTP}[protocolName]
	if !ok {
		return
	}
	byPort := servicePort{uint16(port), protocol}
	if _, ok := n.byPort[byPort]; !ok {
		n.byPort[byPort] = fields[0]
	}
	for i, name := range fields {
		if i == 1 {
			continue
		}
		if byName := (serviceName{name, protocol}); n.byName[byName] == 0 {
			n.byName[byName] = uint16(port)
		}
	}
}
