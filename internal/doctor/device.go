package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/ethtool"
)

// generic is the name of the XDP mode that runs after the kernel has made its own
// packet of a frame.
const (
	generic = "xdp-generic"
	tc      = "tc"
)

// examineDevices looks at the interfaces that the data plane is attached to.
func (e *examination) examineDevices(attached []api.Interface) error {
	for _, i := range attached {
		device, err := net.InterfaceByName(i.Name)
		if err != nil {
			return fmt.Errorf("find interface: %w", err)
		}
		if native, told := hasNativeXDP(device.Index); i.Mode == generic && native && told {
			e.foundGeneric(device)
		}
		on, err := ethtool.Features(device.Name)
		if err != nil {
			return err
		}
		e.findAggregation(device, i.Mode, on)
		e.findFilter(device)
	}
	return nil
}

// here returns the director as the host of its interface.
func (e *examination) here(device *net.Interface) Host {
	host := Host{Role: Director, MAC: device.HardwareAddr.String()}
	if s := e.segments[device.Index]; s != nil && len(e.ownAddresses(s)) > 0 {
		host.Address = e.ownAddresses(s)[0]
	}
	return host
}

func (e *examination) foundGeneric(device *net.Interface) {
	host := e.here(device)
	e.found(Finding{
		Check: GenericXDP, Level: Warning, Host: host,
		What: fmt.Sprintf("XDP runs on %s in generic mode, and its driver has the native one", device.Name),
		Why: "each packet costs several times as much: the kernel makes its own packet of it first. A driver refuses native mode " +
			"while the MTU is too large for one page, or LRO is on; forwarding pauses while the data plane is attached anew",
		Mend: []Remedy{{host, fmt.Sprintf("fairlead director unload && fairlead director --interface %s --mode xdp", strings.Join(e.attached, ","))}},
	})
}

// findAggregation looks for what joins packets before the data plane sees them: the
// network card always, the kernel if it comes first.
func (e *examination) findAggregation(device *net.Interface, mode string, on map[string]bool) {
	if mode == tc { // which knows aggregates for what they are
		return
	}
	var joining, options []string
	for _, feature := range []struct{ name, option string }{
		{"rx-lro", "lro"}, {"rx-gro-hw", "rx-gro-hw"}, {"rx-gro", "gro"},
	} {
		if on[feature.name] && (feature.name != "rx-gro" || mode == generic) {
			joining = append(joining, feature.name)
			options = append(options, feature.option+" off")
		}
	}
	if joining == nil {
		return
	}
	host := e.here(device)
	e.found(Finding{
		Check: Aggregation, Level: Warning, Host: host,
		What: fmt.Sprintf("%s joins packets before the data plane sees them: %s", device.Name, strings.Join(joining, ", ")),
		Why: fmt.Sprintf("what it makes of several packets is larger than the MTU of %d, which no real server takes: uploads are slow or hang",
			device.MTU),
		Mend: []Remedy{{host, fmt.Sprintf("ethtool -K %s %s", device.Name, strings.Join(options, " "))}},
	})
}

// strict is the rp_filter that takes only what the way back leads through.
const strict = 1

// findFilter looks whether the director's own kernel takes the ARP requests of hosts
// on the interface: not if its way to them is another one, and the filter is strict.
func (e *examination) findFilter(device *net.Interface) {
	s := e.segments[device.Index]
	if s == nil || max(filterOf("all"), filterOf(device.Name)) != strict {
		return
	}
	for _, prefix := range s.prefixes {
		if !prefix.Addr().Is4() || prefix.IsSingleIP() {
			continue
		}
		// The director is to take what comes from there, whoever sends it.
		other := prefix.Masked().Addr().Next()
		if other == prefix.Addr() {
			other = other.Next()
		}
		routes, err := netlink.RouteGet(other.AsSlice())
		if err != nil || len(routes) == 0 || routes[0].LinkIndex == device.Index {
			continue
		}
		way, err := net.InterfaceByIndex(routes[0].LinkIndex)
		if err != nil {
			continue
		}
		host := e.here(device)
		e.found(Finding{
			Check: RPFilter, Level: Error, Host: host,
			What: fmt.Sprintf("the director's reverse path filter drops what comes in on %s from %s: its way there is %s", device.Name, prefix.Masked(), way.Name),
			Why:  "the kernel answers no ARP request that it drops: clients there, or the router, do not learn where the VIP is",
			Mend: []Remedy{{host, fmt.Sprintf("sysctl -w net/ipv4/conf/%s/rp_filter=2", device.Name)}},
		})
		return
	}
}

func filterOf(device string) int {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", device, "rp_filter"))
	if err != nil {
		return 0
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return value
}

// findSources looks whether the director speaks to real servers in the name of a
// VIP, which they have themselves.
func (e *examination) findSources() {
	told := map[netip.Addr]bool{}
	for _, r := range e.servers {
		routes, err := netlink.RouteGet(r.address.AsSlice())
		if err != nil || len(routes) == 0 || r.segment == nil {
			continue
		}
		vip, _ := netip.AddrFromSlice(routes[0].Src)
		if vip = vip.Unmap(); !slices.Contains(e.vips, vip) || told[vip] {
			continue
		}
		told[vip] = true
		host := e.director(r.segment, r.address)
		e.found(Finding{
			Check: VIPSource, Level: Warning, Service: vip.String(), Host: host,
			What: fmt.Sprintf("the director speaks to real server %s in the name of %s", r.address, vip),
			Why: "the real server has that address itself, and throws away what comes from it: it does not answer the director's checks, " +
				"and with IPv4 not its ARP requests either",
			Mend: []Remedy{{host, r.segment.otherSource(r.address, vip, host.Address)}},
		})
	}
}

// otherSource returns the command that makes the kernel take another source address
// than the VIP for the real server: own, if the director has another.
func (s *segment) otherSource(server, vip, own netip.Addr) string {
	prefix, ok := s.onLink(server)
	switch {
	case !ok || !own.IsValid():
		return "ip address show; ip route get " + server.String()
	case vip.Is6():
		return fmt.Sprintf("ip address change %s/%d dev %s preferred_lft 0", vip, vip.BitLen(), s.device.Name)
	}
	return fmt.Sprintf("ip route replace %s dev %s src %s", prefix, s.device.Name, own)
}
