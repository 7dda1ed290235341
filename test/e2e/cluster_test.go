package e2e

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lab"
)

// A node is a director and a real server in one.
type node struct {
	lab.Host
	client *api.Client
}

// newCluster makes directors of the lab's two real servers, which stay real
// servers: both have the same services on themselves and on each other. The lab's
// own director leaves the stage.
func newCluster(t *testing.T, l *lab.Lab) [2]*node {
	t.Helper()
	if err := l.Kill(t.Context(), lab.Director); err != nil {
		t.Fatal(err)
	}
	vipOnWire(t, l, lab.Director, netlink.AddrDel)
	var nodes [2]*node
	for i, host := range l.Servers() {
		nodes[i] = &node{Host: host, client: startDirectorOn(t, l, host.Name)}
		for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
			for protocol, port := range map[string]uint16{"-t": lab.HTTPPort, "-u": lab.EchoPort} {
				address := service(family, port)
				mustOutput(t, l, host.Name, "ipvsadm", "-A", protocol, address.String(), "-s", "rr")
				for _, server := range l.Servers() {
					rip := netip.AddrPortFrom(server.Address(family), port)
					mustOutput(t, l, host.Name, "ipvsadm", "-a", protocol, address.String(), "-r", rip.String(), "-g")
				}
			}
		}
		mustOutput(t, l, host.Name, "fairlead", "realserver", "up", "--vip", lab.IPv4.VIP().String()+","+lab.IPv6.VIP().String(), "--director")
	}
	for i, n := range nodes {
		other := nodes[1-i]
		eventually(t, 20*time.Second, other.Name+" is a peer of "+n.Name, func() bool {
			peers, err := n.client.Peers(t.Context())
			if err != nil || len(peers) != 2 {
				return false
			}
			for _, p := range peers {
				own := p.Address == other.IPv4.Addr() || p.Address == other.IPv6.Addr()
				if !own || p.MAC != other.MAC || p.Configured || p.Problem != "" {
					return false
				}
			}
			return true
		})
	}
	return nodes
}

// startDirectorOn runs a director on a host of the lab until the test ends. A veth
// takes frames that are redirected natively only if the switch's end polls, as it
// does for GRO.
func startDirectorOn(t *testing.T, l *lab.Lab, host string) *api.Client {
	t.Helper()
	requireCommand(t, "ethtool", "ethtool")
	mustOutput(t, l, lab.Switch, "ethtool", "-K", host, "gro", "on")
	return startDirectorWith(t, l, host, "--mode", "xdp")
}

