package director

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/health"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/probe"
)

// SetHealth makes want what is looked after, instead of what was before. It checks all
// of it first, and then changes all or nothing; what is in both keeps its verdicts. It
// wraps lvs.ErrNoService, lvs.ErrNoServer and lvs.ErrInvalid.
func (d *Director) SetHealth(want []lvs.ServiceHealth) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range want {
		r, ok := d.rosters[w.ServiceKey]
		if !ok {
			return fmt.Errorf("look after service %s: %w", w.ServiceKey, lvs.ErrNoService)
		}
		if err := checkServiceHealth(w, r.told); err != nil {
			return fmt.Errorf("look after service %s: %w", w.ServiceKey, err)
		}
	}
	return d.setHealth(want)
}

// checkHealth returns why one of the services of a state can't be looked after as is
// wanted, as an *lvs.ItemError.
func checkHealth(state lvs.State, want []lvs.ServiceHealth) error {
	told := map[lvs.ServiceKey][]lvs.RealServer{}
	for _, s := range state.Services {
		told[s.ServiceKey] = s.Servers
	}
	for i, w := range want {
		servers, ok := told[w.ServiceKey]
		err := error(lvs.ErrNoService)
		if ok {
			err = checkServiceHealth(w, servers)
		}
		if err != nil {
			return refuse(fmt.Sprintf("health[%d]", i), "look after service %s: %w", w.ServiceKey, err)
		}
	}
	return nil
}

// checkSorry returns why the sorry server of a service is refused.
func checkSorry(want lvs.ServiceHealth, told []lvs.RealServer) error {
	sorry := want.Sorry.RealServerKey
	if !sorry.Address.IsValid() {
		return nil
	}
	if err := checkServer(want.ServiceKey, want.Sorry); err != nil {
		return fmt.Errorf("sorry server %s: %w", sorry, err)
	}
	if findServer(told, sorry) >= 0 {
		return fmt.Errorf("sorry server %s: %w: it is one of its real servers", sorry, lvs.ErrInvalid)
	}
	return nil
}

func checkServiceHealth(want lvs.ServiceHealth, told []lvs.RealServer) error {
	if err := checkSorry(want, told); err != nil {
		return err
	}
	return health.Check(health.Service{ServiceHealth: want, Members: told})
}

// healthNow returns what is wanted of the services and real servers that there are, also
// of those that were added by hand.
func (d *Director) healthNow(want []lvs.ServiceHealth) []lvs.ServiceHealth {
	var now []lvs.ServiceHealth
	for _, w := range want {
		r, ok := d.rosters[w.ServiceKey]
		if !ok {
			continue
		}
		w.Servers = w.Among(r.told)
		now = append(now, w)
	}
	return now
}

// expectHealth is for before a state is changed, after which want is set: real servers
// that are to be down until their first success are not there for a moment before.
func (d *Director) expectHealth(want []lvs.ServiceHealth) {
	d.expected = map[drainKey]bool{}
	for _, w := range want {
		for _, s := range w.Servers {
			if s.Alpha {
				d.expected[drainKey{w.ServiceKey, s.RealServerKey}] = true
			}
		}
	}
}

// setHealth looks after what there is of what is wanted.
func (d *Director) setHealth(wanted []lvs.ServiceHealth) error {
	d.expected = nil
	want := d.healthNow(wanted)
	services := make([]health.Service, 0, len(want))
	for _, w := range want {
		told := d.rosters[w.ServiceKey].told
		if err := checkSorry(w, told); err != nil {
			return fmt.Errorf("look after service %s: %w", w.ServiceKey, err)
		}
		services = append(services, health.Service{ServiceHealth: w, Members: told, Down: d.inherited[w.ServiceKey]})
	}
	if d.checks == nil {
		if len(want) == 0 {
			return d.refreshAll(d.forgetInherited())
		}
		d.checks = health.NewManager(&checkNetwork{hops: d.hops}, d.log, d.news.put)
	}
	if err := d.checks.Set(services); err != nil {
		return err
	}
	affected := map[lvs.ServiceKey]bool{}
	for _, key := range d.forgetInherited() {
		affected[key] = true
	}
	before := d.health
	d.wanted = wanted
	d.health = map[lvs.ServiceKey]lvs.ServiceHealth{}
	for _, w := range want {
		d.health[w.ServiceKey] = w
		affected[w.ServiceKey] = true
		if w.Sorry.Address.IsValid() {
			d.hops.hold(w.Sorry.Address)
		}
	}
	for key, w := range before {
		affected[key] = true
		if w.Sorry.Address.IsValid() {
			d.hops.release(w.Sorry.Address)
		}
	}
	return d.refreshSet(affected)
}

