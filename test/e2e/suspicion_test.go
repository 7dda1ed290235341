package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// With a minute between checks, what clients' packets say has a server checked at once:
// SYNs that come again for one that drops them, RSTs of one that refuses them.
func TestClientsBringChecksForward(t *testing.T) {
	t.Parallel()
	const within = 15 * time.Second
	l := mustUp(t, labDirectory(t), "suspicion")
	server := l.Servers()[0]

	at, rip := service(lab.IPv4, lab.HTTPPort), server.Address(lab.IPv4)
	apply(t, l, seldomChecked(at, l.Servers(), lab.IPv4, "dr"))
	becomes(t, l, at, rip, within, lvs.HealthUp)
	mustOutput(t, l, server.Name, "ip", "address", "del", at.Addr().String()+"/32", "dev", "lo")
	stop := knock(t, l, at)
	becomes(t, l, at, rip, within, lvs.HealthDown, "vip-path-broken")
	stop()
	wantSuspicion(t, l, at, rip)

	at, rip = service(lab.IPv6, lab.HTTPPort), server.Address(lab.IPv6)
	client, director := hostOf(t, l, lab.Client).Address(lab.IPv6), hostOf(t, l, lab.Director).Address(lab.IPv6)
	for _, s := range l.Servers() { // the way back of masqueraded connections
		mustOutput(t, l, s.Name, "ip", "route", "replace", client.String(), "via", director.String())
	}
	apply(t, l, seldomChecked(at, l.Servers(), lab.IPv6, "masquerade"))
	becomes(t, l, at, rip, within, lvs.HealthUp)
	if err := l.Kill(t.Context(), server.Name); err != nil {
		t.Fatal(err)
	}
	stop = knock(t, l, at)
	becomes(t, l, at, rip, within, lvs.HealthDown, "process-down")
	stop()
	wantSuspicion(t, l, at, rip)
}

func hostOf(t *testing.T, l *lab.Lab, name string) lab.Host {
	t.Helper()
	for _, host := range l.Hosts() {
		if host.Name == name {
			return host
		}
	}
	t.Fatalf("no host %s in the lab", name)
	return lab.Host{}
}

// seldomChecked is a service whose servers are checked once a minute.
func seldomChecked(at netip.AddrPort, servers []lab.Host, family lab.Family, method string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "checks:\n  it: {type: tcp, interval: 1m, timeout: 1s, rise: 1, fall: 2}\n"+
		"services:\n  - address: \"tcp:%s\"\n    scheduler: rr\n    method: %s\n    checks: [it]\n    servers:\n", at, method)
	for _, s := range servers {
		fmt.Fprintf(&text, "      - \"%s\"\n", s.Address(family))
	}
	return text.String()
}

// knock has clients come to a service until stop; some of them fail.
func knock(t *testing.T, l *lab.Lab, at netip.AddrPort) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				patience, done := context.WithTimeout(ctx, 4*time.Second)
				if conn, err := l.Dial(patience, lab.Client, "tcp", at); err == nil {
					conn.Close()
				}
				select { // they are no flood
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
				done()
			}
		})
	}
	return func() {
		cancel()
		clients.Wait()
	}
}

// wantSuspicion wants the director to tell of a suspicion, and of nobody else's.
func wantSuspicion(t *testing.T, l *lab.Lab, at netip.AddrPort, suspect netip.Addr) {
	t.Helper()
	for _, s := range mustServices(t, l) {
		for _, r := range s.All() {
			if s.Address != at.Addr() {
				continue
			}
			if suspected := r.Health.Suspicion != "" && !r.Health.Suspected.IsZero(); suspected != (r.Address == suspect) {
				t.Errorf("%s: suspected at %s: %q", r.RealServerKey, r.Health.Suspected, r.Health.Suspicion)
			}
			t.Logf("%s: %s", r.RealServerKey, r.Health.Suspicion)
		}
	}
	if out := mustOutput(t, l, lab.Director, "fairlead", "status"); !strings.Contains(out, "checked early") {
		t.Errorf("status:\n%s", out)
	}
}
