package lab

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/doctor"
)

// faulty is the real server that faults of real servers are made on.
const faulty = "rs1"

// A Fault is a mistake that people make with LVS.
type Fault struct {
	Name  string
	About string // what is wrong, in a sentence without a full stop
	// Method is the one that it is a fault of; "" for direct routing.
	Method Method

	// notIPv6 says why there is no such fault with IPv6; "" if there is.
	notIPv6 string
	// bystander says that the fault is one of a host without a part in the service.
	bystander bool
	// servers is how many real servers it takes.
	servers int
	// uploads says that it harms large requests; small ones are told apart.
	uploads bool
	// check is what the doctor is to find, and host whose fault it is: "" for the
	// host that brings the client's packets to the director, see edge.
	check, host string
	// inject makes the fault on a network that was right.
	inject func(ctx context.Context, l *Lab, family Family) error
	// before prepares each request: it makes hosts forget what they have learnt,
	// as if a client or a real server were new.
	before func(l *Lab, family Family) error
}

// Faults returns all that a lab can be built with.
func Faults() []Fault {
	return []Fault{{
		Name: "arp-ignore", About: faulty + " answers ARP requests for the VIP, as arp_ignore is 0",
		notIPv6: "Linux answers neighbour solicitations only for addresses of the interface that was asked, and the VIP is on lo",
		check:   doctor.ARPIgnore, host: faulty,
		inject: func(ctx context.Context, l *Lab, _ Family) error { return l.setARP(ctx, "arp_ignore") },
		before: forgetVIP,
	}, {
		Name: "arp-announce", About: faulty + " names the VIP as the sender of its ARP requests, as arp_announce is 0",
		notIPv6: "Linux names only addresses of the outgoing interface as the source of a neighbour solicitation, and the VIP is on lo",
		check:   doctor.ARPAnnounce, host: faulty,
		inject: func(ctx context.Context, l *Lab, _ Family) error { return l.setARP(ctx, "arp_announce") },
		before: func(l *Lab, family Family) error { return l.forget(faulty, edge(l.hosts).Address(family)) },
	}, {
		Name: "no-vip", About: faulty + " has the VIP on no interface",
		check: doctor.NoVIP, host: faulty,
		inject: func(ctx context.Context, l *Lab, family Family) error {
			return l.onHost(ctx, faulty, fmt.Sprintf("ip address del %s dev lo", hostPrefix(family.VIP())))
		},
	}, {
		Name: "vip-before-sysctl", About: faulty + " got the VIP before its ARP settings, and the client's side has learnt the wrong MAC address",
		notIPv6: "neighbour discovery needs no settings that could come too late",
		check:   doctor.StaleARP,
		inject:  injectVIPBeforeSysctl,
	}, {
		Name: "wrong-mac", About: "the director's neighbour table has a wrong MAC address for " + faulty,
		check: doctor.WrongMAC, host: Director,
		inject: injectWrongMAC,
	}, {
		Name: "rp-filter", About: faulty + " has a second interface, by which it reaches the client, and rp_filter is 1 where the client's packets come in",
		notIPv6: "Linux has no rp_filter for it",
		check:   doctor.RPFilter, host: faulty,
		inject: injectReversePath,
	}, {
		Name: "mtu", About: faulty + " has an MTU of 1400, and its route to the client asks for segments of 1500",
		check: doctor.MTU, host: faulty, uploads: true,
		inject: injectMTU,
	}, {
		Name: "proxy-arp", About: "a host that has not the VIP answers for it, as proxy_arp is 1 and its routes lead the VIP elsewhere",
		check: doctor.ProxyARP, host: Bystander, bystander: true,
		inject: injectProxyARP,
		before: forgetVIP,
	}, {
		Name: "director-as-real-server", About: faulty + " is a director of the same service too, and schedules what was forwarded to it once more",
		check: doctor.SecondDirector, host: faulty, servers: 2,
		inject: injectSecondDirector,
	}, {
		Name: "no-route-back", About: faulty + " answers clients past the director, which alone can answer as the VIP",
		Method: Masquerading,
		check:  doctor.NoRouteBack, host: faulty,
		inject: injectNoRouteBack,
	}, {
		Name: "local-address-missing", About: "the director has not the local address that clients come from for real servers",
		Method: FullNAT,
		check:  doctor.LocalMissing, host: Director,
		inject: func(ctx context.Context, l *Lab, family Family) error {
			return l.onHost(ctx, Director, fmt.Sprintf("ip address del %s dev %s", hostPrefix(family.LocalAddress()), hostInterface))
		},
		before: func(l *Lab, family Family) error {
			for _, server := range l.Servers() {
				if err := l.forget(server.Name, family.LocalAddress()); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// FaultByName returns the fault, or an error that names those there are.
func FaultByName(name string) (Fault, error) {
	var names []string
	for _, fault := range Faults() {
		if fault.Name == name {
			return fault, nil
		}
		names = append(names, fault.Name)
	}
	return Fault{}, fmt.Errorf("fault %q: there are %s", name, strings.Join(names, ", "))
}

// With returns the lab that the fault is shown on, or why there is no such fault
// with the family.
func (f Fault) With(config Config, family Family) (Config, error) {
	if family == IPv6 && f.notIPv6 != "" {
		return config, fmt.Errorf("fault %s: not with IPv6: %s", f.Name, f.notIPv6)
	}
	method := f.Method
	if method == "" {
		method = DirectRouting
	}
	if config.Method != method && (config.Method != "" || method != DirectRouting) {
		return config, fmt.Errorf("fault %s: it is one of --method %s, not of %s", f.Name, method, config.Method)
	}
	if config.Servers < f.servers {
		return config, fmt.Errorf("fault %s: it takes %d real servers", f.Name, f.servers)
	}
	config.Bystander = config.Bystander || f.bystander
	return config, nil
}

// culprit returns the name of the host whose fault it is.
func (f Fault) culprit(l *Lab) string {
	if f.host == "" {
		return edge(l.hosts).Name
	}
	return f.host
}