// forgetInherited returns the services of which a former director withheld something:
// from now on checks decide.
func (d *Director) forgetInherited() []lvs.ServiceKey {
	keys := make([]lvs.ServiceKey, 0, len(d.inherited))
	for key := range d.inherited {
		keys = append(keys, key)
	}
	d.inherited = nil
	return keys
}

// adjustHealth looks after a service as it is after a change: real servers that came or
// went, or the way to one.
func (d *Director) adjustHealth(key lvs.ServiceKey) {
	// Within a change of many, what comes after it looks at all of them once.
	if d.expected != nil || d.wantedOf(key) == nil {
		return
	}
	if err := d.setHealth(d.wanted); err != nil {
		d.log.Error("checks not adjusted", "service", key, "cause", err)
	}
}

// wantedOf returns what is wanted of the health of a service, or nil.
func (d *Director) wantedOf(key lvs.ServiceKey) *lvs.ServiceHealth {
	if at := slices.IndexFunc(d.wanted, func(w lvs.ServiceHealth) bool { return w.ServiceKey == key }); at >= 0 {
		return &d.wanted[at]
	}
	return nil
}

// news are services for which something may have changed. It is safe for concurrent
// use.
type news struct {
	mu     sync.Mutex
	keys   map[lvs.ServiceKey]bool
	signal chan struct{}
}

func newNews() *news { return &news{keys: map[lvs.ServiceKey]bool{}, signal: make(chan struct{}, 1)} }

// put never waits.
func (n *news) put(key lvs.ServiceKey) {
	n.mu.Lock()
	n.keys[key] = true
	n.mu.Unlock()
	select {
	case n.signal <- struct{}{}:
	default:
	}
}

func (n *news) take() []lvs.ServiceKey {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys := make([]lvs.ServiceKey, 0, len(n.keys))
	for key := range n.keys {
		keys = append(keys, key)
	}
	clear(n.keys)
	return keys
}

// What many checks come to at once is carried out together: between two times pass
// newsPause times as long as the last has taken, and longestNewsPause at most.
const (
	newsPause        = 10
	longestNewsPause = 200 * time.Millisecond
)

// followHealth carries out what checks come to, until ctx ends.
func (d *Director) followHealth(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.news.signal:
		}
		took, err := d.carryOutHealth(d.news.take())
		if err != nil {
			d.log.Error("health not carried out", "cause", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(newsPause*took, longestNewsPause)):
		}
	}
}

// carryOutHealth returns how long it has taken beside what it has waited for others.
func (d *Director) carryOutHealth(keys []lvs.ServiceKey) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	begin := time.Now()
	err := d.refreshAll(keys)
	return time.Since(begin), err
}

// closeChecks ends all checks.
func (d *Director) closeChecks() error {
	d.mu.Lock()
	checks := d.checks
	d.mu.Unlock()
	if checks == nil {
		return nil
	}
	checks.Close()
	return checks.Network().(*checkNetwork).close()
}

// sourcePort is one that nothing is sent to: to find the source address of a way, a
// socket is connected, no more.
const sourcePort = 9

// namespaceRetry is after how long it is tried again to make a namespace.
const namespaceRetry = 10 * time.Second

