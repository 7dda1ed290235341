package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// writeSysctl works in the network namespace of the calling thread.
func writeSysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
}

// The director is killed and started again, over and over, while requests come
// in: none fails. What it was told and the connection that was open before are
// there after.
func TestForwardingSurvivesTheDirector(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	l := mustUp(t, labDirectory(t), "crash")
	address := service(lab.IPv4, lab.HTTPPort)
	mustAddService(t, l, "-t", address, lvs.WeightedLeastConnection)
	saved := mustOutput(t, l, lab.Director, "ipvsadm", "-Sn")

	conn, err := l.Dial(t.Context(), lab.Client, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := mustAsk(t, conn)

	load := newLoad(t, l, address)
	for range *crashes {
		if err := l.Kill(t.Context(), lab.Director); err != nil {
			t.Fatal(err)
		}
		load.awaitProgress() // without a director
		if err := l.Start(t.Context(), lab.Director); err != nil {
			t.Fatal(err)
		}
		load.awaitProgress()
	}
	load.finish()

	if diff := cmp.Diff(saved, mustOutput(t, l, lab.Director, "ipvsadm", "-Sn")); diff != "" {
		t.Errorf("the services after %d crashes (-before +after):\n%s", *crashes, diff)
	}
	if after := mustAsk(t, conn); after != before {
		t.Errorf("the open connection was with %s, and is with %s", before, after)
	}
	entry := fmt.Sprintf("%s %s", conn.LocalAddr(), address)
	connections := mustOutput(t, l, lab.Director, "ipvsadm", "-Lcn")
	for line := range strings.Lines(connections) {
		fields := strings.Fields(line)
		if len(fields) == 6 && fields[3]+" "+fields[4] == entry && fields[2] == "ESTABLISHED" {
			return
		}
	}
	t.Errorf("no established connection %s in the table", entry)
}

// mustAsk sends a request over an open connection, which stays open, and returns
// the server's name.
func mustAsk(t *testing.T, conn net.Conn) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+conn.RemoteAddr().String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(body.String())
}

// loadRequests is how many requests each run of ab sends.
const loadRequests = 10000

// A load sends requests by ab, one run after the other, until it is finished.
type load struct {
	t       *testing.T
	lab     *lab.Lab
	address netip.AddrPort
	stop    context.CancelFunc
	runs    sync.WaitGroup
	outputs []string
	err     error
}

func newLoad(t *testing.T, l *lab.Lab, address netip.AddrPort) *load {
	ctx, stop := context.WithCancel(t.Context())
	load := &load{t: t, lab: l, address: address, stop: stop}
	t.Cleanup(stop)
	load.runs.Go(func() {
		for ctx.Err() == nil && load.err == nil {
			var out string
			out, load.err = l.Output(t.Context(), lab.Client, "ab", "-q", "-l", "-n", fmt.Sprint(loadRequests), "-c", "50", "http://"+address.String()+"/")
			load.outputs = append(load.outputs, out)
		}
	})
	return load
}

// awaitProgress waits until the servers have got a thousand more connections.
func (ld *load) awaitProgress() {
	ld.t.Helper()
	start := ld.accepted()
	eventually(ld.t, 30*time.Second, "a thousand more connections", func() bool { return ld.accepted() >= start+1000 })
}

// accepted returns how many connections the real servers have accepted.
func (ld *load) accepted() int {
	ld.t.Helper()
	return ld.snmp(passiveOpens)
}

// snmp returns the sum of a counter of the kernels of the real servers: nothing that a
// director must be asked for.
func (ld *load) snmp(counter *regexp.Regexp) int {
	ld.t.Helper()
	total := 0
	for _, server := range ld.lab.Servers() {
		var text []byte
		err := ld.lab.Within(server.Name, func() (err error) {
			text, err = os.ReadFile("/proc/thread-self/net/snmp")
			return err
		})
		if err != nil {
			ld.t.Fatal(err)
		}
		match := counter.FindSubmatch(text)
		if match == nil {
			ld.t.Fatalf("no counters of TCP:\n%s", text)
		}
		n, err := strconv.Atoi(string(match[1]))
		if err != nil {
			ld.t.Fatal(err)
		}
		total += n
	}
	return total
}

// The sixth and the tenth counter of TCP (RFC 1213 tcpPassiveOpens, tcpInSegs).
var (
	passiveOpens = regexp.MustCompile(`(?m)^Tcp: (?:-?\d+ ){5}(\d+)`)
	inSegs       = regexp.MustCompile(`(?m)^Tcp: (?:-?\d+ ){9}(\d+)`)
)

// finish waits for the last run, and returns how many requests were answered: all that
// were sent.
func (ld *load) finish() int {
	ld.t.Helper()
	ld.stop()
	ld.runs.Wait()
	if ld.err != nil {
		ld.t.Error(ld.err)
	}
	for _, out := range ld.outputs {
		checkApacheBench(ld.t, out, loadRequests)
	}
	return len(ld.outputs) * loadRequests
}