// startDirectorWith runs a director with these options on a host of the lab until the test
// ends.
func startDirectorWith(t *testing.T, l *lab.Lab, host string, options ...string) *api.Client {
	t.Helper()
	cmd, err := l.Command(t.Context(), host, "fairlead", append([]string{"director", "--interface", "eth0"}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Begin(host, cmd); err != nil {
		t.Fatal(err)
	}
	client := api.NewClient(filepath.Join(variable(cmd.Env, "FAIRLEAD_RUN_DIR"), api.SocketName))
	t.Cleanup(func() {
		client.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, 20*time.Second, host+" is a director", func() bool {
		_, err := client.Status(t.Context())
		return err == nil
	})
	return client
}

func variable(environment []string, name string) string {
	value := ""
	for _, entry := range environment {
		if text, ok := strings.CutPrefix(entry, name+"="); ok {
			value = text
		}
	}
	return value
}

// vipOnWire does something to the VIPs on the interface of a host: there, they are
// answered for.
func vipOnWire(t *testing.T, l *lab.Lab, host string, do func(netlink.Link, *netlink.Addr) error) {
	t.Helper()
	err := l.Within(host, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		var errs []error
		for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
			prefix := netip.PrefixFrom(family.VIP(), family.VIP().BitLen())
			addr, err := netlink.ParseAddr(prefix.String())
			if err == nil {
				// With IPv6 never the source of what the host says itself.
				addr.ValidLft = math.MaxUint32
				if family == lab.IPv4 {
					addr.PreferedLft = math.MaxUint32
				}
				err = do(link, addr)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// activate moves the VIPs to a node, as a fail-over does.
func activate(t *testing.T, l *lab.Lab, from, to *node) {
	t.Helper()
	if from != nil {
		vipOnWire(t, l, from.Name, netlink.AddrDel)
	}
	vipOnWire(t, l, to.Name, netlink.AddrAdd)
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		mustOutput(t, l, to.Name, "fairlead", "doctor", "announce", family.VIP().String())
	}
	for _, n := range []*node{from, to} {
		if n != nil {
			mustOutput(t, l, n.Name, "fairlead", "realserver", "check")
		}
	}
}

// verdicts returns a node's counts by name.
func (n *node) verdicts(t *testing.T) map[string]uint64 {
	t.Helper()
	status, err := n.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, v := range status.Verdicts {
		counts[v.Name] = v.Packets
	}
	return counts
}

// connections returns how many connections a node has counted to each real server,
// by its name.
func (n *node) connections(t *testing.T, l *lab.Lab) map[string]uint64 {
	t.Helper()
	services, err := n.client.Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, s := range services {
		for _, r := range s.Servers {
			for _, host := range l.Servers() {
				if r.Address == host.IPv4.Addr() || r.Address == host.IPv6.Addr() {
					counts[host.Name] += r.Counters.Connections
				}
			}
		}
	}
	return counts
}

// connectionWith opens connections until one is with that server.
func connectionWith(t *testing.T, l *lab.Lab, server string) net.Conn {
	t.Helper()
	for range 4 {
		conn, err := l.Dial(t.Context(), lab.Client, "tcp", service(lab.IPv4, lab.HTTPPort))
		if err != nil {
			t.Fatal(err)
		}
		if mustAsk(t, conn) == server {
			return conn
		}
		conn.Close()
	}
	t.Fatalf("no connection is with %s", server)
	return nil
}

// Two nodes that are director and real server both, with the same services: the
// active one schedules, the other serves what it is sent; after a fail-over, it is
// the other way round.
func TestTwoNodeCluster(t *testing.T) {
	l := mustUp(t, labDirectory(t), "nodes")
	nodes := newCluster(t, l)
	var before *node
	var open net.Conn // with the second node, since the first one was active
	for round, active := range []*node{nodes[0], nodes[1], nodes[0]} {
		passive := nodes[0]
		if active == passive {
			passive = nodes[1]
		}
		activate(t, l, before, active)
		before = active
		if open == nil {
			open = connectionWith(t, l, nodes[1].Name)
			defer open.Close()
		}
		if got := mustAsk(t, open); got != nodes[1].Name {
			t.Errorf("round %d: the open connection is with %s", round, got)
		}
		counts := [2]map[string]uint64{active.verdicts(t), passive.verdicts(t)}
		made := [2]map[string]uint64{active.connections(t, l), passive.connections(t, l)}

		const requests = 20 // of each protocol and family
		answers := map[string]int{}
		for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
			for i := range requests {
				answer, err := l.Get(t.Context(), service(family, lab.HTTPPort))
				if err != nil {
					t.Fatalf("round %d, IPv%d: %v", round, family, err)
				}
				answers[answer.Server]++
				conn, err := l.Dial(t.Context(), lab.Client, "udp", service(family, lab.EchoPort))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				answers[mustEcho(t, conn, fmt.Sprintf("datagram %d", i))]++
			}
		}
		if want := 2 * requests; answers["rs1"] != want || answers["rs2"] != want {
			t.Errorf("round %d: answers %v, want %d of each", round, answers, want)
		}
		for name, n := range active.connections(t, l) {
			if n -= made[0][name]; n != 2*requests {
				t.Errorf("round %d: %s scheduled %d connections to %s, want %d", round, active.Name, n, name, 2*requests)
			}
		}
		for name, n := range passive.connections(t, l) {
			if n != made[1][name] {
				t.Errorf("round %d: %s scheduled %d connections to %s a second time", round, passive.Name, n-made[1][name], name)
			}
		}
		var forwarded, served, taken uint64
		since := func(n *node, i int, verdict string) uint64 { return n.verdicts(t)[verdict] - counts[i][verdict] }
		eventually(t, 10*time.Second, "each forwarded packet was left to the other node's host", func() bool {
			forwarded, served, taken = since(active, 0, "forward"), since(active, 0, "pass-local"), since(passive, 1, "pass-peer")
			return forwarded == taken
		})
		if forwarded < 4*requests || served < 4*requests {
			t.Errorf("round %d: forwarded %d packets, served %d", round, forwarded, served)
		}
		for _, verdict := range []string{"forward", "pass-local", "pass-no-connection"} {
			if n := since(passive, 1, verdict); n != 0 {
				t.Errorf("round %d: %s, which is passive, counted %d %s", round, passive.Name, n, verdict)
			}
		}
		if n := since(active, 0, "pass-peer"); n != 0 {
			t.Errorf("round %d: %s, which is active, counted %d pass-peer", round, active.Name, n)
		}
		t.Logf("round %d: %s forwarded %d and served %d packets; %s was sent %d", round, active.Name, forwarded, served, passive.Name, taken)
	}
	// Both doctors find nothing wrong, and tell what is special.
	for _, n := range nodes {
		out := mustOutput(t, l, n.Name, "fairlead", "doctor")
		if !strings.HasPrefix(out, "all is well\n") || !strings.Contains(out, "peer-frames") ||
			strings.Contains(out, "standing-by") != (n == nodes[1]) {
			t.Errorf("%s: doctor:\n%s", n.Name, out)
		}
		t.Logf("%s: doctor:\n%s", n.Name, out)
	}
}

// A director that is the real server of another, and no real server of its own,
// schedules what it is sent a second time until it is told of the other.
func TestPeerIsAdded(t *testing.T) {
	l := mustUp(t, labDirectory(t), "peer")
	address := service(lab.IPv4, lab.HTTPPort)
	first, second := l.Servers()[0], l.Servers()[1]
	mustOutput(t, l, lab.Director, "ipvsadm", "-A", "-t", address.String(), "-s", "rr")
	mustOutput(t, l, lab.Director, "ipvsadm", "-a", "-t", address.String(), "-r", netip.AddrPortFrom(first.IPv4.Addr(), lab.HTTPPort).String(), "-g")
	startDirectorOn(t, l, first.Name)
	mustOutput(t, l, first.Name, "ipvsadm", "-A", "-t", address.String(), "-s", "rr")
	mustOutput(t, l, first.Name, "ipvsadm", "-a", "-t", address.String(), "-r", netip.AddrPortFrom(second.IPv4.Addr(), lab.HTTPPort).String(), "-g")
	answeredBy := func() string {
		t.Helper()
		answer, err := l.Get(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Server
	}
	if got := answeredBy(); got != second.Name {
		t.Errorf("before: %s answered", got)
	}
	director := l.Hosts()[1].IPv4.Addr().String()
	mustOutput(t, l, first.Name, "fairlead", "peer", "add", director)
	if got := answeredBy(); got != first.Name {
		t.Errorf("after peer add: %s answered", got)
	}
	if out := mustOutput(t, l, first.Name, "fairlead", "peer", "list"); !strings.Contains(out, l.Hosts()[1].MAC.String()) {
		t.Errorf("peer list: %s", out)
	}
	mustOutput(t, l, first.Name, "fairlead", "peer", "remove", director)
	if got := answeredBy(); got != second.Name {
		t.Errorf("after peer remove: %s answered", got)
	}
}
