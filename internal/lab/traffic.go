package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
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
	var conn net.Conn
	err := l.within(host, func() (err error) {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address.String())
		return err
	})
	return conn, err
}

// Get sends one HTTP request from the client over a new TCP connection.
func (l *Lab) Get(ctx context.Context, service netip.AddrPort) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := l.Dial(ctx, Client, "tcp", service)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return Answer{}, err
	}
	return request(ctx, conn, service)
}

func request(ctx context.Context, conn net.Conn, service netip.AddrPort) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+service.String()+"/", nil)
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
	body, err := io.ReadAll(io.LimitReader(response.Body, 256))
	if err != nil {
		return Answer{}, err
	}
	if response.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("get %s: %s", r.URL, response.Status)
	}
	var errs [3]error
	var answer Answer
	answer.Server = strings.TrimSpace(string(body))
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
	told := time.Now()
	for i := range count {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		answer, err := l.Get(ctx, service)
		t.add(answer, err)
		if time.Since(told) > 2*time.Second {
			told = time.Now()
			progress(fmt.Sprintf("sent %d of %d requests", i+1, count))
		}
	}
	return nil
}

// A traffic is what became of a number of requests.
type traffic struct {
	sent, answered int
	byServer       map[string]int
	// firstFailure says why the first request that failed did.
	firstFailure error
	// misled counts answers of servers that did not see the client's own address
	// and port, or not the VIP; firstMisled is the first of them.
	misled      int
	firstMisled Answer
	service     netip.AddrPort
}

func (t *traffic) add(answer Answer, err error) {
	if err != nil {
		if t.firstFailure == nil {
			t.firstFailure = err
		}
		return
	}
	t.answered++
	t.byServer[answer.Server]++
	if answer.ClientAtServer != answer.Client || answer.VirtualAtServer != t.service {
		if t.misled == 0 {
			t.firstMisled = answer
		}
		t.misled++
	}
}
