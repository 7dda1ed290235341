package e2e

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// A request is one of a steady load.
type request struct {
	begun  time.Time
	ended  bool
	answer string // the server's name
	err    error
}

// A steadyLoad sends so many requests a second from the lab's client, each over a connection
// of its own and whatever became of those before, until the test ends. It is many clients: an
// address and port that is used again while the director remembers it is sent to the server
// that it was sent to.
type steadyLoad struct {
	mu  sync.Mutex
	all []*request // in the order of their beginnings
	err error      // it could not go on
}

// requestPatience is after how long a request has failed.
const requestPatience = 2 * time.Second

// loadClients are their addresses.
var loadClients = []netip.Addr{
	netip.MustParseAddr("192.0.2.201"), netip.MustParseAddr("192.0.2.202"),
	netip.MustParseAddr("192.0.2.203"), netip.MustParseAddr("192.0.2.204"),
}

// loadClient returns where a request comes from.
func loadClient(number int) netip.AddrPort {
	const first, ports = 1024, 64000
	return netip.AddrPortFrom(loadClients[number%len(loadClients)], uint16(first+number/len(loadClients)%ports))
}

func newSteadyLoad(t *testing.T, l *lab.Lab, address netip.AddrPort, rate int) *steadyLoad {
	t.Helper()
	for _, client := range loadClients {
		mustOutput(t, l, lab.Client, "ip", "address", "add", client.String()+"/32", "dev", "eth0")
	}
	load := &steadyLoad{}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		err := l.Within(lab.Client, func() error { return load.run(address, rate, stop) })
		load.mu.Lock()
		defer load.mu.Unlock()
		load.err = err
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
	return load
}

// run begins all requests on one thread, that of the client's namespace: sockets are of the
// namespace that they are made in.
func (s *steadyLoad) run(address netip.AddrPort, rate int, stop <-chan struct{}) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var requests sync.WaitGroup
	defer requests.Wait()
	begun, sent := time.Now(), 0
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		for due := int(time.Since(begun).Seconds() * float64(rate)); sent < due; sent++ {
			one := &request{begun: time.Now()}
			socket, err := connecting(loadClient(sent), address)
			if err != nil {
				return err
			}
			s.mu.Lock()
			s.all = append(s.all, one)
			s.mu.Unlock()
			requests.Go(func() {
				answer, err := exchange(socket)
				s.mu.Lock()
				defer s.mu.Unlock()
				one.ended, one.answer, one.err = true, answer, err
			})
		}
	}
}

// connecting returns a socket that is about to be connected.
func connecting(from, to netip.AddrPort) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().As4()})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, fmt.Errorf("connect %s to %s: %w", from, to, err)
	}
	return os.NewFile(uintptr(fd), "request"), nil
}

// exchange asks for the server's name: what is written waits until the socket is connected.
func exchange(socket *os.File) (name string, err error) {
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(requestPatience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(socket, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(socket)
	if err != nil {
		return "", err
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	if !strings.Contains(status, " 200 ") {
		return "", fmt.Errorf("answered with %q", status)
	}
	return body, nil
}

// between returns the requests that were begun in a time, when all of them have ended.
func (s *steadyLoad) between(t *testing.T, from, to time.Time) (begun []request) {
	t.Helper()
	eventually(t, time.Until(to)+10*requestPatience, "the requests have ended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		begun = nil
		for _, r := range s.all {
			if r.begun.Before(from) || !r.begun.Before(to) {
				continue
			}
			if !r.ended {
				return false
			}
			begun = append(begun, *r)
		}
		return s.err != nil || !time.Now().Before(to)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		t.Fatal(s.err)
	}
	return begun
}
