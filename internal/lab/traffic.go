package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// requestTimeout bounds one request.
const requestTimeout = 10 * time.Second

// An Answer is what came back for one request, with the two ends of the
// connection as either side's kernel knows them.
type Answer struct {
	Server          string // the name that it gave
	Client          netip.AddrPort
	ClientAtServer  netip.AddrPort
	VirtualAtServer netip.AddrPort
}

// Dial connects from a host of the lab. The address is not looked up.
func (l *Lab) Dial(ctx context.Context, host, network string, address netip.AddrPort) (net.Conn, error) {
	return l.dial(ctx, host, network, address, net.Dialer{})
}

func (l *Lab) dial(ctx context.Context, host, network string, address netip.AddrPort, dialer net.Dialer) (net.Conn, error) {
	var conn net.Conn
	err := l.within(host, func() (err error) {
		conn, err = dialer.DialContext(ctx, network, address.String())
		return err
	})
	return conn, err
}

// Get sends one HTTP request from the client over a new TCP connection.
func (l *Lab) Get(ctx context.Context, service netip.AddrPort) (Answer, error) {
	return l.get(ctx, service, net.Dialer{})
}

func (l *Lab) get(ctx context.Context, service netip.AddrPort, dialer net.Dialer) (Answer, error) {
	return l.exchange(ctx, service, dialer, http.MethodGet, nil)
}

// post sends a request of uploadSize.
func (l *Lab) post(ctx context.Context, service netip.AddrPort, dialer net.Dialer) (Answer, error) {
	return l.exchange(ctx, service, dialer, http.MethodPost, make([]byte, uploadSize))
}

func (l *Lab) exchange(ctx context.Context, service netip.AddrPort, dialer net.Dialer, method string, body []byte) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := l.dial(ctx, Client, "tcp", service, dialer)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return Answer{}, err
	}
	return request(ctx, conn, service, method, body)
}

func request(ctx context.Context, conn net.Conn, service netip.AddrPort, method string, body []byte) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+service.String()+"/", bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	r.Close = true
	r.Header.Set("User-Agent", "fairlead-lab")
	if err := r.Write(conn); err != nil {
		return Answer{}, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 256))
	if err != nil {
		return Answer{}, err
	}
	if response.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("%s %s: %s", strings.ToLower(method), r.URL, response.Status)
	}
	var errs [3]error
	var answer Answer
	answer.Server = strings.TrimSpace(string(text))
	answer.Client, errs[0] = netip.ParseAddrPort(conn.LocalAddr().String())
	answer.ClientAtServer, errs[1] = netip.ParseAddrPort(response.Header.Get(clientHeader))
	answer.VirtualAtServer, errs[2] = netip.ParseAddrPort(response.Header.Get(virtualHeader))
	return answer, errors.Join(errs[:]...)
}

// sendAll sends requests one after the other, so that what a scheduler does with
// them is not a matter of luck. An unanswered request is counted, and the first
// one's cause kept.
func (l *Lab) sendAll(ctx context.Context, service netip.AddrPort, count int, t *traffic, progress func(string)) error {
	t.sent = count
	ports := portWalk{client: l.hosts[0]}
	told := time.Now()
	for i := range count {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		answer, err := l.get(ctx, service, ports.next(service))
		for tries := 1; errors.Is(err, unix.EADDRINUSE) && tries < clientPorts; tries++ {
			answer, err = l.get(ctx, service, ports.next(service))
		}
		t.add(answer, err)
		if time.Since(told) > 2*time.Second {
			told = time.Now()
			progress(fmt.Sprintf("sent %d of %d requests", i+1, count))
		}
	}
	return nil
}

// The ports that a client's requests come from.
const (
	firstClientPort = 1024
	clientPorts     = 1<<16 - firstClientPort
)

// A portWalk takes the client's ports in turn. The kernel's own choice comes back
// to a port soon, and then a director takes the new connection for the old one
// that it still remembers.
type portWalk struct {
	client Host
	taken  int
}

func (w *portWalk) next(service netip.AddrPort) net.Dialer {
	port := uint16(firstClientPort + w.taken%clientPorts)
	w.taken++
	return net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.client.Address(familyOf(service.Addr())), port))}
}

// A traffic is what became of a number of requests.
type traffic struct {
	sent, answered int
	byServer       map[string]int
	// firstFailure says why the first request that failed did.
	firstFailure error
	// misled counts answers of servers that did not see the client's own address
	// and port, or with FullNAT a local address, or not the VIP or what it becomes;
	// firstMisled is the first of them.
	misled      int
	firstMisled Answer
	service     netip.AddrPort
	fullNAT     bool
	reached     map[string]netip.AddrPort // what the service's address becomes, by server
	clients     map[netip.AddrPort]bool   // the addresses and ports of all requests
}

// newTraffic returns no requests yet.
func (l *Lab) newTraffic(service netip.AddrPort) traffic {
	t := traffic{
		service: service, fullNAT: l.state.Method == FullNAT, byServer: map[string]int{},
		reached: map[string]netip.AddrPort{}, clients: map[netip.AddrPort]bool{},
	}
	for _, server := range l.Servers() {
		t.byServer[server.Name] = 0
		t.reached[server.Name] = service
		if l.state.Method.translates() {
			own := server.Address(familyOf(service.Addr()))
			t.reached[server.Name] = netip.AddrPortFrom(own, l.state.Method.ServerPort(service.Port()))
		}
	}
	return t
}

func familyOf(a netip.Addr) Family {
	if a.Is6() {
		return IPv6
	}
	return IPv4
}

func (t *traffic) add(answer Answer, err error) {
	if err != nil {
		if t.firstFailure == nil {
			t.firstFailure = err
		}
		return
	}
	t.answered++
	t.clients[answer.Client] = true
	t.byServer[answer.Server]++
	if !t.isSeenRight(answer) || answer.VirtualAtServer != t.reached[answer.Server] {
		if t.misled == 0 {
			t.firstMisled = answer
		}
		t.misled++
	}
}

func (t *traffic) isSeenRight(answer Answer) bool {
	if t.fullNAT {
		return answer.ClientAtServer.Addr() == familyOf(answer.Client.Addr()).LocalAddress()
	}
	return answer.ClientAtServer == answer.Client
}
