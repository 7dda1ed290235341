package realserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Point is one thing that must be so on a real server, and how it is.
type Point struct {
	// Name is the sysctl's, or the address and where it belongs.
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Found string `json:"found"`
	Want  string `json:"want"`
	// Why says what goes wrong, and Mend is the shell command that mends it; both
	// are "" if the point is OK.
	Why  string `json:"why,omitempty"`
	Mend string `json:"mend,omitempty"`

	// seen is what must be remembered to undo; without a kind if nothing.
	seen setting
	// changes mend the point; none if only a person may decide.
	changes []change
}

// A sysctlRule is one of the settings that make a real server.
type sysctlRule struct {
	key     string
	accept  []string // values that do, the one to set first
	comment string
	why     string
}

var arpRules = []sysctlRule{{
	key:     "arp_ignore",
	accept:  []string{"1", "2"},
	comment: "answer ARP only for addresses of the interface that was asked",
	why:     "the host answers ARP for the VIP, and takes the packets that are the director's",
}, {
	key:     "arp_announce",
	accept:  []string{"2"},
	comment: "name an address of the interface, not the VIP, as the sender of ARP requests",
	why:     "the host names the VIP as its own in ARP requests, and whoever hears them sends the VIP's packets here",
}}

// loose is the rp_filter that takes what any route leads back to.
const loose = "2"

