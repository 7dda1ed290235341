package realserver

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A watch tells when links, addresses or routes that matter may have changed.
// Sysctls have no notification.
type watch struct {
	socket *nl.NetlinkSocket
	// changed and defaults hold one token at most; defaults is for default routes.
	changed, defaults chan struct{}
	// dead is closed when the socket gives no more.
	dead chan struct{}
}

// newWatch watches the network namespace of the calling thread.
func newWatch() (*watch, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("follow the network: %w", err)
	}
	w := &watch{
		socket:   socket,
		changed:  make(chan struct{}, 1),
		defaults: make(chan struct{}, 1),
		dead:     make(chan struct{}),
	}
	go w.receive()
	return w, nil
}

func (w *watch) receive() {
	defer close(w.dead)
	for {
		messages, from, err := w.socket.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS): // some were lost: anything may have changed
			signal(w.changed)
			signal(w.defaults)
		case err != nil:
			return
		case from.Pid == nl.PidKernel:
			for _, m := range messages {
				w.take(m)
			}
		}
	}
}

// take passes over routes between other hosts: a router's come and go by thousands.
func (w *watch) take(m syscall.NetlinkMessage) {
	if m.Header.Type != unix.RTM_NEWROUTE && m.Header.Type != unix.RTM_DELROUTE {
		signal(w.changed)
		return
	}
	if len(m.Data) < unix.SizeofRtMsg {
		return
	}
	switch route := nl.DeserializeRtMsg(m.Data); {
	case route.Table == unix.RT_TABLE_LOCAL:
		signal(w.changed)
	case route.Dst_len == 0:
		signal(w.defaults)
	}
}

// close ends the watch.
func (w *watch) close() {
	w.socket.Close()
	<-w.dead
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
