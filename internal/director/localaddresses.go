package director

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// LocalAddresses implements [api.Director].
func (d *Director) LocalAddresses(context.Context) ([]lvs.LocalAddressStatus, error) {
	var statuses []lvs.LocalAddressStatus
	for _, local := range d.plane.LocalAddresses() {
		problem, err := d.localProblem(local)
		if err != nil {
			return nil, err
		}
		statuses = append(statuses, lvs.LocalAddressStatus{LocalAddress: local, Problem: problem})
	}
	return statuses, nil
}

// localProblem says which of the addresses the host has not, "" if it has all.
func (d *Director) localProblem(local lvs.LocalAddress) (string, error) {
	addr, missing := local.Prefix.Addr(), 0
	first := addr
	for range local.Len() {
		has, err := d.isLocal(addr)
		if err != nil {
			return "", err
		}
		if !has {
			if missing++; missing == 1 {
				first = addr
			}
		}
		addr = addr.Next()
	}
	switch {
	case missing == 0:
		return "", nil
	case missing == 1:
		return fmt.Sprintf("this host has not %s and answers no ARP or neighbour solicitation for it: ip address add %[1]s/%d dev INTERFACE, unless it is routed here", first, first.BitLen()), nil
	}
	return fmt.Sprintf("this host has not %d of its addresses, the first of them %s, and answers no ARP or neighbour solicitation for them: ip address add %[2]s/%d dev INTERFACE and so on, unless they are routed here",
		missing, first, first.BitLen()), nil
}

// AddLocalAddress implements [api.Director].
func (d *Director) AddLocalAddress(_ context.Context, local lvs.LocalAddress) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pool := d.plane.LocalAddresses()
	if slices.ContainsFunc(pool, func(l lvs.LocalAddress) bool { return l.Prefix == local.Prefix }) {
		return fmt.Errorf("add local address %s: %w", local, lvs.ErrLocalAddressExists)
	}
	pool = append(pool, local)
	if _, err := lvs.CheckLocalAddresses(pool); err != nil {
		return fmt.Errorf("add local address: %w", err)
	}
	if err := d.plane.SetLocalAddresses(pool); err != nil {
		return fmt.Errorf("add local address %s: %w", local, err)
	}
	d.log.Info("local address added", "address", local, "ports", local.Ports)
	return nil
}

// DeleteLocalAddress implements [api.Director].
func (d *Director) DeleteLocalAddress(_ context.Context, prefix netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	local := lvs.LocalAddress{Prefix: prefix}
	pool := d.plane.LocalAddresses()
	i := slices.IndexFunc(pool, func(l lvs.LocalAddress) bool { return l.Prefix == prefix })
	if i < 0 {
		return fmt.Errorf("delete local address %s: %w: fairlead local-address list shows those there are", local, lvs.ErrNoLocalAddress)
	}
	pool = slices.Delete(pool, i, i+1)
	if err := d.checkPool(pool); err != nil {
		return fmt.Errorf("delete local address %s: %w", local, err)
	}
	if err := d.plane.SetLocalAddresses(pool); err != nil {
		return fmt.Errorf("delete local address %s: %w", local, err)
	}
	d.log.Info("local address deleted", "address", local)
	return nil
}

// checkPool returns why a pool is not enough for the real servers that are there.
func (d *Director) checkPool(pool []lvs.LocalAddress) error {
	for key, r := range d.rosters {
		for _, server := range r.told {
			if server.Method == lvs.FullNAT && !lvs.HasFamily(pool, server.Address.Is6()) {
				return fmt.Errorf("%w: it is the last one of %s, and real server %s of %s is reached by %s", lvs.ErrInvalid,
					familyName(server.Address), server.RealServerKey, key, lvs.FullNAT)
			}
		}
	}
	return nil
}

func familyName(addr netip.Addr) string {
	if addr.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

// checkFullNAT returns why a real server is refused that is reached by FullNAT, of a
// service and with a pool.
func checkFullNAT(service lvs.Service, s lvs.RealServer, pool []lvs.LocalAddress) error {
	switch {
	case s.Method != lvs.FullNAT && s.TOA:
		return fmt.Errorf("TOA with forwarding method %s: %w: it is of %s", s.Method, lvs.ErrInvalid, lvs.FullNAT)
	case s.Method != lvs.FullNAT:
		return nil
	case s.TOA && service.Mark == 0 && service.Protocol != lvs.TCP:
		return fmt.Errorf("TOA of %s: %w: it is an option of TCP", service.Protocol, lvs.ErrInvalid)
	case service.OnePacket:
		return fmt.Errorf("forwarding method %s: %w: with one-packet scheduling nothing is kept to bring answers back by", s.Method, lvs.ErrInvalid)
	case !lvs.HasFamily(pool, s.Address.Is6()):
		return fmt.Errorf("forwarding method %s: %w: there is no local address of %s for clients to come from: fairlead local-address add ADDRESS",
			s.Method, lvs.ErrInvalid, familyName(s.Address))
	}
	return nil
}
