package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var tunnelRequests = flag.Int("tunnel-requests", 200, "how many HTTP requests and datagrams go through each tunnel, and through masquerading and FullNAT, in each family")

// Real clients and servers through each tunnel, over links that are too narrow for what
// the client begins with.
func TestTunnels(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	besideEachOther(t, testTunnel, lab.TunnelIPIP, lab.TunnelGUE, lab.TunnelGRE)
}

// besideEachOther tests methods, each in a lab of its own.
func besideEachOther(t *testing.T, test func(*testing.T, lab.Method), methods ...lab.Method) {
	for _, method := range methods {
		t.Run(string(method), func(t *testing.T) {
			t.Parallel()
			test(t, method)
		})
	}
}

func testTunnel(t *testing.T, method lab.Method) {
	l := mustUpAs(t, lab.Config{Name: "tunnel", Directory: labDirectory(t), Servers: 2, Topology: lab.Routed, Method: method})
	narrow(t, l)
	failures := serveNoiseEverywhere(t, l)
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		mustServeNarrow(t, l, family)
	}
	if verdictOf(t, l, "answer-too-big") == 0 {
		t.Error("nothing was too big for the tunnel")
	}
	otherFamily(t, l, method)
	tunnelEndIsChecked(t, l)
	wantNone(t, failures)
}

// serveNoiseEverywhere has all servers send noise. The errors are of transfers that failed.
func serveNoiseEverywhere(t *testing.T, l *lab.Lab) (failures []<-chan error) {
	t.Helper()
	for _, server := range l.Servers() {
		failures = append(failures, serveNoise(t, l, server.Name, *pmtuBytes))
	}
	return failures
}

// wantNone wants no transfer to have failed.
func wantNone(t *testing.T, failures []<-chan error) {
	t.Helper()
	for _, failed := range failures {
		select {
		case err := <-failed:
			t.Error(err)
		default:
		}
	}
}

// mustServeNarrow has requests, datagrams and what is too large at first go through the
// director, all to services that it makes.
func mustServeNarrow(t *testing.T, l *lab.Lab, family lab.Family) {
	t.Helper()
	web, echo, noise := service(family, lab.HTTPPort), service(family, lab.EchoPort), service(family, narrowPort)
	mustAddService(t, l, "-t", web, lvs.RoundRobin)
	out := mustOutput(t, l, lab.Client, "ab", "-l", "-n", fmt.Sprint(*tunnelRequests), "-c", "20", "http://"+web.String()+"/")
	checkApacheBench(t, out, *tunnelRequests)

	mustAddService(t, l, "-u", echo, lvs.RoundRobin)
	mustEchoAll(t, l, echo, *tunnelRequests)

	mustAddService(t, l, "-t", noise, lvs.RoundRobin)
	for range l.Servers() {
		transferNarrow(t, l, noise)
	}
}

// mustEchoAll sends datagrams, each from a port of its own.
func mustEchoAll(t *testing.T, l *lab.Lab, address netip.AddrPort, count int) {
	t.Helper()
	answers := map[string]int{}
	for i := range count {
		conn, err := l.Dial(t.Context(), lab.Client, "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		answers[mustEcho(t, conn, fmt.Sprintf("datagram %d", i))]++
		conn.Close()
	}
	for _, server := range l.Servers() {
		if answers[server.Name] == 0 {
			t.Errorf("datagrams to %s: answered by %v", address, answers)
		}
	}
}

// otherFamily sends what comes over one IP version through a tunnel of the other.
func otherFamily(t *testing.T, l *lab.Lab, method lab.Method) {
	t.Helper()
	for inner, outer := range map[lab.Family]lab.Family{lab.IPv4: lab.IPv6, lab.IPv6: lab.IPv4} {
		web := service(inner, lab.HTTPPort)
		for _, server := range l.Servers() {
			// Not removed: a client's port may come again, and packets of connections to
			// removed real servers are dropped.
			old := netip.AddrPortFrom(server.Address(inner), lab.HTTPPort).String()
			args := append([]string{"-e", "-t", web.String(), "-r", old, "-w", "0"}, method.Options()...)
			mustOutput(t, l, lab.Director, "ipvsadm", args...)
			rip := netip.AddrPortFrom(server.Address(outer), lab.HTTPPort).String()
			args = append([]string{"-a", "-t", web.String(), "-r", rip}, method.Options()...)
			mustOutput(t, l, lab.Director, "ipvsadm", args...)
		}
		out := mustOutput(t, l, lab.Client, "ab", "-l", "-n", "20", "http://"+web.String()+"/")
		checkApacheBench(t, out, 20)
	}
}

// tunnelEndIsChecked takes the tunnel's end away from a real server, and wants it told
// and mended.
func tunnelEndIsChecked(t *testing.T, l *lab.Lab) {
	t.Helper()
	const server = "rs1"
	if out := mustOutput(t, l, server, "fairlead", "realserver", "check"); !strings.Contains(out, "tunnel end on eth0") {
		t.Errorf("the check does not look at the tunnel's end:\n%s", out)
	}
	mustOutput(t, l, server, "ip", "link", "set", "dev", "eth0", "xdp", "off")
	out, err := l.Output(t.Context(), server, "fairlead", "realserver", "check")
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 1 {
		t.Errorf("the check of a real server without its tunnel's end: %v\n%s", err, out)
	}
	mustOutput(t, l, server, "fairlead", "realserver", "up")
	mustOutput(t, l, server, "fairlead", "realserver", "check")
	mustOutput(t, l, server, "fairlead", "realserver", "down")
	if out := mustOutput(t, l, server, "ip", "link", "show", "eth0"); strings.Contains(out, "xdp") {
		t.Errorf("left behind on %s:\n%s", server, out)
	}
}
