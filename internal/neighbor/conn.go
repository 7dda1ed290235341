package neighbor

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Protocol marks the neighbour entries that a [Watcher] makes (NDA_PROTOCOL;
// "proto 76" in ip neighbour): 'L', which no routing daemon has.
const Protocol = 'L'

// receiveBuffer is for the notifications that come while the Watcher resolves:
// some ten thousand.
const receiveBuffer = 8 << 20

// conn is the two netlink sockets of a Watcher: one for requests, one for
// notifications, which come in the order in which the kernel sent them. Requests
// are for one goroutine at a time.
type conn struct {
	namespace     netns.NsHandle
	requests      *nl.SocketHandle
	notifications *nl.NetlinkSocket
}

// openConn opens the sockets in the network namespace of the calling thread,
// which it remembers.
func openConn() (*conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	namespace, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	c := &conn{namespace: namespace}
	if err := c.openSockets(); err != nil {
		return nil, errors.Join(err, namespace.Close())
	}
	return c, nil
}

// reopen replaces both sockets by new ones in the namespace of openConn. It does
// so on a thread of its own, which ends with it when it had to change the
// thread's namespace: that takes CAP_SYS_ADMIN, and only a caller whose process
// began in another namespace needs it.
func (c *conn) reopen() error {
	c.closeSockets()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		here, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("open network namespace: %w", err)
			return
		}
		if here.Equal(c.namespace) {
			defer runtime.UnlockOSThread()
		} else if err := netns.Set(c.namespace); err != nil {
			done <- errors.Join(fmt.Errorf("enter network namespace: %w", err), here.Close())
			return
		}
		done <- errors.Join(c.openSockets(), here.Close())
	}()
	return <-done
}

func (c *conn) openSockets() error {
	requests, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	notifications, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		requests.Close()
		return fmt.Errorf("subscribe to netlink: %w", err)
	}
	// Beyond net.core.rmem_max with CAP_NET_ADMIN; what the limit allows without.
	if notifications.SetReceiveBufferSize(receiveBuffer, true) != nil {
		if err := notifications.SetReceiveBufferSize(receiveBuffer, false); err != nil {
			requests.Close()
			notifications.Close()
			return fmt.Errorf("set netlink receive buffer: %w", err)
		}
	}
	c.requests = &nl.SocketHandle{Socket: requests}
	c.notifications = notifications
	return nil
}

// closeSockets makes a receive under way end with an error. It may be called
// again.
func (c *conn) closeSockets() {
	c.requests.Close()
	c.notifications.Close()
}

func (c *conn) close() {
	c.closeSockets()
	_ = c.namespace.Close()
}

// route asks for the way to addr, over the interface oif unless that is 0. The
// error wraps the kernel's errno, which for routes that lead nowhere is an
// answer: see noWay.
func (c *conn) route(addr netip.Addr, oif int) (route, error) {
	header := &nl.RtMsg{}
	header.Family = family(addr)
	header.Dst_len = uint8(addr.BitLen())
	attributes := []nl.NetlinkRequestData{header, nl.NewRtAttr(unix.RTA_DST, addr.AsSlice())}
	if oif != 0 {
		attributes = append(attributes, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(oif))))
	}
	answers, err := c.execute(unix.RTM_GETROUTE, 0, unix.RTM_NEWROUTE, attributes...)
	if err != nil {
		return route{}, fmt.Errorf("get route to %s: %w", addr, err)
	}
	if len(answers) == 0 {
		return route{}, fmt.Errorf("get route to %s: no answer", addr)
	}
	return decodeRoute(answers[0])
}

