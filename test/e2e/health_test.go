package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

const (
	checkInterval = 600 * time.Millisecond
	checkFall     = 2
	// detection is within what a fault is found.
	detection = checkInterval*checkFall + time.Second
)

// apply makes a configuration the director's.
func apply(t *testing.T, l *lab.Lab, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fairlead.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Log(mustOutput(t, l, lab.Director, "fairlead", "apply", "-f", file))
}

// healthOf returns what the director says of a server of a service.
func healthOf(t *testing.T, l *lab.Lab, service netip.AddrPort, server netip.Addr) lvs.HealthStatus {
	t.Helper()
	for _, s := range mustServices(t, l) {
		for _, r := range s.All() {
			if s.Address == service.Addr() && s.Port == service.Port() && r.Address == server {
				return r.Health
			}
		}
	}
	t.Fatalf("no server %s of %s", server, service)
	return lvs.HealthStatus{}
}

// becomes waits for a state and one of some causes, and returns how long it took.
func becomes(t *testing.T, l *lab.Lab, service netip.AddrPort, server netip.Addr, within time.Duration, state lvs.HealthState, causes ...string) time.Duration {
	t.Helper()
	var last lvs.HealthStatus
	defer func() {
		if t.Failed() {
			t.Logf("last: %+v", last)
		}
	}()
	took := eventually(t, within+20*time.Second, fmt.Sprintf("%s of %s is %s, %v", server, service, state, causes), func() bool {
		last = healthOf(t, l, service, server)
		if last.State != state {
			return false
		}
		for _, cause := range causes {
			if last.Cause == cause {
				return true
			}
		}
		return len(causes) == 0
	})
	t.Logf("%s of %s: %s after %s: %s: %s", server, service, state, took.Round(time.Millisecond), last.Cause, last.Detail)
	if took > within {
		t.Errorf("%s of %s is %s after %s, want %s", server, service, state, took, within)
	}
	return took
}

// movedAway sends requests, none of which may fail or come to the server.
func movedAway(t *testing.T, l *lab.Lab, service netip.AddrPort, name string) {
	t.Helper()
	for range 20 {
		answer, err := l.Get(t.Context(), service)
		if err != nil || answer.Server == name {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
}

// Each fault of a real server is found by its checks of the VIP, with its own cause and
// in time, and clients are sent elsewhere; what is mended comes back.
func TestChecksFindFaults(t *testing.T) {
	t.Parallel()
	l := mustUp(t, labDirectory(t), "checks")
	server := l.Servers()[0]
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		at, rip := service(family, lab.HTTPPort), server.Address(family)
		apply(t, l, configurationOf(at, "http", l.Servers(), family, ""))
		becomes(t, l, at, rip, detection, lvs.HealthUp)

		if err := l.Kill(t.Context(), server.Name); err != nil {
			t.Fatal(err)
		}
		becomes(t, l, at, rip, detection, lvs.HealthDown, "process-down")
		movedAway(t, l, at, server.Name)
		if err := l.Start(t.Context(), server.Name); err != nil {
			t.Fatal(err)
		}
		becomes(t, l, at, rip, detection, lvs.HealthUp)

		device := family.VIP().String() + "/32"
		if family == lab.IPv6 {
			device = family.VIP().String() + "/128"
		}
		mustOutput(t, l, server.Name, "ip", "address", "del", device, "dev", "lo")
		becomes(t, l, at, rip, detection, lvs.HealthDown, "vip-path-broken")
		movedAway(t, l, at, server.Name)
		mustOutput(t, l, server.Name, "fairlead", "realserver", "up", "--vip", family.VIP().String())
		becomes(t, l, at, rip, detection, lvs.HealthUp)

		mustOutput(t, l, server.Name, "ip", "link", "set", "dev", "eth0", "arp", "off")
		forgetNeighbour(t, l, rip)
		becomes(t, l, at, rip, detection, lvs.HealthDown, "no-next-hop", "host-down")
		movedAway(t, l, at, server.Name)
		becomes(t, l, at, rip, 20*time.Second, lvs.HealthDown, "no-next-hop")
		mustOutput(t, l, server.Name, "ip", "link", "set", "dev", "eth0", "arp", "on")
		becomes(t, l, at, rip, 20*time.Second, lvs.HealthUp)
	}
}

// forgetNeighbour has the director ask again for the MAC address of a server.
func forgetNeighbour(t *testing.T, l *lab.Lab, server netip.Addr) {
	t.Helper()
	// To flush fails where an entry changes meanwhile.
	eventually(t, 10*time.Second, "the director has forgotten the MAC address of "+server.String(), func() bool {
		_, err := l.Output(t.Context(), lab.Director, "ip", "neighbour", "flush", "to", server.String(), "dev", "eth0")
		return err == nil
	})
}

// configurationOf returns a service with checks of one type; more belongs to the check.
func configurationOf(at netip.AddrPort, kind string, servers []lab.Host, family lab.Family, more string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "checks:\n  it: {type: %s, interval: %s, timeout: %s, rise: 1, fall: %d%s}\n", kind, checkInterval, checkInterval/2, checkFall, more)
	fmt.Fprintf(&text, "services:\n  - address: \"tcp:%s\"\n    scheduler: rr\n    checks: [it]\n    servers:\n", at)
	for _, s := range servers {
		fmt.Fprintf(&text, "      - \"%s\"\n", s.Address(family))
	}
	return text.String()
}

