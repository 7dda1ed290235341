package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-lb/fairlead/internal/lab"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var (
	completeRequests = regexp.MustCompile(`(?m)^Complete requests: +(\d+)$`)
	failedRequests   = regexp.MustCompile(`(?m)^Failed requests: +(\d+)$`)
)

// checkApacheBench wants every request of an ab run to have been answered well.
func checkApacheBench(t *testing.T, out string, requests int) {
	t.Helper()
	complete, failed := completeRequests.FindStringSubmatch(out), failedRequests.FindStringSubmatch(out)
	if complete == nil || complete[1] != strconv.Itoa(requests) || failed == nil || failed[1] != "0" || strings.Contains(out, "Non-2xx") {
		t.Errorf("ab: want %d complete, 0 failed requests:\n%s", requests, out)
	}
}

func TestTenThousandRequests(t *testing.T) {
	requireCommand(t, "ab", "apache2-utils")
	l := mustUp(t, labDirectory(t), "ab")
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		address := service(family, lab.HTTPPort)
		mustAddService(t, l, "-t", address, lvs.WeightedLeastConnection)
		// -l: the servers' answers may differ in length.
		out := mustOutput(t, l, lab.Client, "ab", "-l", "-n", "10000", "-c", "50", "http://"+address.String()+"/")
		checkApacheBench(t, out, 10000)
	}
}

func TestUDPService(t *testing.T) {
	l := mustUp(t, labDirectory(t), "udp")
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		address := service(family, lab.EchoPort)
		mustAddService(t, l, "-u", address, lvs.WeightedRoundRobin)
		answers := map[string]int{}
		for i := range 60 {
			// Every socket stays open, for every datagram to have a port of its own.
			conn, err := l.Dial(t.Context(), lab.Client, "udp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			answers[mustEcho(t, conn, fmt.Sprintf("datagram %d", i))]++
		}
		if answers["rs1"] != 40 || answers["rs2"] != 20 {
			t.Errorf("IPv%d: answers %v, want 40 of rs1 and 20 of rs2", family, answers)
		}
	}
}

// mustEcho sends a datagram to the VIP and returns the name of the server that
// answered it from there.
func mustEcho(t *testing.T, conn net.Conn, message string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 128)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	name, echoed, _ := strings.Cut(string(buffer[:n]), " ")
	if echoed != message {
		t.Errorf("sent %q, got %q", message, buffer[:n])
	}
	return name
}

func TestSecondLabIsAnother(t *testing.T) {
	directory := labDirectory(t)
	first, second := mustUp(t, directory, "first"), mustUp(t, directory, "second")
	address := service(lab.IPv4, lab.HTTPPort)
	mustAddService(t, first, "-t", address, lvs.RoundRobin)
	if out := mustOutput(t, second, lab.Director, "ipvsadm", "-Sn"); out != "" {
		t.Errorf("the second lab has the first one's service: %s", out)
	}
	mustAddService(t, second, "-t", address, lvs.RoundRobin)
	if _, err := first.Get(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	if got := [2]uint64{connectionsOf(t, first, address), connectionsOf(t, second, address)}; got != [2]uint64{1, 0} {
		t.Errorf("connections after a request in the first lab: %v", got)
	}
	if _, err := second.Get(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	if got := [2]uint64{connectionsOf(t, first, address), connectionsOf(t, second, address)}; got != [2]uint64{1, 1} {
		t.Errorf("connections after a request in each lab: %v", got)
	}
}

// connectionsOf returns how many connections the director has counted.
func connectionsOf(t *testing.T, l *lab.Lab, address netip.AddrPort) uint64 {
	t.Helper()
	client := l.DirectorClient()
	defer client.Close()
	status, err := client.Service(t.Context(), lvs.ServiceKey{Protocol: lvs.TCP, Address: address.Addr(), Port: address.Port()})
	if err != nil {
		t.Fatal(err)
	}
	return status.Counters.Connections
}

// A real server that comes back with another network card tells its neighbours;
// the director follows.
func TestMACChangeIsFollowed(t *testing.T) {
	l := mustUp(t, labDirectory(t), "mac")
	for i, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		address := service(family, lab.HTTPPort)
		mustAddService(t, l, "-t", address, lvs.RoundRobin)
		mac := net.HardwareAddr{0x02, 0, 0, 0, 0x02, byte(i)}
		err := l.Within("rs1", func() error { return changeMAC(mac) })
		if err != nil {
			t.Fatal(err)
		}
		took := eventually(t, time.Second, "the director's next hop of rs1 is "+mac.String(), func() bool {
			return nextHop(t, l, address, "rs1") == mac.String()
		})
		t.Logf("IPv%d: followed within %s", family, took)
		for range 2 {
			if _, err := l.Get(t.Context(), address); err != nil {
				t.Errorf("IPv%d: %v", family, err)
			}
		}
	}
}

// changeMAC works in the network namespace of the calling thread.
func changeMAC(mac net.HardwareAddr) error {
	for _, name := range []string{"net/ipv4/conf/eth0/arp_notify", "net/ipv6/conf/eth0/ndisc_notify"} {
		if err := writeSysctl(name, "1"); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return netlink.LinkSetHardwareAddr(link, mac)
}

// nextHop returns the MAC address that the director has for a real server.
func nextHop(t *testing.T, l *lab.Lab, address netip.AddrPort, name string) string {
	t.Helper()
	client := l.DirectorClient()
	defer client.Close()
	status, err := client.Service(t.Context(), lvs.ServiceKey{Protocol: lvs.TCP, Address: address.Addr(), Port: address.Port()})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range l.Servers() {
		for _, server := range status.Servers {
			if host.Name == name && (server.Address == host.IPv4.Addr() || server.Address == host.IPv6.Addr()) {
				return server.NextHop.Destination.String()
			}
		}
	}
	return ""
}
