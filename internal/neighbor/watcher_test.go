package neighbor

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// second is the time in which a change has to be told.
const second = time.Second

// A plan is the addresses of a test network in one family: a director with eth0
// on one link and eth1 on another, a server or gateway on each.
type plan struct {
	name                        string
	director0, director1        string // of eth0 and eth1
	server0, server1            string // on the link of eth0, of eth1
	bits, family                int
	remote                      string // behind the servers
	remotePrefix                string
	question, announce, timings string
}

var plans = []plan{
	{
		name: "ipv4", director0: "192.0.2.1", director1: "198.51.100.1", server0: "192.0.2.11", server1: "198.51.100.11",
		bits: 24, family: unix.AF_INET, remote: "203.0.113.7", remotePrefix: "203.0.113.0/24",
		question: "ARP", announce: "ipv4/conf/eth0/arp_notify", timings: "ipv4/neigh/eth0/",
	},
	{
		name: "ipv6", director0: "2001:db8:0::1", director1: "2001:db8:1::1", server0: "2001:db8:0::11", server1: "2001:db8:1::11",
		bits: 64, family: unix.AF_INET6, remote: "2001:db8:99::7", remotePrefix: "2001:db8:99::/64",
		question: "neighbour solicitation", announce: "ipv6/conf/eth0/ndisc_notify", timings: "ipv6/neigh/eth0/",
	},
}

func (p plan) prefix(addr string) string { return fmt.Sprintf("%s/%d", addr, p.bits) }
func (p plan) host(addr string) string {
	return netip.PrefixFrom(netip.MustParseAddr(addr), netip.MustParseAddr(addr).BitLen()).String()
}

// canonical is addr as problems name it.
func canonical(addr string) string { return netip.MustParseAddr(addr).String() }

// A network is a plan made true.
type network struct {
	plan
	director, first, second *namespace
}

func newNetwork(t *testing.T, p plan) *network {
	t.Helper()
	n := &network{p, newNamespace(t), newNamespace(t), newNamespace(t)}
	n.director.join("eth0", n.first, "eth0")
	n.director.join("eth1", n.second, "eth0")
	n.director.address("eth0", p.prefix(p.director0))
	n.director.address("eth1", p.prefix(p.director1))
	n.first.address("eth0", p.prefix(p.server0))
	n.second.address("eth0", p.prefix(p.server1))
	return n
}

// overEth0 is the next hop over eth0 to a MAC address.
func (n *network) overEth0(mac lvs.MAC) lvs.NextHop {
	return lvs.NextHop{
		InterfaceIndex: n.director.index("eth0"), InterfaceName: "eth0",
		Source: n.director.mac("eth0"), Destination: mac, MTU: 1500,
		SourceIP: netip.MustParseAddr(n.director0),
	}
}

// eachPlan runs a test in both families.
func eachPlan(t *testing.T, test func(t *testing.T, n *network)) {
	t.Helper()
	for _, p := range plans {
		t.Run(p.name, func(t *testing.T) { test(t, newNetwork(t, p)) })
	}
}

func (w *watching) watch(addr string)  { w.w.Watch(netip.MustParseAddr(addr)) }
func (w *watching) forget(addr string) { w.w.Forget(netip.MustParseAddr(addr)) }

func TestOnLink(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		w := startWatching(t, n.director)
		w.within(second, func() {
			w.watch(n.server0)
			got := w.await(n.server0, "anything", func(lvs.NextHop) bool { return true })
			if want := n.overEth0(n.first.mac("eth0")); got != want {
				t.Errorf("next hop %+v, want %+v", got, want)
			}
		})
	})
}

func TestThroughGateway(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
		w := startWatching(t, n.director)
		w.watch(n.remote)
		want := n.overEth0(n.first.mac("eth0"))
		want.Gateway = netip.MustParseAddr(n.server0)
		if got := w.awaitMAC(n.remote, n.first.mac("eth0")); got != want {
			t.Errorf("next hop %+v, want %+v", got, want)
		}
	})
}