// sysctlsOf returns the sysctls that a spec depends on.
func sysctlsOf(spec Spec) []string {
	names := map[string]bool{}
	for _, s := range scopes(spec.interfaces(true)) {
		for _, rule := range arpRules {
			names[conf("ipv4", s, rule.key)] = true
		}
		names[conf("ipv4", s, "rp_filter")] = true
	}
	for _, s := range append(spec.interfaces(false), loopback) {
		names[conf("ipv6", s, "disable_ipv6")] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// scopes returns what arp_ignore and arp_announce are set on: none without
// interfaces. The greater of an interface's value and that of all counts.
func scopes(interfaces []string) []string {
	if len(interfaces) == 0 {
		return nil
	}
	return slices.Concat([]string{"all"}, interfaces, []string{loopback})
}

// examine holds a host against a spec. The points are in the order in which they
// are to be mended.
func examine(spec Spec, s snapshot) []Point {
	var points []Point
	for _, name := range append(spec.interfaces(false), loopback) {
		points = append(points, examineLink(name, s)...)
	}
	for _, scope := range scopes(spec.interfaces(true)) {
		for _, rule := range arpRules {
			points = append(points, examineSysctl(conf("ipv4", scope, rule.key), rule, s)...)
		}
	}
	for _, name := range spec.interfaces(true) {
		points = append(points, examineFilter(name, s)...)
	}
	for _, name := range spec.interfaces(false) {
		points = append(points, examineTunnel(name, spec, s)...)
	}
	for _, v := range spec {
		points = append(points, examineVIP(v, s)...)
	}
	return points
}

func examineLink(name string, s snapshot) []Point {
	switch up, there := s.links[name]; {
	case !there:
		return []Point{{Name: name, Found: "no such interface", Want: "an interface",
			Why:  "the director's frames come in on no interface of that name",
			Mend: "ip link show"}}
	case !up && name == loopback:
		return []Point{{Name: name, Found: "down", Want: "up",
			Why:  "an address on lo is of no use while lo is down",
			Mend: "ip link set lo up"}}
	}
	return nil
}

// examineSysctl passes over a sysctl that went away with its interface: the
// interface has a point of its own.
func examineSysctl(name string, rule sysctlRule, s snapshot) []Point {
	value, there := s.sysctls[name]
	if !there {
		return nil
	}
	c := change{subject: sysctl(name), from: value, to: rule.accept[0], why: rule.comment}
	p := Point{Name: c.subject.String(), Found: value, Want: rule.accept[0], OK: slices.Contains(rule.accept, value)}
	p.seen = setting{c.subject, value}
	if p.OK {
		p.Want = value
		return []Point{p}
	}
	p.Why, p.Mend, p.changes = rule.why, c.command(), []change{c}
	return []Point{p}
}

// examineFilter looks whether the reverse path filter would drop clients: when it
// is strict, and the default route leaves by another interface. The greater of the
// interface's value and that of all counts, so that 2 on the interface prevails.
func examineFilter(name string, s snapshot) []Point {
	own, there := s.sysctls[conf("ipv4", name, "rp_filter")]
	if !there || len(s.defaults) == 0 || slices.Contains(s.defaults, name) {
		return nil
	}
	effective := max(own, s.sysctls[conf("ipv4", "all", "rp_filter")])
	c := change{subject: sysctl(conf("ipv4", name, "rp_filter")), from: own, to: loose,
		why: "take packets of clients that the route back leaves by another interface"}
	p := Point{Name: c.subject.String(), Found: own, Want: own, OK: effective != "1"}
	if p.OK {
		return []Point{p}
	}
	p.Want, p.seen = c.to, setting{c.subject, own}
	p.Why = fmt.Sprintf("the filter is strict, packets of clients come in on %s, and the route back to them leaves by %s: they are dropped",
		name, strings.Join(s.defaults, ", "))
	p.Mend, p.changes = c.command(), []change{c}
	return []Point{p}
}

func examineVIP(v VIP, s snapshot) []Point {
	points := slices.Concat(examineFamily(v, s), examineStrays(v, s))
	c := change{subject: v.subject(), from: absent, to: present, why: "accept packets for the VIP"}
	p := Point{Name: c.subject.String(), Want: "present, delivered to the host", Found: absent,
		seen: setting{c.subject, present}}
	switch {
	case !slices.Contains(s.addresses, address{v.host(), loopback}):
		p.Why = "the host does not accept packets for the VIP"
		p.changes, p.seen.Value = []change{c}, absent
	case s.links[loopback] && s.delivery[v.Address] == noRoute:
		p.Found = "present, without its local route"
		p.Why = "the host does not accept packets for the VIP: its local route was removed"
		p.changes = []change{{subject: c.subject, from: present, to: absent, why: "take the VIP away, to get its local route back"}, c}
	case s.links[loopback] && s.delivery[v.Address] == shadowed:
		p.Found = "present, not delivered to the host"
		p.Why = "the host does not accept packets for the VIP: a rule or a route comes before its local route"
		p.Mend = fmt.Sprintf("ip rule show && ip route get %s", v.Address)
		return append(points, p)
	default:
		p.OK, p.Found = true, p.Want
		return append(points, p)
	}
	var commands []string
	for _, c := range p.changes {
		commands = append(commands, c.command())
	}
	p.Mend = strings.Join(commands, " && ")
	return append(points, p)
}

// examineFamily looks for IPv6 that is switched off.
func examineFamily(v VIP, s snapshot) []Point {
	if v.Address.Is4() {
		return nil
	}
	var points []Point
	for _, name := range []string{v.Interface, loopback} {
		setting := conf("ipv6", name, "disable_ipv6")
		value, there := s.sysctls[setting]
		if _, link := s.links[name]; there && value == "0" || !there && !link {
			continue
		}
		p := Point{Name: dotted(setting), Found: value, Want: "0", Why: "IPv6 is switched off, and the VIP is of IPv6",
			Mend: "sysctl -w " + dotted(setting) + "=0"}
		if !there {
			p.Found, p.Why, p.Mend = absent, "the kernel has no IPv6, and the VIP is of IPv6", "cat /proc/cmdline"
		}
		points = append(points, p)
	}
	return points
}

// examineStrays looks for the VIP where it does not belong.
func examineStrays(v VIP, s snapshot) []Point {
	var points []Point
	for _, a := range s.addresses {
		if a.prefix.Addr() != v.Address || a == (address{v.host(), loopback}) || v.Director && a.name != loopback {
			continue
		}
		p := Point{Name: fmt.Sprintf("%s on %s", a.prefix, a.name), Found: present, Want: absent,
			Mend: fmt.Sprintf("ip address del %s dev %s", a.prefix, a.name)}
		p.Why = fmt.Sprintf("the host tells its neighbours that the VIP is here, which only the director may: "+
			"on a real server the VIP belongs on lo, as %s, unless it is a director too (--director)", v.host())
		if a.name == loopback {
			p.Why = fmt.Sprintf("the host takes all of %s for its own: the VIP belongs on lo as %s", a.prefix.Masked(), v.host())
		}
		points = append(points, p)
	}
	for _, a := range s.proxies {
		if a.prefix.Addr() == v.Address {
			points = append(points, Point{
				Name: fmt.Sprintf("proxy entry for %s on %s", v.Address, a.name), Found: present, Want: absent,
				Why:  "the host answers neighbour solicitations for the VIP as soon as it forwards with proxy_ndp",
				Mend: fmt.Sprintf("ip neighbour del proxy %s dev %s", v.Address, a.name),
			})
		}
	}
	return points
}

// changesOf returns what mends the points.
func changesOf(points []Point) []change {
	var changes []change
	for _, p := range points {
		changes = append(changes, p.changes...)
	}
	return changes
}

// obstaclesOf returns the points that only a person may mend.
func obstaclesOf(points []Point) []Point {
	return slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return p.OK || len(p.changes) > 0 })
}

// exposedOf returns the IPv4 VIPs that are on lo while ARP tells where they are.
func exposedOf(spec Spec, s snapshot) Spec {
	var exposed Spec
	for _, v := range spec {
		if v.Address.Is4() && slices.Contains(s.addresses, address{v.host(), loopback}) && tells(v.Interface, s) {
			exposed = append(exposed, v)
		}
	}
	return exposed
}

func tells(name string, s snapshot) bool {
	return slices.ContainsFunc(arpRules, func(rule sysctlRule) bool {
		effective := max(s.sysctls[conf("ipv4", "all", rule.key)], s.sysctls[conf("ipv4", name, rule.key)])
		return effective < rule.accept[0]
	})
}
