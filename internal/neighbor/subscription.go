package neighbor

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// noticeBuffer is how many notices wait for the Watcher besides those in the
// socket's buffer, and how many it takes in before it resolves anew.
const noticeBuffer = 1024

// errOverrun says that notifications were lost for want of buffer; the socket is
// in order.
var errOverrun = errors.New("netlink socket overrun")

// A notice is one datagram of notifications, or the error of receiving it.
type notice struct {
	messages []syscall.NetlinkMessage
	err      error
}

// A subscription receives the notifications of one socket until the socket is
// dead.
type subscription struct {
	notices chan notice
	socket  *nl.NetlinkSocket
	once    sync.Once
	stop    chan struct{}
	ended   chan struct{}
}

func subscribe(socket *nl.NetlinkSocket) *subscription {
	s := &subscription{
		notices: make(chan notice, noticeBuffer),
		socket:  socket,
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	go s.receive()
	return s
}

func (s *subscription) receive() {
	defer close(s.ended)
	for {
		messages, from, err := s.socket.Receive()
		if err == nil && from.Pid != nl.PidKernel {
			continue
		}
		if errors.Is(err, unix.ENOBUFS) {
			err = s.drain()
		}
		select {
		case s.notices <- notice{messages, err}:
		case <-s.stop:
			return
		}
		if err != nil && !errors.Is(err, errOverrun) {
			return
		}
	}
}

// close ends the subscription and closes its socket. It may be called again.
func (s *subscription) close() {
	s.once.Do(func() {
		close(s.stop)
		s.socket.Close()
	})
	<-s.ended
}

// drain empties the socket after an overrun, and returns errOverrun, or what
// killed the socket. Until it is empty the kernel drops what comes, and says so
// no more (NETLINK_S_CONGESTED of net/netlink/af_netlink.c); what is asked of the
// kernel after that is the whole truth together with the notifications to come.
func (s *subscription) drain() error {
	const quiet = time.Millisecond
	timeout, never := unix.NsecToTimeval(quiet.Nanoseconds()), unix.Timeval{}
	if err := s.socket.SetReceiveTimeout(&timeout); err != nil {
		return err
	}
	for {
		_, _, err := s.socket.Receive()
		switch {
		case err == nil || errors.Is(err, unix.ENOBUFS):
		case errors.Is(err, unix.EAGAIN):
			return errors.Join(errOverrun, s.socket.SetReceiveTimeout(&never))
		default:
			return err
		}
	}
}

// follow takes in n and the notices that wait behind it, so that a burst of
// changes is resolved once.
func (w *Watcher) follow(n notice, now time.Time) {
	w.takeIn(n, now)
	for range noticeBuffer {
		select {
		case n := <-w.subscription.notices:
			w.takeIn(n, now)
		default:
			return
		}
	}
}

func (w *Watcher) takeIn(n notice, now time.Time) {
	switch {
	case n.err == nil:
		for _, m := range n.messages {
			w.notify(m, now)
		}
	case errors.Is(n.err, errOverrun):
		w.log.Warn("netlink notifications lost, comparing everything", "cause", n.err)
		w.audit(now)
	default:
		w.lose(n.err)
	}
}

// notify takes in one notification of the kernel.
func (w *Watcher) notify(m syscall.NetlinkMessage, now time.Time) {
	switch m.Header.Type {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if n, ok := decodeNeighbour(m.Data); ok {
			w.touch(w.hops.observe(n, m.Header.Type == unix.RTM_DELNEIGH, now))
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if prefix, err := decodeDestination(m.Data); err == nil {
			w.restale(prefix)
		} else {
			w.restaleAll()
		}
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.notifyLink(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWRULE, unix.RTM_DELRULE,
		unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		w.restaleAll()
	}
}

func (w *Watcher) notifyLink(m syscall.NetlinkMessage) {
	l, ok := decodeLink(m.Data)
	if !ok {
		return
	}
	if m.Header.Type == unix.RTM_DELLINK {
		delete(w.links, l.index)
	} else if w.links[l.index] == l {
		return // of what is not ours: statistics, queues
	} else {
		w.links[l.index] = l
	}
	w.restaleAll()
}

// lookForCarriers finds the interfaces in use that have lost their carrier. The
// kernel knows that at once, and notifies of such changes once a second at most
// (net/core/link_watch.c), if it is not asked. A carrier's return is not looked
// for: before it is notified, the kernel may drop what it should send.
func (w *Watcher) lookForCarriers() {
	for index := range w.hops.interfaces(w.links) {
		known, ok := w.links[index]
		if !ok || known.flags&unix.IFF_LOWER_UP == 0 {
			continue
		}
		now, err := w.conn.link(index)
		if err != nil || now.flags&unix.IFF_LOWER_UP != 0 {
			continue // of an interface that is gone the kernel tells at once
		}
		known.flags &^= unix.IFF_LOWER_UP
		w.links[index] = known
		w.restaleAll()
	}
}

// lose notes that a netlink socket is dead; the next tick opens new ones.
func (w *Watcher) lose(err error) {
	if !w.lost {
		w.log.Warn("netlink socket lost, opening another", "cause", err)
	}
	w.lost = true
}

// resubscribe opens new sockets and compares everything that happened meanwhile.
func (w *Watcher) resubscribe(now time.Time) {
	w.subscription.close()
	if err := w.conn.reopen(); err != nil {
		w.log.Warn("netlink socket not opened again", "cause", err)
		return
	}
	w.lost = false
	w.subscription = subscribe(w.conn.notifications)
	w.audit(now)
}