// The source is what the route prefers, and follows it.
func TestSource(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		w := startWatching(t, n.director)
		w.watch(n.remote)
		for _, source := range []string{n.director0, n.director1} {
			route := n.director.via(n.server1, "eth1")
			route.Src = net.ParseIP(source)
			n.director.route(n.remotePrefix, route)
			w.await(n.remote, "source "+source, func(h lvs.NextHop) bool { return h.SourceIP == netip.MustParseAddr(source) })
		}
	})
}

func TestThroughGatewayOfTheOtherFamily(t *testing.T) {
	n := newNetwork(t, plans[1])
	n.director.route("203.0.113.0/24", netlink.Route{
		LinkIndex: n.director.index("eth0"),
		Via:       &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP(n.server0)},
	})
	w := startWatching(t, n.director)
	w.watch("203.0.113.7")
	w.awaitMAC("203.0.113.7", n.first.mac("eth0"))
}

func TestLinkLocalInZone(t *testing.T) {
	n := newNetwork(t, plans[1])
	n.second.address("eth0", "fe80::11/64")
	n.director.address("eth1", "fe80::1/64")
	w := startWatching(t, n.director)
	w.watch("fe80::11%eth1")
	w.awaitMAC("fe80::11%eth1", n.second.mac("eth0"))
	w.watch("fe80::11%eth7")
	w.awaitProblem("fe80::11%eth7", "no route to fe80::11%eth7")
}

func TestServerAnnouncesAnotherMAC(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.first.sysctl(map[string]string{n.announce: "1"})
		// The kernel believes an announcement only this long after the last change.
		n.director.sysctl(map[string]string{"ipv4/neigh/eth0/locktime": "0"})
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		other := lvs.MAC{2, 0, 0, 0, 0, 0x77}
		w.within(second, func() {
			n.first.setMAC("eth0", other)
			w.awaitMAC(n.server0, other)
		})
	})
}

func TestNeighbourDeletedAfterMACChanged(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		other := lvs.MAC{2, 0, 0, 0, 0, 0x77}
		n.first.setMAC("eth0", other)
		w.within(second, func() {
			n.director.deleteNeighbour("eth0", n.server0)
			w.awaitMAC(n.server0, other)
		})
	})
}

func TestDirectorsOwnMACChanges(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
	other := lvs.MAC{2, 0, 0, 0, 0, 0x55}
	w.within(second, func() {
		n.director.setMAC("eth0", other)
		w.await(n.server0, "source "+other.String(), func(h lvs.NextHop) bool { return h.Usable() && h.Source == other })
	})
}

func TestServerNeverAnswers(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.first.removeAddress("eth0", n.prefix(n.server0))
		n.director.sysctl(map[string]string{n.timings + "retrans_time_ms": "100"})
		w := startWatching(t, n.director)
		w.within(answerTimeout+second/2, func() {
			w.watch(n.server0)
			w.awaitProblem(n.server0, canonical(n.server0)+" does not answer "+n.question+" on eth0")
		})
		w.within(second, func() {
			n.first.address("eth0", n.prefix(n.server0))
			w.awaitMAC(n.server0, n.first.mac("eth0"))
		})
		if got := w.told[netip.MustParseAddr(n.server0)]; got != 2 {
			t.Errorf("told %d times, want 2", got)
		}
	})
}

func TestServerGoesAndReturns(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.sysctl(map[string]string{
			n.timings + "base_reachable_time_ms": "100",
			n.timings + "delay_first_probe_time": "0",
			n.timings + "retrans_time_ms":        "50",
		})
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		n.first.removeAddress("eth0", n.prefix(n.server0))
		stop := n.sendTo(n.server0) // traffic makes the kernel notice
		w.awaitProblem(n.server0, canonical(n.server0)+" does not answer "+n.question+" on eth0")
		stop()
		w.within(second, func() {
			n.first.address("eth0", n.prefix(n.server0))
			w.awaitMAC(n.server0, n.first.mac("eth0"))
		})
	})
}

