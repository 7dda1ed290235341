package neighbor

import (
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// An outbox holds what is still to be told: at most one next hop an address,
// the newest, in the order in which the addresses came to wait. It is not safe
// for concurrent use.
type outbox struct {
	told    map[netip.Addr]lvs.NextHop
	waiting map[netip.Addr]lvs.NextHop
	order   []netip.Addr // the keys of waiting
}

func newOutbox() *outbox {
	return &outbox{
		told:    make(map[netip.Addr]lvs.NextHop),
		waiting: make(map[netip.Addr]lvs.NextHop),
	}
}

// put makes hop the next hop to be told of addr. If it is the one that was told
// last, nothing is left to tell.
func (o *outbox) put(addr netip.Addr, hop lvs.NextHop) {
	if last, ok := o.told[addr]; ok && last == hop {
		o.drop(addr)
		return
	}
	if _, ok := o.waiting[addr]; !ok {
		o.order = append(o.order, addr)
	}
	o.waiting[addr] = hop
}

// head returns what is to be told next, false when that is nothing.
func (o *outbox) head() (Update, bool) {
	if len(o.order) == 0 {
		return Update{}, false
	}
	addr := o.order[0]
	return Update{Address: addr, NextHop: o.waiting[addr]}, true
}

// sent notes that u, which head returned, was told.
func (o *outbox) sent(u Update) {
	o.told[u.Address] = u.NextHop
	o.drop(u.Address)
}

// forget drops what is to be told of addr, and what was told.
func (o *outbox) forget(addr netip.Addr) {
	delete(o.told, addr)
	o.drop(addr)
}

func (o *outbox) drop(addr netip.Addr) {
	if _, ok := o.waiting[addr]; !ok {
		return
	}
	delete(o.waiting, addr)
	i := slices.Index(o.order, addr)
	o.order = slices.Delete(o.order, i, i+1)
}
