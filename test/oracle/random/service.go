package random

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A service is one that a scenario has.
type service struct {
	name     string // as ipvsadm takes it: "-t 192.0.2.10:80"
	protocol string // "" for a mark
	number   int    // the VIP's last
	vip      string // without port
	port     int
	mark     uint32
	ipv6     bool
	options  string   // the scheduler's and those of persistence
	servers  []string // as ipvsadm takes them
}

func (s *service) command(verb string) string {
	if verb == "-A" || verb == "-E" {
		return verb + " " + s.name + " " + s.options
	}
	return verb + " " + s.name
}

// newService makes up a service that is not there yet, or returns nil.
func (g *generator) newService() *service {
	svc := &service{ipv6: g.chance(3)}
	svc.number = pick(g, 10, 11)
	svc.vip = fmt.Sprintf("192.0.2.%d", svc.number)
	if svc.ipv6 {
		svc.vip = fmt.Sprintf("[2001:db8:2::%d]", svc.number)
	}
	svc.protocol, svc.port = pick(g, "tcp", "tcp", "udp"), pick(g, 80, 443, 53)
	if g.features.SCTP && g.chance(6) {
		svc.protocol = "sctp"
	}
	if g.features.Marks && g.chance(6) {
		svc.protocol, svc.port, svc.mark = "", 0, pick[uint32](g, 1, 7)
		svc.name = fmt.Sprint("-f ", svc.mark)
		if svc.ipv6 {
			svc.name += " -6"
		}
	}
	persistent := g.features.Persistence && g.chance(3)
	if persistent && svc.mark == 0 && g.chance(3) {
		svc.port = 0
	}
	if svc.mark == 0 {
		option := map[string]string{"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}[svc.protocol]
		svc.name = fmt.Sprintf("%s %s:%d", option, svc.vip, svc.port)
	}
	if slices.ContainsFunc(g.services, func(s *service) bool { return s.name == svc.name }) {
		return nil
	}
	g.optionsOf(svc, persistent)
	g.services = append(g.services, svc)
	return svc
}

// optionsOf makes up the options of a service.
func (g *generator) optionsOf(svc *service, persistent bool) {
	svc.options = g.schedulerOptions()
	if persistent {
		svc.options += fmt.Sprint(" -p ", pick(g, 25, 100, 360, 1200))
		switch {
		case svc.ipv6 && g.chance(3):
			svc.options += " -M " + pick(g, "48", "64", "127")
		case !svc.ipv6 && g.chance(3):
			svc.options += " -M " + pick(g, "255.255.255.0", "255.255.255.252")
		}
		if g.features.SIP && (svc.protocol == "udp" || svc.mark != 0) && g.chance(2) {
			svc.options += " --pe sip"
		}
	}
	if g.features.OnePacket && svc.protocol == "udp" && g.chance(4) {
		svc.options += " -o"
	}
}

// newServer returns the command that adds a real server to a service: one that
// may be there.
func (g *generator) newServer(svc *service) string {
	number, port := scenario.FirstServer+g.random.IntN(scenario.ServerCount), svc.port
	otherFamily := g.features.Tunnels && g.chance(8)
	if other := masquerading[svc.number] != number && slices.Contains([]int{masquerading[10], masquerading[11]}, number); other {
		number = scenario.FirstServer
	}
	if number == masquerading[svc.number] {
		otherFamily = false
		if svc.port != 0 && g.features.Masquerading && g.chance(2) {
			port += translated
		}
	}
	server := fmt.Sprintf("198.51.100.%d:%d", number, port)
	if svc.ipv6 != otherFamily {
		server = fmt.Sprintf("[2001:db8:1::%d]:%d", number, port)
	}
	if !slices.Contains(svc.servers, server) {
		svc.servers = append(svc.servers, server)
	}
	return g.serverCommand("-a", svc, server)
}

// masquerading tells the real server that is masqueraded for a VIP, by the last numbers of their
// addresses. It serves no other VIP: a client's two connections from one port, to two VIPs,
// would be one to it, and whose reply is whose nobody could tell.
var masquerading = map[int]int{10: 13, 11: 16}

// translated is added to a service's port for one of a masqueraded server.
const translated = 9000

// isMasqueraded reports whether a server of the service is.
func (g *generator) isMasqueraded(svc *service, server string) bool {
	address, err := netip.ParseAddrPort(server)
	if err != nil || !g.features.Masquerading {
		return false
	}
	number, err := scenario.ServerNumber(address.Addr())
	return err == nil && number == masquerading[svc.number]
}

// tunnels are the ways of tunnelling.
var tunnels = []string{
	"-i", "-i --tun-type ipip", "-i --tun-type gre --tun-nocsum", "-i --tun-type gre --tun-csum",
	"-i --tun-type gue --tun-port 6080 --tun-nocsum", "-i --tun-type gue --tun-port 6081 --tun-csum",
	"-i --tun-type gue --tun-port 6080 --tun-remcsum",
}

// isTunnelled picks half of the servers. A server does not change between tunnelling
// and direct routing: connections of the former way then find a route in the kernel's
// cache that is for the other, and get lost (FLOWI_FLAG_KNOWN_NH in ip_vs_xmit.c).
func isTunnelled(server string) bool {
	address, err := netip.ParseAddrPort(server)
	return err == nil && address.Addr().AsSlice()[address.Addr().BitLen()/8-1]%2 == 0
}

// serverCommand returns the command that adds or edits a real server.
func (g *generator) serverCommand(verb string, svc *service, server string) string {
	method := "-g"
	if g.isMasqueraded(svc, server) {
		method = "-m"
	} else if otherFamily := strings.HasPrefix(server, "[") != svc.ipv6; otherFamily || g.features.Tunnels && isTunnelled(server) {
		method = pick(g, tunnels...)
	}
	line := fmt.Sprintf("%s %s -r %s %s -w %d", verb, svc.name, server, method, pick(g, 0, 1, 1, 1, 2, 3, 5, 100))
	if g.chance(4) {
		upper := 1 + g.random.IntN(12)
		line += fmt.Sprint(" -x ", upper)
		if g.chance(2) {
			line += fmt.Sprint(" -y ", g.random.IntN(upper+1))
		}
	}
	return line
}

// target returns where packets to a service go. Now and then that is another port.
func (s *service) target(g *generator) (protocol, vip string) {
	protocol, port := s.protocol, s.port
	if s.mark != 0 {
		protocol = pick(g, "tcp", "udp")
	}
	if port == 0 || g.chance(10) {
		port = pick(g, 80, 443, 8080)
	}
	return protocol, fmt.Sprintf("%s:%d", s.vip, port)
}

// edit carries out one command, of which a few are refused.
func (g *generator) edit() {
	if len(g.services) == 0 || g.chance(12) {
		if svc := g.newService(); svc != nil && !g.command(svc.command("-A")) {
			g.services = g.services[:len(g.services)-1]
		}
		return
	}
	svc := pick(g, g.services...)
	switch g.random.IntN(14) {
	case 0, 1, 2, 3:
		was := slices.Clone(svc.servers)
		if !g.command(g.newServer(svc)) {
			svc.servers = was
		}
	case 4, 5, 6, 7:
		if len(svc.servers) > 0 {
			g.command(g.serverCommand("-e", svc, pick(g, svc.servers...)))
		}
	case 8, 9:
		g.removeServer(svc)
	case 10, 11:
		g.editService(svc)
	case 12:
		g.command(pick(g, g.timeouts(), g.timeouts(), svc.command("-A"), svc.command("-D")+"x"))
	case 13:
		g.removeOrZero(svc)
	}
}

func (g *generator) removeServer(svc *service) {
	if len(svc.servers) == 0 {
		return
	}
	server := pick(g, svc.servers...)
	if g.command("-d "+svc.name+" -r "+server) && !g.chance(8) {
		svc.servers = slices.DeleteFunc(svc.servers, func(s string) bool { return s == server })
	}
}

func (g *generator) editService(svc *service) {
	was := svc.options
	g.optionsOf(svc, strings.Contains(was, " -p ") && (svc.port == 0 || !g.chance(4)))
	if !g.command(svc.command("-E")) {
		svc.options = was
	}
}

// removeOrZero removes a service, or zeroes counters.
func (g *generator) removeOrZero(svc *service) {
	if !g.chance(4) {
		g.sleep(estimate)
		g.command(pick(g, "-Z", svc.command("-Z")))
		return
	}
	if g.command(svc.command("-D")) {
		g.services = slices.DeleteFunc(g.services, func(s *service) bool { return s == svc })
	}
}