// sendTo has the director's own stack send packets to addr until stop is called.
func (n *network) sendTo(addr string) (stop func()) {
	var connection net.Conn
	n.director.do(func() (err error) {
		connection, err = net.Dial("udp", net.JoinHostPort(addr, "9"))
		return err
	})
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer connection.Close()
		every := time.NewTicker(20 * time.Millisecond)
		defer every.Stop()
		for {
			_, _ = connection.Write([]byte("are you there")) // refusals come back as errors
			select {
			case <-every.C:
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}

func TestRouteReplaced(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
		w := startWatching(t, n.director)
		w.watch(n.remote)
		w.awaitMAC(n.remote, n.first.mac("eth0"))
		w.within(second, func() {
			n.director.route(n.remotePrefix, n.director.via(n.server1, "eth1"))
			hop := w.awaitMAC(n.remote, n.second.mac("eth0"))
			if hop.InterfaceName != "eth1" || hop.InterfaceIndex != n.director.index("eth1") || hop.Source != n.director.mac("eth1") {
				t.Errorf("next hop %+v, want over eth1", hop)
			}
		})
		w.settled()
		if entry, ok := n.director.neighbour("eth0", n.server0); ok {
			t.Errorf("the entry of the gateway that is no longer needed is still there: %+v", entry)
		}
		// A more specific route, then its end.
		w.within(second, func() {
			n.director.route(n.host(n.remote), n.director.via(n.server0, "eth0"))
			w.awaitMAC(n.remote, n.first.mac("eth0"))
		})
		w.within(second, func() {
			mustDo(t, "delete route", n.director.netlink.RouteDel(&netlink.Route{Dst: mustParsePrefix(t, n.host(n.remote))}))
			w.awaitMAC(n.remote, n.second.mac("eth0"))
		})
	})
}

func TestRuleAdded(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
		elsewhere := n.director.via(n.server1, "eth1")
		elsewhere.Table = 100
		n.director.route(n.remotePrefix, elsewhere)
		w := startWatching(t, n.director)
		w.watch(n.remote)
		w.awaitMAC(n.remote, n.first.mac("eth0"))
		rule := netlink.NewRule()
		rule.Family, rule.Table, rule.Priority = n.family, 100, 100
		w.within(second, func() {
			mustDo(t, "add rule", n.director.netlink.RuleAdd(rule))
			w.awaitMAC(n.remote, n.second.mac("eth0"))
		})
	})
}

func TestInterfaceDownAndUp(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		n.director.sysctl(map[string]string{"ipv6/conf/eth0/keep_addr_on_down": "1"})
		w := startWatching(t, n.director)
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		w.within(second, func() {
			n.director.down("eth0")
			w.awaitProblem(n.server0, "no route to "+canonical(n.server0)+": eth0 is down")
		})
		n.director.up("eth0")
		eventually(t, "eth0 is ready", func() bool { return n.director.ready("eth0") })
		w.within(second+second/2, func() { // the kernel asks a second time a second after it could not
			w.awaitMAC(n.server0, n.first.mac("eth0"))
		})
	})
}

// What has just told of one carrier, the kernel, holds back for a second what it
// would tell of another. The watcher does not wait for it.
func TestCarrierLost(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
	told := n.director.carrierLost("eth1")
	n.second.down("eth0")
	<-told
	w.within(3*tickInterval, func() {
		n.first.down("eth0")
		w.awaitProblem(n.server0, "eth0 has no carrier")
	})
	n.first.up("eth0")
	eventually(t, "eth0 is ready", func() bool { return n.director.ready("eth0") })
	w.within(second, func() { w.awaitMAC(n.server0, n.first.mac("eth0")) })
}

func TestInterfaceDeleted(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch(n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
	mustDo(t, "delete eth0", n.director.netlink.LinkDel(n.director.link("eth0"))) // which may wait for others
	w.within(second, func() { w.awaitProblem(n.server0, "no route to "+n.server0) })
}

func TestMTU(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		routed := func(mtu int) {
			r := n.director.via(n.server0, "eth0")
			r.MTU = mtu
			n.director.route(n.remotePrefix, r)
		}
		routed(1400)
		w := startWatching(t, n.director)
		w.watch(n.remote)
		mtu := func(want int) {
			t.Helper()
			w.await(n.remote, fmt.Sprint("MTU ", want), func(h lvs.NextHop) bool { return h.Usable() && h.MTU == want })
		}
		mtu(1400)
		w.within(second, func() { routed(1300); mtu(1300) })
		w.within(second, func() { routed(9000); mtu(1500) }) // more than the interface carries
		w.within(second, func() { routed(0); mtu(1500) })
		w.within(second, func() {
			mustDo(t, "set MTU", n.director.netlink.LinkSetMTU(n.director.link("eth0"), 1450))
			mtu(1450)
		})
	})
}

