package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// switchTable returns, for each host, the port on which the switch has learnt its
// MAC address. A router has the port on the director's segment.
func (l *Lab) switchTable() (map[string]string, error) {
	table := map[string]string{}
	names := namesOf(l.ports)
	segments := map[string]bool{} // ports of the director's segment
	for _, p := range l.ports {
		segments[p.name] = p.segment == serverSegment
	}
	err := l.within(Switch, func() error {
		entries, err := learntEntries()
		if err != nil {
			return err
		}
		for _, entry := range entries {
			link, err := netlink.LinkByIndex(entry.LinkIndex)
			if err != nil {
				return fmt.Errorf("find port %d of the switch: %w", entry.LinkIndex, err)
			}
			name, known := names[lvs.MAC(entry.HardwareAddr)]
			if port := link.Attrs().Name; known && (segments[port] || name == Client) {
				table[name] = port
			}
		}
		return nil
	})
	return table, err
}

// learntEntries works in the switch's namespace. It returns what the bridges have
// learnt, and not what they were told.
func learntEntries() ([]netlink.Neigh, error) {
	entries, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("list the switch's table: %w", err)
	}
	return slices.DeleteFunc(entries, func(entry netlink.Neigh) bool {
		return entry.State&netlink.NUD_PERMANENT != 0 || len(entry.HardwareAddr) != len(lvs.MAC{})
	}), nil
}

// listPorts writes "client: client, rs1: rs1-eth1".
func listPorts(table map[string]string) string {
	if len(table) == 0 {
		return "nobody"
	}
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(table), byLengthAndName) {
		parts = append(parts, name+" at "+table[name])
	}
	return strings.Join(parts, ", ")
}
