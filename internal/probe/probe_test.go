package probe_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/probe"
	"github.com/fairlead-lb/fairlead/internal/testhost"
)

var (
	vips = [2]netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")}
	dips = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	rips = [2][2]netip.Addr{
		{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")},
		{netip.MustParseAddr("192.0.2.12"), netip.MustParseAddr("2001:db8::12")},
	}
)

const port = 80

// carrier joins the probes of the data plane.
type carrier struct{ *dataplane.Probes }

func (c carrier) Route(r probe.Route) error { return c.Probes.Route(dataplane.Probe(r)) }

// A namespace ends with its test.
type namespace struct {
	testhost.Namespace
	t *testing.T
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	n := namespace{testhost.NewNamespace(t), t}
	n.do(func() error {
		// As on real servers: nobody answers or asks in the name of the VIP.
		for name, value := range map[string]string{
			"ipv6/conf/default/accept_dad": "0", "ipv6/conf/all/accept_dad": "0",
			"ipv4/conf/all/arp_ignore": "1", "ipv4/conf/all/arp_announce": "2",
		} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n
}

// do calls f on a thread in the namespace.
func (n namespace) do(f func() error) {
	n.t.Helper()
	if err := n.Do(f); err != nil {
		n.t.Fatal(err)
	}
}

func (n namespace) address(device string, addr netip.Addr, bits int) {
	n.t.Helper()
	n.do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())}}
		if addr.Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrAdd(link, a)
	})
}

// connect makes a link between the director and a real server, both of which know
// the other's addresses and MAC address by themselves.
func connect(t *testing.T, director, server namespace, number int) (hop lvs.NextHop) {
	t.Helper()
	name := "eth" + strconv.Itoa(number)
	director.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(server.NsHandle))}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		hop.InterfaceIndex, hop.InterfaceName, hop.MTU = link.Attrs().Index, name, 1500
		copy(hop.Source[:], link.Attrs().HardwareAddr)
		return netlink.LinkSetUp(link)
	})
	server.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		copy(hop.Destination[:], link.Attrs().HardwareAddr)
		return netlink.LinkSetUp(link)
	})
	for i, bits := range []int{24, 64} {
		server.address("eth0", rips[number][i], bits)
		server.address("lo", vips[i], vips[i].BitLen())
	}
	return hop
}

// serve answers what comes to the VIPs with the name of the server.
func serve(t *testing.T, server namespace, name string) {
	t.Helper()
	server.do(func() error {
		for _, vip := range vips {
			at := netip.AddrPortFrom(vip, port).String()
			l, err := net.Listen("tcp", at)
			if err != nil {
				return err
			}
			testhost.Say(t, l, name)
			u, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			t.Cleanup(func() { u.Close() })
			go func() {
				buffer := make([]byte, 100)
				for {
					_, from, err := u.ReadFrom(buffer)
					if err != nil {
						return
					}
					u.WriteTo([]byte(name), from)
				}
			}()
		}
		return nil
	})
}

// A bench is a director that has the VIPs itself, and two real servers.
type bench struct {
	*probe.Namespace
	director namespace
	servers  [2]namespace
	hops     [2]lvs.NextHop
}

func newBench(t *testing.T) bench {
	t.Helper()
	testhost.NeedRoot(t)
	b := bench{director: newNamespace(t)}
	for i, name := range []string{"rs1", "rs2"} {
		server := newNamespace(t)
		b.servers[i] = server
		b.hops[i] = connect(t, b.director, server, i)
		serve(t, server, name)
	}
	for i, bits := range []int{24, 64} {
		for _, device := range []string{"eth0", "eth1"} {
			b.director.address(device, dips[i], bits)
		}
		b.director.address("eth0", vips[i], vips[i].BitLen())
	}
	b.director.do(func() (err error) {
		b.Namespace, err = probe.New(func(outside int, inside lvs.MAC) (probe.Carrier, error) {
			p, err := dataplane.OpenProbes(outside, inside)
			return carrier{p}, err
		})
		return err
	})
	t.Cleanup(func() { b.director.do(b.Close) })
	return b
}

func (b bench) server(number, family int) lvs.RealServer {
	return lvs.RealServer{
		RealServerKey: lvs.RealServerKey{Address: rips[number][family], Port: port}, Method: lvs.DirectRouting,
	}
}

// dial opens a conversation with a real server. Attaching to an interface is for a
// thread in the director's namespace.
func (b bench) dial(t *testing.T, network string, server, family int, port uint16) (conn net.Conn, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	b.director.do(func() error {
		conn, err = b.Dial(ctx, network, dips[family], netip.AddrPortFrom(vips[family], port), b.server(server, family), b.hops[server])
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(5 * time.Second))
			t.Cleanup(func() { conn.Close() })
		}
		return nil
	})
	return conn, err
}

func TestReachesTheChosenServer(t *testing.T) {
	b := newBench(t)
	for range 3 {
		for server, name := range []string{"rs1", "rs2"} {
			for family := range vips {
				for _, network := range []string{"tcp", "udp"} {
					conn, err := b.dial(t, network, server, family, port)
					if err != nil {
						t.Fatalf("%s to %s by %s: %v", network, vips[family], name, err)
					}
					conn.Write([]byte("who"))
					buffer := make([]byte, 10)
					n, err := conn.Read(buffer)
					if err != nil || string(buffer[:n]) != name {
						t.Errorf("%s to %s by %s: %q, %v", network, vips[family], name, buffer[:n], err)
					}
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	for family := range vips {
		if _, err := b.dial(t, "tcp", 1, family, port+1); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("tcp %s: %v", vips[family], err)
		}
		conn, err := b.dial(t, "udp", 1, family, port+1)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("who"))
		if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("udp %s: %v", vips[family], err)
		}
	}
}

func TestEcho(t *testing.T) {
	b := newBench(t)
	for family, request := range []icmp.Type{ipv4.ICMPTypeEcho, ipv6.ICMPTypeEchoRequest} {
		conn, err := b.dial(t, "icmp", 1, family, 0)
		if err != nil {
			t.Fatal(err)
		}
		id := conn.(interface{ EchoID() uint16 }).EchoID()
		message := icmp.Message{Type: request, Body: &icmp.Echo{ID: int(id), Seq: 7}}
		data, err := message.Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		// The first may be lost while the server looks for the director.
		buffer, n := make([]byte, 100), 0
		for deadline := time.Now().Add(5 * time.Second); n == 0 && time.Now().Before(deadline); {
			conn.Write(data)
			conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if n, err = conn.Read(buffer); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		answer, err := icmp.ParseMessage([]int{1, 58}[family], buffer[:n])
		if err != nil || answer.Type != []icmp.Type{ipv4.ICMPTypeEchoReply, ipv6.ICMPTypeEchoReply}[family] {
			t.Errorf("%s: %+v, %v", vips[family], answer, err)
		}
	}
}

func TestSilenceEndsWithTheContext(t *testing.T) {
	b := newBench(t)
	hop := b.hops[0]
	hop.Destination[5]++
	b.hops[0] = hop
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	b.director.do(func() error {
		_, err := b.Dial(ctx, "tcp", dips[0], netip.AddrPortFrom(vips[0], port), b.server(0, 0), hop)
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		return nil
	})
}
