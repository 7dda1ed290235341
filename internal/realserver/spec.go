package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const loopback = "lo"

// A VIP is a virtual address that a real server accepts packets for.
type VIP struct {
	Address netip.Addr `json:"address"`
	// Interface is the one that the director's frames come in on.
	Interface string `json:"interface"`
	// Director: the host is a director of the VIP too, and while it is the active
	// one, has the VIP on another interface as well.
	Director bool `json:"director,omitempty"`
	// Tunnel is what its packets come in; Directors, with commas between them, are who
	// may send those, "" if anybody may.
	Tunnel    Tunnel `json:"tunnel,omitempty"`
	Directors string `json:"directors,omitempty"`
}

// host returns the VIP as lo has it: /32 or /128.
func (v VIP) host() netip.Prefix { return netip.PrefixFrom(v.Address, v.Address.BitLen()) }

// A Spec says what a real server is to be: which VIPs it has, each once.
type Spec []VIP

func (s Spec) index(address netip.Addr) int {
	return slices.IndexFunc(s, func(v VIP) bool { return v.Address == address })
}

// with returns s with the VIPs of more, whose interfaces prevail.
func (s Spec) with(more Spec) Spec {
	merged := slices.Clone(s)
	for _, v := range more {
		if i := merged.index(v.Address); i >= 0 {
			merged[i] = v
		} else {
			merged = append(merged, v)
		}
	}
	return merged
}

// without returns s without the VIPs of those addresses.
func (s Spec) without(addresses []netip.Addr) Spec {
	return slices.DeleteFunc(slices.Clone(s), func(v VIP) bool { return slices.Contains(addresses, v.Address) })
}

// interfaces returns each interface once, of all VIPs or of the IPv4 ones.
func (s Spec) interfaces(only4 bool) []string {
	var names []string
	for _, v := range s {
		if (v.Address.Is4() || !only4) && !slices.Contains(names, v.Interface) {
			names = append(names, v.Interface)
		}
	}
	return names
}

// uses reports whether a real server of this spec needs the subject.
func (s Spec) uses(t subject) bool {
	if t.Kind == kindTunnel {
		return s.hasTunnel(t.Name)
	}
	if t.Kind == kindAddress {
		return slices.ContainsFunc(s, func(v VIP) bool { return v.host().String() == t.Name })
	}
	names := s.interfaces(true)
	name := confInterface(t.Name)
	return len(names) > 0 && (name == "all" || name == loopback || slices.Contains(names, name))
}

// A Request names VIPs as a person does.
type Request struct {
	// VIPs are IPv4 or IPv6 addresses.
	VIPs []netip.Addr
	// Interface is the one that the director's frames come in on; "" is the one
	// that the host was set up with, or else that of the route to the VIP.
	Interface string
	// Director: the host is a director of these VIPs too. One that it was set up as
	// it stays, until it is undone.
	Director bool
	// Tunnel is what the director wraps the VIPs' packets in; "" is as it was set up,
	// or else none. Directors are whose packets are unwrapped; none are as it was set
	// up, or else anybody's.
	Tunnel    Tunnel
	Directors []netip.Addr
}

// check refuses what can be no VIP.
func (r Request) check() error {
	for _, vip := range r.VIPs {
		switch {
		case !lvs.IsPlain(vip):
			return fmt.Errorf("VIP %s: want a plain IPv4 or IPv6 address", vip)
		case lvs.FaultOf(vip) != lvs.NoFault || vip.IsLoopback() || vip.IsLinkLocalUnicast():
			return fmt.Errorf("VIP %s: not an address that clients can reach", vip)
		}
	}
	switch {
	case r.Interface == loopback:
		return errors.New("interface lo: want the one that the director's frames come in on; the VIP goes to lo by itself")
	case r.Interface == "all" || r.Interface == "default" || strings.ContainsAny(r.Interface, "/ \t\n") ||
		r.Interface == "." || r.Interface == "..":
		return fmt.Errorf("interface %q: not the name of an interface", r.Interface)
	}
	return nil
}

// A route is one of the main table.
type route struct {
	prefix netip.Prefix
	name   string // of the interface
	metric int
}

// resolve fills in the interfaces that the request leaves out: from known, else
// from the routes.
func (r Request) resolve(known Spec, routes []route) (Spec, error) {
	var s Spec
	for _, vip := range r.VIPs {
		name, director := r.Interface, r.Director
		tunnel, directors := r.Tunnel, joinAddresses(r.Directors)
		if i := known.index(vip); i >= 0 {
			director = director || known[i].Director
			if name == "" {
				name = known[i].Interface
			}
			if tunnel == "" {
				tunnel = known[i].Tunnel
			}
			if directors == "" {
				directors = known[i].Directors
			}
		}
		if name == "" {
			name = interfaceOf(vip, routes)
		}
		if name == "" {
			return nil, fmt.Errorf("VIP %s: no route tells which interface the director's frames come in on: name it with --interface", vip)
		}
		if tunnel == "" && directors != "" {
			return nil, fmt.Errorf("VIP %s: a director is named whose tunnels are unwrapped, but no tunnel: name it with --tunnel", vip)
		}
		s = s.with(Spec{{Address: vip, Interface: name, Director: director, Tunnel: tunnel, Directors: directors}})
	}
	return s, known.with(s).checkDirectors()
}

func joinAddresses(addresses []netip.Addr) string {
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ",")
}

// interfaceOf returns the interface of the longest prefix that holds the address,
// "" for none. Routes over lo are those of the VIPs themselves.
func interfaceOf(address netip.Addr, routes []route) string {
	best := route{metric: -1}
	for _, r := range routes {
		if r.name == loopback || !r.prefix.Contains(address) {
			continue
		}
		longer := r.prefix.Bits() - best.prefix.Bits()
		if best.name == "" || longer > 0 || longer == 0 && r.metric < best.metric {
			best = r
		}
	}
	return best.name
}
