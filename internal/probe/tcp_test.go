package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mustBegin begins to connect, and waits until it is decided what comes of it.
func mustBegin(t *testing.T, to netip.AddrPort) *tcpConn {
	t.Helper()
	fd, err := tcpSocket(family(to.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	c := &tcpConn{file: os.NewFile(uintptr(fd), "tcp"), remote: to}
	t.Cleanup(func() { c.Close() })
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 10_000); err != nil {
		t.Fatal(err)
	}
	return c
}

// Who is told late that its time is over is told no less of what came before that.
func TestDeadlineToldLate(t *testing.T) {
	over, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		c := mustBegin(t, at)
		if err := c.await(over); err != nil {
			t.Errorf("%s: a connection that is there: %v", at, err)
		}
		if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Error(err)
		}
		var op *net.OpError
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &op) || !op.Timeout() {
			t.Errorf("%s: no answer: %v", at, err)
		}
		l.Close()
		if err := mustBegin(t, at).await(over); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: a connection that was refused: %v", at, err)
		}
	}
	// One that does not even begin to connect.
	fd, err := tcpSocket(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	c := &tcpConn{file: os.NewFile(uintptr(fd), "tcp")}
	defer c.Close()
	if err := c.await(over); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
}
