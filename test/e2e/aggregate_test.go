package e2e

import (
	"errors"
	"flag"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/ethtool"
	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var aggregateBytes = flag.Int64("aggregate-bytes", 2<<20, "how much is transferred as aggregates through --mode tc, each way")

// largestFrame is the longest one that the lab's links carry as it is.
const largestFrame = 1514

// Aggregates of many segments go through --mode tc whole, and leave it as segments that fit:
// those that a sender left to its network card to cut, and those that the kernel has put
// together from what came in.
func TestAggregatesInTC(t *testing.T) {
	besideEachOther(t, testAggregates, lab.DirectRouting, lab.Masquerading, lab.TunnelIPIP)
}

func testAggregates(t *testing.T, method lab.Method) {
	l := mustUpAs(t, lab.Config{Name: "aggregate", Directory: labDirectory(t), Servers: 1, Method: method})
	if err := l.Kill(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	startDirectorWith(t, l, lab.Director, "--mode", "tc")
	failed := serveNoise(t, l, l.Servers()[0].Name, *aggregateBytes)
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		mustAddService(t, l, "-t", service(family, narrowPort), lvs.RoundRobin)
	}
	leaveToCard(t, l, true)
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		transferAggregates(t, l, family, "cut by nobody")
	}
	leaveToCard(t, l, false)
	putTogether(t, l)
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		transferAggregates(t, l, family, "put together")
	}
	if tooBig := verdictOf(t, l, "answer-too-big"); (tooBig != 0) != (method == lab.TunnelIPIP) {
		t.Errorf("%d packets were too big, want some in a tunnel only, whose client begins with what has no room there", tooBig)
	}
	for _, name := range []string{"drop-too-big", "bug-adjust"} {
		if n := verdictOf(t, l, name); n != 0 {
			t.Errorf("%d packets left by %s", n, name)
		}
	}
	wantNone(t, []<-chan error{failed})
}

// leaveToCard has the client leave checksums and the cutting of large segments to its network
// card, or finish them.
func leaveToCard(t *testing.T, l *lab.Lab, unfinished bool) {
	t.Helper()
	value := uint32(0)
	if unfinished {
		value = 1
	}
	set(t, l, lab.Client, "eth0", value, ethtool.TxChecksum, ethtool.TSO, ethtool.GSO)
}

// putTogether has the director's kernel put segments together. A veth leaves that to its other
// end, unless that could not have sent them uncut.
func putTogether(t *testing.T, l *lab.Lab) {
	t.Helper()
	set(t, l, lab.Switch, lab.Director, 0, ethtool.TSO)
	set(t, l, lab.Director, "eth0", 1, ethtool.GRO)
}

func set(t *testing.T, l *lab.Lab, host, device string, value uint32, features ...ethtool.Command) {
	t.Helper()
	if err := l.Within(host, func() error { return ethtool.Set(device, value, features...) }); err != nil {
		t.Fatal(err)
	}
}

// transferAggregates wants some of what is transferred to come to the director as aggregates.
func transferAggregates(t *testing.T, l *lab.Lab, family lab.Family, how string) {
	t.Helper()
	seen := watchAggregates(t, l)
	transferNoise(t, l, service(family, narrowPort), *aggregateBytes)
	aggregates := seen()
	t.Logf("IPv%d, %s: %d aggregates", family, how, aggregates)
	if aggregates == 0 {
		t.Errorf("IPv%d, %s: the director got no aggregate", family, how)
	}
}

// watchAggregates counts the frames that come in at the director as tc gets them and that are
// longer than its link carries. The function that it returns ends that and tells how many.
func watchAggregates(t *testing.T, l *lab.Lab) (seen func() int64) {
	t.Helper()
	const allProtocols = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00 // in network byte order
	var socket int
	err := l.Within(lab.Director, func() (err error) {
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, allProtocols)
		return err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("watch the director's frames: %w", err))
	}
	timeout := unix.Timeval{Usec: 50_000}
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	var ending atomic.Bool
	var count int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var head [64]byte
		for !ending.Load() {
			n, from, err := unix.Recvfrom(socket, head[:], unix.MSG_TRUNC)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype != unix.PACKET_OUTGOING && n > largestFrame {
				count++
			}
		}
	}()
	return func() int64 {
		ending.Store(true)
		<-ended
		unix.Close(socket)
		return count
	}
}