// links returns the interfaces of the namespace by their index.
func (c *conn) links() (links, error) {
	answers, err := c.execute(unix.RTM_GETLINK, unix.NLM_F_DUMP, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	found := make(links, len(answers))
	for _, a := range answers {
		if l, ok := decodeLink(a); ok {
			found[l.index] = l
		}
	}
	return found, nil
}

// link returns one interface as it is now; the error wraps ENODEV when there is none.
func (c *conn) link(index int) (link, error) {
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(index)
	answers, err := c.execute(unix.RTM_GETLINK, 0, unix.RTM_NEWLINK, header)
	if err != nil {
		return link{}, fmt.Errorf("get link %d: %w", index, err)
	}
	for _, a := range answers {
		if l, ok := decodeLink(a); ok && l.index == index {
			return l, nil
		}
	}
	return link{}, fmt.Errorf("get link %d: %w", index, unix.ENODEV)
}

// neighbours returns all neighbour entries of the namespace.
func (c *conn) neighbours() ([]neighbour, error) {
	answers, err := c.execute(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, unix.RTM_NEWNEIGH, &netlink.Ndmsg{})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	neighbours := make([]neighbour, 0, len(answers))
	for _, a := range answers {
		if n, ok := decodeNeighbour(a); ok {
			neighbours = append(neighbours, n)
		}
	}
	return neighbours, nil
}

// neighbour returns one entry; the error wraps ENOENT when there is none.
func (c *conn) neighbour(key neighbourKey) (neighbour, error) {
	answers, err := c.execute(unix.RTM_GETNEIGH, 0, unix.RTM_NEWNEIGH, key.message(0), key.destination())
	if err != nil {
		return neighbour{}, fmt.Errorf("get neighbour %s: %w", key.address, err)
	}
	for _, a := range answers {
		if n, ok := decodeNeighbour(a); ok && n.neighbourKey == key {
			return n, nil
		}
	}
	return neighbour{}, fmt.Errorf("get neighbour %s: %w", key.address, unix.ENOENT)
}

// A marking is how a neighbour entry is written. The state of an entry that is
// there stays as it is, unless it is permanent: that is lost.
type marking struct {
	create   bool // make the entry; EEXIST when it is there. Else ENOENT when it is not
	managed  bool // the kernel keeps it resolved
	ordinary bool // take our marks away
}

// markNeighbour writes an entry and makes the kernel resolve it now.
func (c *conn) markNeighbour(key neighbourKey, m marking) error {
	flags := uint8(netlink.NTF_USE)
	if !m.ordinary {
		// As one that a control plane gave it, the kernel's garbage collector
		// spares the entry, and it does not count against gc_thresh3.
		flags |= netlink.NTF_EXT_LEARNED
	}
	attributes := []nl.NetlinkRequestData{key.message(flags), key.destination()}
	if !m.ordinary {
		attributes = append(attributes, nl.NewRtAttr(netlink.NDA_PROTOCOL, nl.Uint8Attr(Protocol)))
	}
	if m.managed {
		attributes = append(attributes, nl.NewRtAttr(netlink.NDA_FLAGS_EXT, nl.Uint32Attr(netlink.NTF_EXT_MANAGED)))
	}
	mode := unix.NLM_F_ACK
	if m.create {
		mode |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	_, err := c.execute(unix.RTM_NEWNEIGH, mode, 0, attributes...)
	return err
}

// deleteNeighbour takes an entry away; ENOENT when there is none.
func (c *conn) deleteNeighbour(key neighbourKey) error {
	_, err := c.execute(unix.RTM_DELNEIGH, unix.NLM_F_ACK, 0, key.message(0), key.destination())
	return err
}

// execute sends one request and returns the answers of one type. A dump during
// which the kernel's table changed is returned as it is: the notifications of the
// changes follow.
func (c *conn) execute(request, flags int, answer uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	r := &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{
			Len:   unix.SizeofNlMsghdr,
			Type:  uint16(request),
			Flags: unix.NLM_F_REQUEST | uint16(flags),
		},
		Data:    data,
		Sockets: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: c.requests},
	}
	answers, err := r.Execute(unix.NETLINK_ROUTE, answer)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	return answers, nil
}

func (k neighbourKey) message(flags uint8) *netlink.Ndmsg {
	return &netlink.Ndmsg{Family: family(k.address), Index: uint32(k.link), Flags: flags}
}

func (k neighbourKey) destination() *nl.RtAttr {
	return nl.NewRtAttr(netlink.NDA_DST, k.address.AsSlice())
}

func family(addr netip.Addr) uint8 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