// A moody server does what it is told to.
type moody struct {
	certificate atomic.Pointer[tls.Certificate]
	slow        atomic.Bool
	turns       atomic.Bool
	count       atomic.Int64
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.slow.Load() {
		<-r.Context().Done()
		return
	}
	if m.turns.Load() && m.count.Add(1)%2 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// serve answers HTTPS on a port of a host of the lab.
func (m *moody) serve(t *testing.T, l *lab.Lab, host string, port uint16) {
	t.Helper()
	serveHTTP(t, l, host, port, m, &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.certificate.Load(), nil },
	})
}

// serveHTTP answers on a port of a host of the lab, by TLS unless secured is nil, until
// stop or the end of the test.
func serveHTTP(t *testing.T, l *lab.Lab, host string, port uint16, handler http.Handler, secured *tls.Config) (stop func()) {
	t.Helper()
	var listener net.Listener
	err := l.Within(host, func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: secured}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if secured == nil {
			_ = server.Serve(listener)
		} else {
			_ = server.ServeTLS(listener, "", "")
		}
	}()
	stop = func() {
		server.Close()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// issue makes a certificate that signs itself.
func issue(t *testing.T, name string, until time.Time) (*tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// What a server answers is looked at, too: its certificate, how fast it is, and whether
// it can make up its mind. Who is told hears of it.
func TestChecksLookAtAnswers(t *testing.T) {
	t.Parallel()
	const name, port = "www.example.com", 443
	l := mustUp(t, labDirectory(t), "answers")
	good, goodPEM := issue(t, name, time.Now().Add(time.Hour))
	old, oldPEM := issue(t, name, time.Now().Add(-time.Hour))
	directory := t.TempDir()
	ca, told := filepath.Join(directory, "ca.pem"), filepath.Join(directory, "told")
	script := filepath.Join(directory, "tell")
	for file, text := range map[string]string{
		ca: string(goodPEM) + string(oldPEM), script: "#!/bin/sh\necho \"$FAIRLEAD_TRANSITION $FAIRLEAD_CAUSE\" >> " + told + "\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	servers := map[string]*moody{}
	for _, host := range l.Servers() {
		servers[host.Name] = &moody{}
		servers[host.Name].certificate.Store(good)
		servers[host.Name].serve(t, l, host.Name, port)
	}
	at, faulty := service(lab.IPv4, port), l.Servers()[0]
	rip, server := faulty.Address(lab.IPv4), servers[faulty.Name]
	more := fmt.Sprintf(", http: {host: %s}, tls: {ca: %s}", name, ca)
	apply(t, l, configurationOf(at, "https", l.Servers(), lab.IPv4, more)+
		"    notify: [{script: {command: "+script+"}}]\n    quorum: 2\n")
	becomes(t, l, at, rip, detection, lvs.HealthUp)

	server.certificate.Store(old)
	becomes(t, l, at, rip, detection, lvs.HealthDown, "certificate-expired")
	server.certificate.Store(good)
	becomes(t, l, at, rip, detection, lvs.HealthUp)
	server.slow.Store(true)
	becomes(t, l, at, rip, detection, lvs.HealthDown, "slow")
	server.slow.Store(false)
	becomes(t, l, at, rip, detection, lvs.HealthUp)
	server.turns.Store(true)
	becomes(t, l, at, rip, detection, lvs.HealthDown, "flapping")
	server.turns.Store(false)

	want := "down certificate-expired\nquorum-down \nup \nquorum-up \ndown slow\nquorum-down \nup \nquorum-up \ndown flapping\nquorum-down \n"
	eventually(t, 10*time.Second, "all is told", func() bool {
		text, _ := os.ReadFile(told)
		return string(text) == want
	})

	// A director that comes after one that was killed keeps out what is out.
	if err := l.Kill(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	if status := healthOf(t, l, at, rip); status.State == lvs.HealthUnknown {
		t.Errorf("after a restart: %+v", status)
	}
	becomes(t, l, at, rip, detection+10*time.Second, lvs.HealthUp)
}
