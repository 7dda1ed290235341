package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// stockSize is how many sockets are made at once.
const stockSize = 32

// A stock is TCP sockets of one family that wait to be used. To have something done in
// the namespace takes two switches of threads, which cost more than to make a socket:
// so many are made at once.
type stock struct {
	mu  sync.Mutex
	fds []int
}

// take returns a TCP socket of a family, whose connection is to end by a RST.
func (n *Namespace) take(family int) (int, error) {
	s := &n.stocks[0]
	if family == unix.AF_INET6 {
		s = &n.stocks[1]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fds) == 0 {
		if err := n.do(func() error { return s.fill(family) }); err != nil {
			return -1, err
		}
	}
	last := len(s.fds) - 1
	fd := s.fds[last]
	s.fds = s.fds[:last]
	return fd, nil
}

// fill makes as many sockets as there can be; it is an error if that is none.
func (s *stock) fill(family int) error {
	for len(s.fds) < stockSize {
		fd, err := tcpSocket(family)
		if err != nil && len(s.fds) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		s.fds = append(s.fds, fd)
	}
	return nil
}

// clear closes what is left.
func (s *stock) clear() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
}

func tcpSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

func (n *Namespace) dialTCP(ctx context.Context, source netip.Addr, route Route) (net.Conn, error) {
	route.Protocol = lvs.TCP
	fd, err := n.take(family(source))
	if err != nil {
		return nil, err
	}
	err = os.NewSyscallError("bind", unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))))
	if err == nil {
		route.Source, err = n.routeSocket(fd, source, route)
	}
	if err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, sockaddr(route.Destination)))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return nil, err
	}
	conn := &tcpConn{file: os.NewFile(uintptr(fd), "tcp"), local: route.Source, remote: route.Destination}
	if err := conn.await(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// A tcpConn is a connection in the namespace. Such a one of package net can be had of a
// socket only by a second descriptor, and a check would pay twice for what a descriptor
// costs.
type tcpConn struct {
	file          *os.File
	local, remote netip.AddrPort
}

// await waits until the connection is there, or why it will not be.
func (c *tcpConn) await(ctx context.Context) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	connected, failed := false, error(nil)
	look := func(fd uintptr) bool {
		connected, failed = isConnected(int(fd))
		return connected || failed != nil
	}
	err = raw.Write(look)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// On a busy host the deadline is told late, and with it what came before it.
		err = raw.Control(func(fd uintptr) { look(fd) })
		if err == nil && !connected && failed == nil {
			err = os.ErrDeadlineExceeded
		}
	}
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return c.SetWriteDeadline(time.Time{})
}

// isConnected reports whether a socket that connects has come to it; an error is why it
// never will.
func isConnected(fd int) (bool, error) {
	if _, err := unix.Getpeername(fd); err == nil {
		return true, nil
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return false, os.NewSyscallError("getsockopt", err)
	}
	if code != 0 {
		return false, os.NewSyscallError("connect", unix.Errno(code))
	}
	return false, nil // a socket is called writable before it is connected, too
}

// explain returns an error as those of package net are.
func (c *tcpConn) explain(op string, err error) error {
	var path *fs.PathError
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.As(err, &path):
		err = path.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read implements [net.Conn].
func (c *tcpConn) Read(data []byte) (int, error) {
	size, err := c.file.Read(data)
	return size, c.explain("read", err)
}

// Write implements [net.Conn].
func (c *tcpConn) Write(data []byte) (int, error) {
	size, err := c.file.Write(data)
	return size, c.explain("write", err)
}

// Close implements [net.Conn].
func (c *tcpConn) Close() error { return c.explain("close", c.file.Close()) }

// LocalAddr implements [net.Conn].
func (c *tcpConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr implements [net.Conn].
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements [net.Conn].
func (c *tcpConn) SetDeadline(t time.Time) error { return c.explain("set", c.file.SetDeadline(t)) }

// SetReadDeadline implements [net.Conn].
func (c *tcpConn) SetReadDeadline(t time.Time) error {
	return c.explain("set", c.file.SetReadDeadline(t))
}

// SetWriteDeadline implements [net.Conn].
func (c *tcpConn) SetWriteDeadline(t time.Time) error {
	return c.explain("set", c.file.SetWriteDeadline(t))
}
