package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/realserver"
)

// A Method is how the director's packets reach the real servers.
type Method string

// The methods.
const (
	DirectRouting Method = "dr"
	TunnelIPIP    Method = "tun-ipip"
	TunnelGUE     Method = "tun-gue"
	TunnelGRE     Method = "tun-gre"
	Masquerading  Method = "nat"
	FullNAT       Method = "fullnat"
)

// Where real servers answer HTTP and UDP of a director that translates: on other ports than
// the service's.
const (
	translatedHTTPPort = 8088
	translatedEchoPort = 8007
)

// Methods returns all of them, the default first.
func Methods() []Method {
	return []Method{DirectRouting, Masquerading, FullNAT, TunnelIPIP, TunnelGUE, TunnelGRE}
}

func (m Method) known() bool { return m == "" || slices.Contains(Methods(), m) }

func methodNames() string {
	var names []string
	for _, m := range Methods() {
		names = append(names, string(m))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// Options returns what says so to ipvsadm.
func (m Method) Options() []string {
	kind, isTunnel := m.tunnel()
	switch {
	case m == Masquerading:
		return []string{"-m"}
	case m == FullNAT:
		return []string{"--fullnat"}
	case !isTunnel:
		return []string{"-g"}
	case m == TunnelGUE:
		return []string{"-i", "--tun-type", kind, "--tun-port", fmt.Sprint(realserver.DefaultTunnelPort)}
	}
	return []string{"-i", "--tun-type", kind}
}

// translates reports whether real servers are reached by their own addresses and ports, and
// need no VIP.
func (m Method) translates() bool { return m == Masquerading || m == FullNAT }

// ServerPort returns where a real server answers what comes to the service's port.
func (m Method) ServerPort(port uint16) uint16 {
	switch {
	case !m.translates():
	case port == HTTPPort:
		return translatedHTTPPort
	case port == EchoPort:
		return translatedEchoPort
	}
	return port
}

// tunnel returns what ipvsadm and journeys call the encapsulation, false if there is
// none.
func (m Method) tunnel() (string, bool) { return strings.CutPrefix(string(m), "tun-") }

// request returns what the real servers are set up with.
func (m Method) request() (realserver.Request, error) {
	request := realserver.Request{Interface: hostInterface}
	for _, family := range []Family{IPv4, IPv6} {
		request.VIPs = append(request.VIPs, family.VIP())
	}
	kind, isTunnel := m.tunnel()
	if !isTunnel {
		return request, nil
	}
	var err error
	request.Tunnel, err = realserver.ParseTunnel(kind, realserver.DefaultTunnelPort)
	return request, err
}
