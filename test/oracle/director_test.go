package oracle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	fairlead "github.com/fairlead-lb/fairlead/internal/director"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/testhost"
	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// A director is a data plane attached to the two interfaces of the recordings, in
// a network namespace of its own. Its clock stands still unless it is moved.
type director struct {
	*dataplane.Plane
	namespace  netns.NsHandle
	interfaces map[string]int // index by the recordings' names, cl and rs
	mtu        int            // of rs
	started    time.Time
	clock      time.Duration       // what it shows
	late       bool                // it was not kept; see onTime
	rates      *fairlead.Estimator // nil: nobody asks
	sinceTurn  time.Duration       // of the estimator
	oversized  chan dataplane.OversizedPacket
}

func newDirector(t *testing.T) *director {
	t.Helper()
	testhost.NeedRoot(t)
	d := &director{interfaces: map[string]int{}, mtu: 1500, started: time.Now()}
	runtime.LockOSThread() // for good: the thread is in another namespace
	var err error
	d.namespace, err = netns.New()
	mustDo(t, "make a network namespace", err)
	t.Cleanup(func() { mustDo(t, "close the network namespace", d.namespace.Close()) })
	d.addInterface(t, "cl", scenario.NearMAC("cl"))
	d.addInterface(t, "rs", scenario.NearMAC("rs"))
	// The recorded director has no network on cl0, only routes and a /128. Ours
	// takes such an address for a VIP and would not answer with it.
	d.addAddress(t, "cl0", "2001:db8:3::fe/64")
	d.addAddress(t, "rs0", "2001:db8:1::1/64")
	d.addAddress(t, "rs0", "198.51.100.1/24")

	dir := testhost.MountBPF(t)
	d.Plane, err = dataplane.Open(dataplane.Config{PinDir: dir, Connections: 10_000})
	mustDo(t, "open the data plane", err)
	t.Cleanup(func() {
		mustDo(t, "close the data plane", d.Close())
		mustDo(t, "unload the data plane", dataplane.Unload(dir))
	})
	d.followOversized(t)
	_, err = d.Attach([]string{"cl0", "rs0"})
	mustDo(t, "attach", err)
	mustDo(t, "lift the limit of ICMP answers", d.SetICMPLimit(0, 0))
	return d
}

// followOversized keeps what the data plane gives to be fragmented, until the test ends.
func (d *director) followOversized(t *testing.T) {
	d.oversized = make(chan dataplane.OversizedPacket, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.FollowOversized(ctx, func(o dataplane.OversizedPacket) error { d.oversized <- o; return nil })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("follow oversized packets: %v", err)
		}
	})
}

func mustDo(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// addInterface adds one end of a cable. It stays down: nothing but our frames is
// to come in.
func (d *director) addInterface(t *testing.T, name string, mac lvs.MAC) {
	t.Helper()
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name + "0", HardwareAddr: mac[:]},
		PeerName:  name + "-peer",
	}
	mustDo(t, "add interface "+name, netlink.LinkAdd(cable))
	in, err := net.InterfaceByName(name + "0")
	mustDo(t, "find interface "+name, err)
	d.interfaces[name] = in.Index
}

func (d *director) addAddress(t *testing.T, name, address string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	mustDo(t, "find interface "+name, err)
	parsed, err := netlink.ParseAddr(address)
	mustDo(t, "parse address", err)
	mustDo(t, "add address "+address, netlink.AddrAdd(link, parsed))
}

// enter takes the thread into the director's namespace, where its interfaces are;
// it ends with the test.
func (d *director) enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	mustDo(t, "enter the network namespace", netns.Set(d.namespace))
}

// reset makes the director as good as new: no service, no connection, no server
// that might come back.
func (d *director) reset() error {
	if err := d.Clear(context.Background()); err != nil {
		return err
	}
	var defaults []lvs.SysctlChange
	for _, s := range lvs.Sysctls() {
		defaults = append(defaults, lvs.SysctlChange{Name: s.Name, Reset: true})
	}
	if err := d.SetSysctls(lvs.ServiceKey{}, defaults); err != nil {
		return err
	}
	if err := d.SetMarkRules(nil); err != nil {
		return err
	}
	for _, on := range []string{"cl", "rs"} {
		if err := (machine{d}).SetMTU(on, 1500); err != nil {
			return err
		}
	}
	const longerThanAnyTimeout = 12 * time.Hour
	if err := (machine{d}).Sleep(longerThanAnyTimeout); err != nil {
		return err
	}
	for c := range d.Plane.Connections() {
		return fmt.Errorf("connection %v outlived its timeout", c)
	}
	return nil
}

// vips are the director's own.
var vips = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:2::/64")}

func (d *director) setNextHop(addr netip.Addr) error {
	if slices.ContainsFunc(vips, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return d.SetNextHop(addr, lvs.NextHop{Local: true})
	}
	n, err := scenario.ServerNumber(addr)
	if err != nil {
		return err
	}
	return d.SetNextHop(addr, lvs.NextHop{
		InterfaceIndex: d.interfaces["rs"],
		MTU:            d.mtu,
		Source:         scenario.NearMAC("rs"),
		Destination:    scenario.ServerMAC(n),
		SourceIP:       scenario.Near(addr),
	})
}
