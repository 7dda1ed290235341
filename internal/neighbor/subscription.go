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
		select {
		case s.notices <- notice{messages, err}:
		case <-s.stop:
			return
		}
		if err != nil && !overrun(err) {
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

// overrun reports whether err says that notifications were lost for want of
// buffer, which leaves the socket in order.
func overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }

// follow takes in n and the notices that wait behind it.
func (w *Watcher) follow(n notice, now time.Time) {
	for range noticeBuffer {
		switch {
		case n.err == nil:
			for _, m := range n.messages {
				w.notify(m, now)
			}
		case overrun(n.err):
			w.log.Warn("netlink notifications lost, comparing everything", "cause", n.err)
			w.audit(now)
		default:
			w.lose(n.err)
			return
		}
		select {
		case n = <-w.subscription.notices:
		default:
			return
		}
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
