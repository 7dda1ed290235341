package dataplane

import (
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/scheduler"
)

// What the schedulers need that look into a table: dh, sh and mh.

// tableHasWeights reports whether a scheduler's table changes with the servers' weights
// too.
func tableHasWeights(name lvs.Scheduler) bool {
	return name == lvs.SourceHashing || name == lvs.MaglevHashing
}

// table returns the table of a service's scheduler for a list of servers: for
// each slot a position in the list; nil if it has none or nobody can be chosen.
func (p *Plane) table(svc *service, servers []uint32) []int {
	switch svc.Scheduler {
	case lvs.DestinationHashing:
		return scheduler.DH(len(servers))
	case lvs.SourceHashing:
		return scheduler.SH(p.weights(servers))
	case lvs.MaglevHashing:
		if svc.SchedulerFlags&lvs.MHStable != 0 {
			return scheduler.StableMH(p.maglevServers(svc, servers))
		}
		return scheduler.MH(p.maglevServers(svc, servers))
	}
	return nil
}

func (p *Plane) maglevServers(svc *service, servers []uint32) []scheduler.MaglevServer {
	list := make([]scheduler.MaglevServer, len(servers))
	for i, slot := range servers {
		key := p.serverKey(slot)
		list[i] = scheduler.MaglevServer{
			Address:    key.Address,
			Port:       key.Port,
			FirstWord:  svc.Address.Is4() && key.Address.Is6(),
			LastWeight: p.view.servers.elements[slot].LastWeight,
		}
	}
	return list
}

// writeTable stores a table and returns where.
func (p *Plane) writeTable(table []int, servers []uint32) (span, error) {
	const lineSlots = int(directorLimitTABLE_LINE_SLOTS)
	lines := uint32((len(table) + lineSlots - 1) / lineSlots)
	start, err := p.allocate(p.free.tables, lines)
	if err != nil {
		return span{}, err
	}
	for slot, position := range table {
		line := &p.view.tables.elements[start+uint32(slot/lineSlots)]
		line.Servers[slot%lineSlots] = uint16(servers[position])
	}
	return span{start, start + lines}, nil
}
