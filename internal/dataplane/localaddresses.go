package dataplane

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// LocalAddresses returns the pool that clients of FullNAT real servers come from, IPv4
// first, else as it was set.
func (p *Plane) LocalAddresses() []lvs.LocalAddress {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pool []lvs.LocalAddress
	for _, word := range &p.settings().LocalAddresses {
		first, count := word>>16, word&0xffff
		for at := first; at < first+count; {
			local := fromLocalAddress(p.view.locals.elements[at])
			pool = append(pool, local)
			at += uint32(local.Len())
		}
	}
	return pool
}

// SetLocalAddresses replaces the pool at once, for connections that begin; those that have
// an address of the former one keep it. It wraps lvs.ErrInvalid.
func (p *Plane) SetLocalAddresses(pool []lvs.LocalAddress) error {
	if _, err := lvs.CheckLocalAddresses(pool); err != nil {
		return fmt.Errorf("set local addresses: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Packets may still be at the other half, which held before the present one.
	if err := p.settle(); err != nil {
		return fmt.Errorf("set local addresses: %w", err)
	}
	words := &p.settings().LocalAddresses
	at := uint32(directorLimitMAX_LOCAL_ADDRESSES)
	if words[0]>>16 >= at {
		at = 0
	}
	for family, isIPv6 := range []bool{false, true} {
		first := at
		for _, local := range pool {
			if local.Prefix.Addr().Is6() != isIPv6 {
				continue
			}
			addr := local.Prefix.Addr()
			for range local.Len() {
				p.view.locals.elements[at] = toLocalAddress(addr, local)
				addr, at = addr.Next(), at+1
			}
		}
		atomic.StoreUint32(&words[family], first<<16|(at-first))
	}
	return nil
}

// localEnd returns the address and the port that the client of the connection at a slot has
// at its real server; the zero value if that is none of the pool, or if its entries have
// changed meanwhile.
func (p *Plane) localEnd(slot uint32, now uint32) netip.AddrPort {
	const slots = uint32(directorLimitGROUP_SLOTS)
	at, ok := p.replyOf(slot)
	if !ok {
		return netip.AddrPort{}
	}
	reply, ok := readEntry(&p.view.connections.elements[at/slots].Slots[at%slots], now)
	if !ok || !isReply(&reply) || ownerOf(&reply) != slot {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(fromAddress(reply.Vaddr), fromPort(reply.Vport))
}

// replyOf returns the slot of the entry for the replies of the translated connection at a
// slot; false if that has none any more.
func (p *Plane) replyOf(slot uint32) (uint32, bool) {
	const slots = uint32(directorLimitGROUP_SLOTS)
	bond := atomic.LoadUint64(&p.view.bonds.elements[slot/slots].Bonds[slot%slots])
	at := uint32(bond>>32) &^ bondNoTemplate
	return at, at/slots < uint32(len(p.view.connections.elements))
}

// bondNoTemplate is BOND_NO_TEMPLATE of bond.h.
const bondNoTemplate = 1 << 31

func isFullNAT(entry *directorConnection) bool {
	return explainConnectionFlag(entry.Flags)&explainConnectionFlagCONNECTION_FULLNAT != 0
}
