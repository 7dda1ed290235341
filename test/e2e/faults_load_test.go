package e2e

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// The proof is made with 2000 requests a second: -requests-a-second 2000.
var requestsASecond = flag.Int("requests-a-second", 200, "the `load` beside which faults are found")

const (
	askedPort   = 8080 // what clients ask
	checkedPort = 8443 // what checks ask, by TLS
)

// A faultyServer is a real server that can be told to go wrong.
type faultyServer struct {
	t              *testing.T
	lab            *lab.Lab
	host           lab.Host
	asked, checked moody
	stops          []func()
}

// start has it serve clients and checks.
func (f *faultyServer) start() {
	f.t.Helper()
	named := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.ServeHTTP(w, r)
		io.WriteString(w, f.host.Name)
	})
	secured := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return f.checked.certificate.Load(), nil
	}}
	f.stops = []func(){
		serveHTTP(f.t, f.lab, f.host.Name, askedPort, named, nil),
		serveHTTP(f.t, f.lab, f.host.Name, checkedPort, &f.checked, secured),
	}
}

func (f *faultyServer) stop() {
	for _, stop := range f.stops {
		stop()
	}
}

func (f *faultyServer) run(t *testing.T, args ...string) {
	t.Helper()
	mustOutput(t, f.lab, f.host.Name, args[0], args[1:]...)
}

// A fault is one that a real server has while requests come.
type fault struct {
	name       string
	causes     []string
	make, mend func(*testing.T)
	// harmless: it is no fault to clients, none of whom may fail.
	harmless bool
	// back is within what the server is up again, beyond what a check takes.
	back time.Duration
}

// Under a steady load each fault of a real server is found in time, with its own cause;
// then no client comes to it any more, and beside its own connections none fails.
func TestFaultsUnderLoad(t *testing.T) {
	const name = "www.example.com"
	l := mustUpAs(t, lab.Config{Name: "load", Directory: labDirectory(t), Servers: 3})
	good, goodPEM := issue(t, name, time.Now().Add(time.Hour))
	old, oldPEM := issue(t, name, time.Now().Add(-time.Hour))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, slices.Concat(goodPEM, oldPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	var faulty *faultyServer
	for _, host := range l.Servers() {
		server := &faultyServer{t: t, lab: l, host: host}
		server.checked.certificate.Store(good)
		server.start()
		if faulty == nil {
			faulty = server
		}
	}
	at, rip := service(lab.IPv4, askedPort), faulty.host.Address(lab.IPv4)
	// A server that is taken out, and not only without weight, loses what is open with it.
	apply(t, l, configurationOf(at, "https", l.Servers(), lab.IPv4,
		fmt.Sprintf(", port: %d, http: {host: %s}, tls: {ca: %s}", checkedPort, name, ca))+"    inhibit: true\n")
	for _, host := range l.Servers() {
		becomes(t, l, at, host.Address(lab.IPv4), detection, lvs.HealthUp)
	}
	load := newSteadyLoad(t, l, at, *requestsASecond)

	vip := at.Addr().String()
	for _, f := range []fault{
		{name: "server stopped", causes: []string{"process-down"}, make: func(*testing.T) { faulty.stop() }, mend: func(*testing.T) { faulty.start() }},
		{
			name: "VIP removed", causes: []string{"vip-path-broken"},
			make: func(t *testing.T) { faulty.run(t, "ip", "address", "del", vip+"/32", "dev", "lo") },
			mend: func(t *testing.T) { faulty.run(t, "fairlead", "realserver", "up", "--vip", vip) },
		},
		{
			name: "ARP broken", causes: []string{"no-next-hop", "host-down"},
			make: func(t *testing.T) {
				faulty.run(t, "ip", "link", "set", "dev", "eth0", "arp", "off")
				forgetNeighbour(t, l, rip)
			},
			mend: func(t *testing.T) { faulty.run(t, "ip", "link", "set", "dev", "eth0", "arp", "on") },
			back: 20 * time.Second,
		},
		{
			name: "certificate expired", causes: []string{"certificate-expired"}, harmless: true,
			make: func(*testing.T) { faulty.checked.certificate.Store(old) },
			mend: func(*testing.T) { faulty.checked.certificate.Store(good) },
		},
		{
			name: "server slow", causes: []string{"slow"},
			make: func(*testing.T) { faulty.asked.slow.Store(true); faulty.checked.slow.Store(true) },
			mend: func(*testing.T) { faulty.asked.slow.Store(false); faulty.checked.slow.Store(false) },
		},
		{
			name: "server flapping", causes: []string{"flapping"},
			make: func(*testing.T) { faulty.asked.turns.Store(true); faulty.checked.turns.Store(true) },
			mend: func(*testing.T) { faulty.asked.turns.Store(false); faulty.checked.turns.Store(false) },
			back: 20 * time.Second,
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			begun := time.Now()
			f.make(t)
			becomes(t, l, at, rip, detection, lvs.HealthDown, f.causes...)
			found := time.Now()
			load.wantLost(t, begun, found, len(l.Servers()), f.harmless)
			mended := load.awaitASecond(t, found)
			f.mend(t)
			becomes(t, l, at, rip, detection+f.back, lvs.HealthUp)
			load.wantMoved(t, found, mended, time.Now(), faulty.host.Name)
		})
	}
}

// wantLost wants no more requests of a time to have failed than one of so many servers has
// its share of, or none.
func (s *steadyLoad) wantLost(t *testing.T, from, to time.Time, servers int, none bool) {
	t.Helper()
	requests := s.between(t, from, to)
	failed := slices.DeleteFunc(slices.Clone(requests), func(r request) bool { return r.err == nil })
	t.Logf("%d of %d requests failed before the fault was found", len(failed), len(requests))
	if none {
		for _, r := range failed {
			t.Errorf("a request %s after the fault was made: %v", r.begun.Sub(from), r.err)
		}
	}
	const begunTogether = 2 // whose turn it was is not said by who began first
	if len(failed) > len(requests)/servers+begunTogether {
		t.Errorf("more failed than one of %d servers can have had", servers)
	}
}

// awaitASecond waits until a second has passed with all of its requests answered, and
// returns when that is.
func (s *steadyLoad) awaitASecond(t *testing.T, from time.Time) time.Time {
	t.Helper()
	if requests := s.between(t, from, from.Add(time.Second)); len(requests) < *requestsASecond/2 {
		t.Errorf("only %d requests in a second", len(requests))
	}
	return time.Now()
}

// wantMoved wants no request that was begun after the fault was found to fail, and none to
// come to the server before it was mended.
func (s *steadyLoad) wantMoved(t *testing.T, found, mended, up time.Time, server string) {
	t.Helper()
	requests := s.between(t, found, up)
	for _, r := range requests {
		if r.err != nil || r.answer == server && r.begun.Before(mended) {
			t.Errorf("a request %s after the fault was found: answer of %q, %v", r.begun.Sub(found), r.answer, r.err)
			return
		}
	}
	t.Logf("%d requests after it was found, none failed", len(requests))
}
