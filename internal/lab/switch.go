package lab

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/journey"
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

// A switchWatch hears of each entry that the switch learns.
type switchWatch struct {
	fd    int // a netlink socket; what it has heard waits in it
	ports map[int]journey.Learning
}

// watchSwitch makes the switch forget what it has learnt, and watches what it learns
// from then on.
func (l *Lab) watchSwitch() (*switchWatch, error) {
	w := &switchWatch{fd: -1, ports: map[int]journey.Learning{}}
	err := l.within(Switch, func() error {
		for _, p := range l.ports {
			device, err := net.InterfaceByName(p.name)
			if err != nil {
				return fmt.Errorf("find port %s of the switch: %w", p.name, err)
			}
			w.ports[device.Index] = journey.Learning{Port: p.name, Host: p.Name}
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		w.fd = fd
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_NEIGH - 1)}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return forgetLearnt()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch the switch: %w", err), w.close())
	}
	return w, nil
}

// forgetLearnt works in the switch's namespace.
func forgetLearnt() error {
	entries, err := learntEntries()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		entry.Flags = netlink.NTF_MASTER
		if err := netlink.NeighDel(&entry); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget %s: %w", entry.HardwareAddr, err)
		}
	}
	return nil
}

func (w *switchWatch) close() error {
	if w.fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(w.fd))
}

// stop ends the watch, and returns what the switch has learnt until now and not
// forgotten, in its order. The kernel tells of an entry while it takes the frame in, so
// that nothing is still on its way.
func (w *switchWatch) stop() ([]journey.Learning, error) {
	var learnt []journey.Learning
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(w.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) {
			return learnt, w.close()
		}
		if err != nil {
			return learnt, errors.Join(fmt.Errorf("watch the switch: %w", err), w.close())
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return learnt, errors.Join(fmt.Errorf("watch the switch: %w", err), w.close())
		}
		for _, message := range messages {
			learnt = w.hear(learnt, message)
		}
	}
}

// hear returns what is learnt after the message.
func (w *switchWatch) hear(learnt []journey.Learning, message syscall.NetlinkMessage) []journey.Learning {
	entry, err := netlink.NeighDeserialize(message.Data)
	if err != nil || entry.Family != unix.AF_BRIDGE || len(entry.HardwareAddr) != len(lvs.MAC{}) {
		return learnt
	}
	lesson, known := w.ports[entry.LinkIndex]
	lesson.MAC = lvs.MAC(entry.HardwareAddr)
	switch {
	case !known || entry.State&netlink.NUD_PERMANENT != 0:
		return learnt
	case message.Header.Type == unix.RTM_DELNEIGH:
		return slices.DeleteFunc(learnt, func(l journey.Learning) bool { return l == lesson })
	case message.Header.Type == unix.RTM_NEWNEIGH && latest(learnt, lesson.MAC) != lesson:
		return append(learnt, lesson)
	}
	return learnt
}

// latest returns what was learnt last of the MAC address.
func latest(learnt []journey.Learning, mac lvs.MAC) journey.Learning {
	for _, l := range slices.Backward(learnt) {
		if l.MAC == mac {
			return l
		}
	}
	return journey.Learning{}
}
