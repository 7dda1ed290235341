package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var pmtuBytes = flag.Int64("pmtu-bytes", 8<<20, "how much is transferred over the narrow link, each way")

const (
	narrowMTU  = 1400
	narrowPort = 8080
	// stalled is how long a transfer may rest: a segment that is lost without a word
	// comes again after less, and is lost again.
	stalled = 3 * time.Second
)

// narrow makes the way from the router to its clients, and the director's way to the
// real servers, one of narrowMTU. The cables are as wide as before: only who sends
// packets on knows.
func narrow(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, way := range []struct{ host, route string }{
		{lab.Router, "-4 route change 198.51.100.0/24 dev eth1 src 198.51.100.2"},
		{lab.Router, "-6 route change 2001:db8:1::/64 dev eth1 metric 256"},
		{lab.Director, "-4 route change 192.0.2.0/24 dev eth0 src 192.0.2.10"},
		{lab.Director, "-6 route change 2001:db8::/64 dev eth0 metric 256"},
	} {
		args := append(strings.Fields(way.route), "mtu", "lock", fmt.Sprint(narrowMTU))
		mustOutput(t, l, way.host, "ip", args...)
	}
}

// noise is a stream that is not the same anywhere, and a hash of all that was read.
type noise struct {
	source io.Reader
	hash.Hash
}

func newNoise(length int64) noise {
	sum := sha256.New()
	return noise{io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), length), sum), sum}
}

// serveNoise has a server send noise, and then read as much from whoever connects: its
// hash, and that much noise. The error is of the first transfer that failed.
func serveNoise(t *testing.T, l *lab.Lab, server string, length int64) <-chan error {
	t.Helper()
	failed := make(chan error, 1)
	serve(t, l, server, netip.AddrPortFrom(netip.Addr{}, narrowPort), func(conn net.Conn) {
		if err := exchangeNoise(conn, length, false); err != nil {
			select {
			case failed <- fmt.Errorf("%s: %w", server, err):
			default:
			}
		}
	})
	return failed
}

// exchangeNoise sends and receives so much: the client receives first.
func exchangeNoise(conn net.Conn, length int64, isClient bool) error {
	send := func() error {
		n := newNoise(length)
		if err := copyAlive(conn, n.source, conn); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		_, err := conn.Write(n.Sum(nil))
		return err
	}
	receive := func() error {
		sum := sha256.New()
		if err := copyAlive(sum, io.LimitReader(conn, length), conn); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		told := make([]byte, sha256.Size)
		if _, err := io.ReadFull(conn, told); err != nil {
			return fmt.Errorf("receive the hash: %w", err)
		}
		if string(told) != string(sum.Sum(nil)) {
			return errors.New("something else arrived than was sent")
		}
		return nil
	}
	if isClient {
		return errors.Join(receive(), send())
	}
	return errors.Join(send(), receive())
}

// copyAlive copies all, and fails if the connection rests for too long.
func copyAlive(to io.Writer, from io.Reader, conn net.Conn) error {
	buffer := make([]byte, 128<<10)
	for {
		if err := conn.SetDeadline(time.Now().Add(stalled)); err != nil {
			return err
		}
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// verdictOf returns how often packets left the director by a verdict.
func verdictOf(t *testing.T, l *lab.Lab, name string) uint64 {
	t.Helper()
	var status struct {
		Verdicts []struct {
			Name    string
			Packets uint64
		}
	}
	if err := json.Unmarshal([]byte(mustOutput(t, l, lab.Director, "fairlead", "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	for _, v := range status.Verdicts {
		if v.Name == name {
			return v.Packets
		}
	}
	return 0
}

// Path MTU discovery works both ways: the router's errors to the VIP reach the real
// server that sent what was too large, and the director tells clients what is too
// large for its own way. A transfer never stalls.
func TestPathMTU(t *testing.T) {
	l := mustUpAs(t, lab.Config{Name: "pmtu", Directory: labDirectory(t), Servers: 2, Topology: lab.Routed})
	narrow(t, l)
	var failures []<-chan error
	for _, server := range l.Servers() {
		failures = append(failures, serveNoise(t, l, server.Name, *pmtuBytes))
	}
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			address := service(family, narrowPort)
			mustAddService(t, l, "-t", address, lvs.RoundRobin)
			for range l.Servers() {
				transferNarrow(t, l, address)
			}
			for _, name := range []string{"forward-icmp", "answer-too-big"} {
				if verdictOf(t, l, name) == 0 {
					t.Errorf("no packet left by %s: nothing was narrow", name)
				}
			}
		})
	}
	for _, failed := range failures {
		select {
		case err := <-failed:
			t.Error(err)
		default:
		}
	}
}

func transferNarrow(t *testing.T, l *lab.Lab, address netip.AddrPort) {
	t.Helper()
	transferNoise(t, l, address, *pmtuBytes)
}

// transferNoise has the client receive so much from who serves noise, and then send it.
func transferNoise(t *testing.T, l *lab.Lab, address netip.AddrPort, length int64) {
	t.Helper()
	conn, err := l.Dial(t.Context(), lab.Client, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	if err := exchangeNoise(conn, length, true); err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	took := time.Since(start)
	t.Logf("%d bytes each way in %s: %.0f Mbit/s", length, took.Round(time.Millisecond),
		float64(length)*2*8/1e6/took.Seconds())
}