// A checkNetwork sends as the host does, or to the virtual address by a real server's
// next hop.
type checkNetwork struct {
	health.Host
	hops *hopTable

	mu     sync.Mutex
	space  *probe.Namespace
	failed error
	tried  time.Time
	closed bool
}

// Dial implements [health.Network].
func (n *checkNetwork) Dial(ctx context.Context, network string, target health.Target) (net.Conn, error) {
	if target.Path != lvs.PathVIP {
		return n.Host.Dial(ctx, network, target)
	}
	hop, known := n.hops.find(target.Server.Address)
	hop = target.Server.Judge(hop)
	switch {
	case !known:
		return nil, &health.UnreachableError{Cause: health.PathUnavailable, Detail: "its next hop is not known yet"}
	case hop.Local:
		return n.Host.Dial(ctx, network, target)
	case !hop.Usable():
		return nil, &health.UnreachableError{Cause: health.NoNextHop, Detail: hop.Problem}
	case target.Server.Method != lvs.DirectRouting && target.Server.Method != lvs.Tunnelling:
		return nil, &health.UnreachableError{
			Cause: health.PathUnavailable, Detail: fmt.Sprintf("no check goes by forwarding method %s; say path: rip", target.Server.Method),
		}
	}
	space, err := n.namespace()
	if err != nil {
		return nil, &health.UnreachableError{Cause: health.PathUnavailable, Detail: err.Error()}
	}
	source, err := sourceOf(target, hop)
	if err != nil {
		return nil, err
	}
	return space.Dial(ctx, network, source, target.Address, target.Server, hop)
}

// sourceOf returns an address of the host, of the virtual one's family, that the real
// server can answer to.
func sourceOf(target health.Target, hop lvs.NextHop) (netip.Addr, error) {
	vip := target.Address.Addr()
	if target.Server.Address.Is4() == vip.Is4() {
		return sourceTo(target.Server.Address, hop)
	}
	device, err := net.InterfaceByIndex(hop.InterfaceIndex)
	if err != nil {
		return netip.Addr{}, err
	}
	addrs, err := device.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		// What is the only one of its network is likely a virtual address.
		if err == nil && prefix.Addr().Is4() == vip.Is4() && prefix.Addr().IsGlobalUnicast() && !prefix.IsSingleIP() {
			return prefix.Addr(), nil
		}
	}
	return netip.Addr{}, &health.UnreachableError{
		Cause: health.PathUnavailable, Detail: fmt.Sprintf("%s has no address of the family of %s that is its own", device.Name, vip),
	}
}

// sourceTo returns the address that the host speaks to another one from, by a next hop
// that knows it as a rule.
func sourceTo(addr netip.Addr, hop lvs.NextHop) (netip.Addr, error) {
	if hop.SourceIP.IsValid() {
		return hop.SourceIP, nil
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, sourcePort)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone(""), nil
}

// namespace makes the namespace when it is needed first.
func (n *checkNetwork) namespace() (*probe.Namespace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.space != nil:
		return n.space, nil
	case n.closed:
		return nil, net.ErrClosed
	case n.failed != nil && time.Since(n.tried) < namespaceRetry:
		return nil, n.failed
	}
	n.tried = time.Now()
	n.space, n.failed = probe.New(func(outside int, inside lvs.MAC) (probe.Carrier, error) {
		probes, err := dataplane.OpenProbes(outside, inside)
		if err != nil {
			return nil, err
		}
		return probeCarrier{probes}, nil
	})
	return n.space, n.failed
}

func (n *checkNetwork) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.space == nil {
		return nil
	}
	if err := n.space.Close(); err != nil {
		return fmt.Errorf("take the namespace of health checks down: %w", err)
	}
	n.space = nil
	return nil
}

// A probeCarrier has probes carried by the data plane.
type probeCarrier struct{ *dataplane.Probes }

// Route implements [probe.Carrier].
func (c probeCarrier) Route(r probe.Route) error { return c.Probes.Route(dataplane.Probe(r)) }
