package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lab"
)

// A service whose real servers are reached by direct routing, masquerading and a tunnel, and
// one of which is the director itself, serves each client by the one that it got.
func TestMixedMethods(t *testing.T) {
	l := mustUpAs(t, lab.Config{
		Name: "mixed", Directory: labDirectory(t), Servers: 3, Topology: lab.Routed, Method: lab.TunnelIPIP,
	})
	const direct, masqueraded, tunnelled = "rs1", "rs2", "rs3"
	director, servers := l.Hosts()[1], l.Servers()
	var own []string // of the masqueraded one
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		mustOutput(t, l, masqueraded, "ip", fmt.Sprintf("-%d", family), "route", "replace", "default", "via", director.Address(family).String())
		own = append(own, fmt.Sprintf("udp/%s", serverAddress(servers[1], family, lab.EchoPort)))
	}
	serveOn(t, l, masqueraded, own...)
	serveOn(t, l, lab.Director, "tcp/:80", "udp/"+service(lab.IPv4, lab.EchoPort).String(), "udp/"+service(lab.IPv6, lab.EchoPort).String())
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		for _, s := range []struct {
			option string
			port   uint16
		}{{"-t", lab.HTTPPort}, {"-u", lab.EchoPort}} {
			virtual := service(family, s.port).String()
			mustOutput(t, l, lab.Director, "ipvsadm", "-A", s.option, virtual, "-s", "rr")
			for _, real := range []struct {
				host   lab.Host
				method string
			}{{servers[0], "-g"}, {servers[1], "-m"}, {servers[2], "-i"}, {director, "-g"}} {
				mustOutput(t, l, lab.Director, "ipvsadm", "-a", s.option, virtual, "-r", serverAddress(real.host, family, s.port), real.method)
			}
		}
		awaitNextHops(t, l)
		want := map[string]int{direct: 5, masqueraded: 5, tunnelled: 5, lab.Director: 5}
		got := map[string]int{}
		for range 20 {
			answer, err := l.Get(t.Context(), service(family, lab.HTTPPort))
			if err != nil {
				t.Fatal(err)
			}
			got[answer.Server]++
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("IPv%d, requests by server (-want +got):\n%s", family, diff)
		}
		clear(got)
		for i := range 20 {
			conn, err := l.Dial(t.Context(), lab.Client, "udp", service(family, lab.EchoPort))
			if err != nil {
				t.Fatal(err)
			}
			got[mustEcho(t, conn, fmt.Sprintf("datagram %d", i))]++
			conn.Close()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("IPv%d, datagrams by server (-want +got):\n%s", family, diff)
		}
	}
}

// awaitNextHops waits until the director knows where all its real servers are.
func awaitNextHops(t *testing.T, l *lab.Lab) {
	t.Helper()
	client := l.DirectorClient()
	defer client.Close()
	eventually(t, 10*time.Second, "a way to every real server", func() bool {
		services, err := client.Services(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, svc := range services {
			for _, rs := range svc.Servers {
				if !rs.NextHop.Usable() && !rs.NextHop.Local {
					return false
				}
			}
		}
		return true
	})
}

func serverAddress(host lab.Host, family lab.Family, port uint16) string {
	return netip.AddrPortFrom(host.Address(family), port).String()
}

// serveOn answers on a host with its name, until the test ends.
func serveOn(t *testing.T, l *lab.Lab, host string, addresses ...string) {
	t.Helper()
	ready, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd, err := l.Command(t.Context(), host, "fairlead", append([]string{"lab", "serve", host}, addresses...)...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{tell}
	err = l.Begin(host, cmd)
	tell.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() }) // the test's context ends it
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the program of %s ended: %v", host, err)
	}
}
