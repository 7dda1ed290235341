package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// With FullNAT clients come from local addresses, and real servers answer there. So answers
// to a local address have to come to the director: because it answers ARP and neighbour
// solicitations for it, or because routers know. A SYN in the local address's name, to a
// real server that answers the director, shows whether they do.

// examineLocals returns whether answers of a FullNAT real server to all local addresses come
// to the director, as far as that can be told.
func (e *examination) examineLocals(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server) (bool, error) {
	answers := slices.ContainsFunc(e.accepting[service.ServiceKey], func(a lvs.RealServerStatus) bool { return a.RealServerKey == r.RealServerKey })
	for _, local := range e.locals {
		addr := local.Prefix.Addr()
		if addr.Is6() != r.Address.Is6() {
			continue
		}
		for range local.Len() {
			sound, err := e.examineLocal(ctx, service, r, s, addr, answers)
			if !sound || err != nil {
				return false, err
			}
			addr = addr.Next()
		}
	}
	return true, nil
}

// examineLocal looks at one local address. answers says that the real server answers TCP:
// others can't be asked.
func (e *examination) examineLocal(ctx context.Context, service lvs.ServiceStatus, r lvs.RealServerStatus, s server, local netip.Addr, answers bool) (bool, error) {
	if e.missing[local] {
		return false, nil // told already
	}
	has, err := hasAddress(local)
	if err != nil || has && !answers {
		return true, err
	}
	if answers {
		if _, answered, err := e.greet(ctx, r, s, local); answered || err != nil {
			return answered, err
		}
	}
	if has {
		host := e.realServer(ctx, r)
		e.found(Finding{
			Check: NoRouteBack, Level: Error, Service: service.ServiceKey.String(), Host: host,
			What: fmt.Sprintf("%s answers the director, and its answers to local address %s do not come to the director", host, local),
			Why:  "with FullNAT clients come from local addresses of the director, who alone can make answers to them those of the VIP",
			Mend: []Remedy{{host, fmt.Sprintf("ip route get %s", local)}},
		})
		return false, nil
	}
	e.missing[local] = true
	e.foundMissing(service, s, local, answers)
	return false, nil
}

// foundMissing tells of a local address that the director has not; for certain if a real
// server's answers to it do not come.
func (e *examination) foundMissing(service lvs.ServiceStatus, s server, local netip.Addr, certain bool) {
	level, why := Error, "nobody answers when real servers ask for the MAC address of the local address that FullNAT's clients come from"
	if !certain {
		level, why = Warning, "unless it is routed to the director, "+why
	}
	host := e.director(s.segment, local)
	command := fmt.Sprintf("ip address add %s/%d dev %s", local, local.BitLen(), s.segment.device.Name)
	if local.Is6() {
		command += " preferred_lft 0" // never the source of what the director says itself
	}
	e.found(Finding{
		Check: LocalMissing, Level: level, Service: service.ServiceKey.String(), Host: host,
		What: fmt.Sprintf("the director has not the local address %s", local),
		Why:  why,
		Mend: []Remedy{{host, command}},
	})
}

// hasAddress reports whether this host has an address.
func hasAddress(addr netip.Addr) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list addresses: %w", err)
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == addr
	}), nil
}