func TestNoWay(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		addr := canonical(n.remote)
		w := startWatching(t, n.director)
		w.within(second, func() {
			w.watch(n.remote)
			w.awaitProblem(n.remote, "no route to "+addr)
		})
		for kind, name := range map[int]string{
			unix.RTN_UNREACHABLE: "unreachable", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_PROHIBIT: "prohibit",
		} {
			w.within(second, func() {
				r := netlink.Route{Type: kind, Dst: mustParsePrefix(t, n.remotePrefix)}
				mustDo(t, "add route", n.director.netlink.RouteAdd(&r))
				w.awaitProblem(n.remote, "the route to "+addr+" is of type "+name)
				mustDo(t, "delete route", n.director.netlink.RouteDel(&r))
				w.awaitProblem(n.remote, "no route to "+addr)
			})
		}
		w.within(second, func() {
			n.director.route(n.remotePrefix, n.director.via(n.server0, "eth0"))
			w.awaitMAC(n.remote, n.first.mac("eth0"))
		})
	})
}

func TestOwnAddress(t *testing.T) {
	eachPlan(t, func(t *testing.T, n *network) {
		w := startWatching(t, n.director)
		w.watch(n.director0)
		w.awaitLocal(n.director0)
		// One that becomes the director's.
		w.watch(n.server0)
		w.awaitMAC(n.server0, n.first.mac("eth0"))
		w.within(second, func() {
			n.director.address("eth1", n.host(n.server0))
			w.awaitLocal(n.server0)
		})
		// And one that is no longer.
		w.within(second, func() {
			n.director.removeAddress("eth1", n.host(n.server0))
			w.awaitMAC(n.server0, n.first.mac("eth0"))
		})
	})
}

func TestWhatIsNoServer(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch("192.0.2.255")
	w.awaitProblem("192.0.2.255", "192.0.2.255 is a broadcast address")
	w.w.Watch(netip.Addr{})
	w.awaitAddr(netip.Addr{}, "no address", func(h lvs.NextHop) bool { return h.Problem == "not an IP address" })
}

func TestMappedAddress(t *testing.T) {
	n := newNetwork(t, plans[0])
	w := startWatching(t, n.director)
	w.watch("::ffff:" + n.server0)
	w.awaitMAC(n.server0, n.first.mac("eth0"))
	w.forget("::ffff:" + n.server0)
	w.settled()
	if _, ok := n.director.neighbour("eth0", n.server0); ok {
		t.Error("the entry is still there")
	}
}

// More than a thousand, for two limits: the kernel's gc_thresh3 and noticeBuffer.
func TestManyServers(t *testing.T) {
	director, server := newNamespace(t), newNamespace(t)
	director.join("eth0", server, "eth0")
	director.address("eth0", "198.18.0.1/16")
	server.address("eth0", "198.18.0.2/16")
	server.route("198.18.64.0/18", netlink.Route{
		LinkIndex: server.index("lo"), Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
	})
	w := startWatching(t, director)
	addresses := make([]string, 3000)
	next := netip.MustParseAddr("198.18.64.1")
	for i := range addresses {
		addresses[i] = next.String()
		next = next.Next()
	}
	all := func(mac lvs.MAC) {
		t.Helper()
		for _, addr := range addresses {
			w.awaitMAC(addr, mac)
		}
	}
	w.within(5*second, func() {
		for _, addr := range addresses {
			w.watch(addr)
		}
		all(server.mac("eth0"))
	})
	w.within(2*second, func() {
		mustDo(t, "set MTU", director.netlink.LinkSetMTU(director.link("eth0"), 1400))
		for _, addr := range addresses {
			w.await(addr, "MTU 1400", func(h lvs.NextHop) bool { return h.MTU == 1400 })
		}
	})
	for _, addr := range addresses {
		w.forget(addr)
	}
	w.settled()
	entries, err := director.netlink.NeighList(director.index("eth0"), unix.AF_INET)
	mustDo(t, "list neighbours", err)
	for _, e := range entries {
		if e.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			t.Errorf("left behind: %+v", e)
		}
	}
}
