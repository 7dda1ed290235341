package probe

import (
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	protocolICMP   = lvs.Protocol(unix.IPPROTO_ICMP)
	protocolICMPv6 = lvs.Protocol(unix.IPPROTO_ICMPV6)
)

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// open makes a socket in the namespace, bound to a source. Nothing has been sent.
func (n *Namespace) open(source netip.AddrPort, kind, protocol int) (fd int, err error) {
	err = n.do(func() error {
		fd, err = unix.Socket(family(source.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(source)); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// toConn makes a connection of a socket, which it takes.
func toConn(fd int, name string) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	return net.FileConn(file)
}

func (n *Namespace) dialUDP(source netip.Addr, route Route) (net.Conn, error) {
	route.Protocol = lvs.UDP
	fd, err := n.open(netip.AddrPortFrom(source, 0), unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	if _, err = n.routeSocket(fd, source, route); err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, sockaddr(route.Destination)))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return toConn(fd, "udp")
}

// routeSocket says where the packets of a bound socket go, and returns what it is bound
// to.
func (n *Namespace) routeSocket(fd int, source netip.Addr, route Route) (netip.AddrPort, error) {
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	var port int
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = b.Port
	case *unix.SockaddrInet6:
		port = b.Port
	}
	route.Source = netip.AddrPortFrom(source, uint16(port))
	return route.Source, n.carrier.Route(route)
}

// An echoConn is of one identifier of echo requests.
type echoConn struct {
	*net.IPConn
	id uint16
}

// EchoID returns the identifier that echo requests must have.
func (c echoConn) EchoID() uint16 { return c.id }

// Read reads one message, without its IP header.
func (c echoConn) Read(data []byte) (int, error) {
	size, _, err := c.ReadFrom(data)
	return size, err
}

func (n *Namespace) dialICMP(source netip.Addr, route Route) (net.Conn, error) {
	route.Protocol = protocolICMP
	if source.Is6() {
		route.Protocol = protocolICMPv6
	}
	fd, err := n.open(netip.AddrPortFrom(source, 0), unix.SOCK_RAW, int(route.Protocol))
	if err != nil {
		return nil, err
	}
	id := uint16(firstPort + n.echo.Add(1)%(lastPort-firstPort+1))
	route.Source = netip.AddrPortFrom(source, id)
	if err = n.carrier.Route(route); err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, sockaddr(route.Destination)))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	conn, err := toConn(fd, "icmp")
	if err != nil {
		return nil, err
	}
	return echoConn{conn.(*net.IPConn), id}, nil
}
