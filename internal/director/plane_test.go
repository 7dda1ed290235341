package director

import (
	"context"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A memoryPlane is a plane without packets: it keeps what it is told, as the
// data plane does, and trusts that the director asks for nothing impossible.
type memoryPlane struct {
	mu          sync.Mutex
	services    []lvs.ServiceStatus
	timeouts    lvs.Timeouts
	sysctls     map[lvs.ServiceKey][]lvs.SysctlChange // those asked for
	hopWrites   map[netip.Addr]int
	connections []lvs.Connection
	peers       map[netip.Addr]lvs.MAC
	peerMACs    map[lvs.MAC]bool
	marks       []lvs.MarkRule
	locals      []lvs.LocalAddress
	drains      map[drainKey]dataplane.Drain
	slowStarts  []drainKey
	fail        error         // the answer to every change
	failAt      int           // the change that fails, counted down; 0: none
	failOn      bool          // those after it fail too
	changed     chan struct{} // holds a token when there was a change
}

func newMemoryPlane() *memoryPlane {
	return &memoryPlane{
		changed: make(chan struct{}, 1),
		drains:  map[drainKey]dataplane.Drain{}, hopWrites: map[netip.Addr]int{}, peers: map[netip.Addr]lvs.MAC{}, peerMACs: map[lvs.MAC]bool{},
	}
}

func (p *memoryPlane) service(key lvs.ServiceKey) *lvs.ServiceStatus {
	i := slices.IndexFunc(p.services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == key })
	return &p.services[i]
}

func (p *memoryPlane) change(do func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failAt > 0 {
		if p.failAt--; p.failAt == 0 {
			if p.failOn {
				p.fail = errPlane
			}
			return errPlane
		}
	}
	if p.fail != nil {
		return p.fail
	}
	do()
	select {
	case p.changed <- struct{}{}:
	default:
	}
	return nil
}

func (p *memoryPlane) AddService(s lvs.Service) error {
	return p.change(func() { p.services = append(p.services, lvs.ServiceStatus{Service: s}) })
}

func (p *memoryPlane) EditService(s lvs.Service) error {
	return p.change(func() { p.service(s.ServiceKey).Service = s })
}

func (p *memoryPlane) DeleteService(key lvs.ServiceKey) error {
	return p.change(func() {
		p.services = slices.DeleteFunc(p.services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == key })
		delete(p.sysctls, key)
	})
}

func (p *memoryPlane) AddServer(key lvs.ServiceKey, r lvs.RealServer) error {
	return p.change(func() {
		s := p.service(key)
		s.Servers = slices.Insert(s.Servers, 0, lvs.RealServerStatus{RealServer: r})
	})
}

func (p *memoryPlane) EditServer(key lvs.ServiceKey, r lvs.RealServer) error {
	return p.change(func() {
		for i, there := range p.service(key).Servers {
			if there.RealServerKey == r.RealServerKey {
				p.service(key).Servers[i].RealServer = r
			}
		}
	})
}

func (p *memoryPlane) DeleteServer(key lvs.ServiceKey, r lvs.RealServerKey) error {
	return p.change(func() {
		s := p.service(key)
		s.Servers = slices.DeleteFunc(s.Servers, func(there lvs.RealServerStatus) bool { return there.RealServerKey == r })
	})
}

func (p *memoryPlane) SetDrain(key lvs.ServiceKey, server lvs.RealServerKey, drain dataplane.Drain) error {
	return p.change(func() { p.drains[drainKey{key, server}] = drain })
}

func (p *memoryPlane) StartSlowly(key lvs.ServiceKey, server lvs.RealServerKey, _ time.Duration) error {
	return p.change(func() { p.slowStarts = append(p.slowStarts, drainKey{key, server}) })
}

func (p *memoryPlane) Services() ([]lvs.ServiceStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	services := slices.Clone(p.services)
	for i := range services {
		services[i].Servers = slices.Clone(services[i].Servers)
	}
	return services, nil
}

func (p *memoryPlane) Configured() (services []lvs.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.services {
		services = append(services, s.Service)
	}
	return services
}

func (p *memoryPlane) Zero(key lvs.ServiceKey) error {
	return p.change(func() {
		s := p.service(key)
		s.Counters = lvs.Counters{}
		for i := range s.Servers {
			s.Servers[i].Counters = lvs.Counters{}
		}
	})
}

func (p *memoryPlane) Timeouts() lvs.Timeouts { return p.timeouts }

func (p *memoryPlane) SetTimeouts(t lvs.Timeouts) error {
	return p.change(func() { p.timeouts = t })
}

func (p *memoryPlane) OrderServers(key lvs.ServiceKey, order []lvs.RealServerKey) error {
	return p.change(func() {
		slices.SortFunc(p.service(key).Servers, func(a, b lvs.RealServerStatus) int {
			return slices.Index(order, a.RealServerKey) - slices.Index(order, b.RealServerKey)
		})
	})
}

func (p *memoryPlane) Sysctls(key lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	var values []lvs.SysctlValue
	for _, s := range lvs.Sysctls() {
		v := lvs.SysctlValue{Sysctl: s, Value: s.Default}
		for _, c := range p.sysctls[key] {
			switch {
			case c.Name == s.Name && c.Reset:
				v.Value, v.Own = s.Default, false
			case c.Name == s.Name:
				v.Value, v.Own = c.Value, key != lvs.ServiceKey{}
			}
		}
		values = append(values, v)
	}
	return values, nil
}

func (p *memoryPlane) OwnSysctls(key lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	values, err := p.Sysctls(key)
	return slices.DeleteFunc(values, func(v lvs.SysctlValue) bool { return !v.Own }), err
}

func (p *memoryPlane) SetSysctls(key lvs.ServiceKey, changes []lvs.SysctlChange) error {
	return p.change(func() {
		if p.sysctls == nil {
			p.sysctls = map[lvs.ServiceKey][]lvs.SysctlChange{}
		}
		p.sysctls[key] = append(p.sysctls[key], changes...)
	})
}

func (p *memoryPlane) SetNextHop(addr netip.Addr, hop lvs.NextHop) error {
	return p.setNextHops(addr, hop, func(lvs.ServiceKey, lvs.RealServerKey) bool { return true })
}

func (p *memoryPlane) SetServerNextHop(key lvs.ServiceKey, server lvs.RealServerKey, hop lvs.NextHop) error {
	return p.setNextHops(server.Address, hop, func(service lvs.ServiceKey, s lvs.RealServerKey) bool {
		return service == key && s == server
	})
}

func (p *memoryPlane) setNextHops(addr netip.Addr, hop lvs.NextHop, isMeant func(lvs.ServiceKey, lvs.RealServerKey) bool) error {
	hop.InterfaceName = "" // the data plane does not know it
	return p.change(func() {
		p.hopWrites[addr]++
		for i := range p.services {
			for j := range p.services[i].Servers {
				server := &p.services[i].Servers[j]
				if server.Address == addr && isMeant(p.services[i].ServiceKey, server.RealServerKey) {
					server.NextHop = hop
				}
			}
		}
	})
}

func (p *memoryPlane) Peers() (map[netip.Addr]lvs.MAC, error) { return maps.Clone(p.peers), nil }

func (p *memoryPlane) SetPeer(addr netip.Addr, mac lvs.MAC) error {
	return p.change(func() { p.peers[addr] = mac })
}

func (p *memoryPlane) DeletePeer(addr netip.Addr) error {
	return p.change(func() { delete(p.peers, addr) })
}

func (p *memoryPlane) PeerMACs() ([]lvs.MAC, error) {
	return slices.Collect(maps.Keys(p.peerMACs)), nil
}

func (p *memoryPlane) AddPeerMAC(mac lvs.MAC) error {
	return p.change(func() { p.peerMACs[mac] = true })
}

func (p *memoryPlane) DeletePeerMAC(mac lvs.MAC) error {
	return p.change(func() { delete(p.peerMACs, mac) })
}

func (p *memoryPlane) MarkRules() []lvs.MarkRule { return p.marks }

func (p *memoryPlane) SetMarkRules(rules []lvs.MarkRule) error {
	return p.change(func() { p.marks = slices.Clone(rules) })
}

func (p *memoryPlane) LocalAddresses() []lvs.LocalAddress { return slices.Clone(p.locals) }

func (p *memoryPlane) SetLocalAddresses(pool []lvs.LocalAddress) error {
	return p.change(func() { p.locals = inFamilies(pool) })
}

func (p *memoryPlane) Sweep() (dataplane.SweepResult, error) {
	return dataplane.SweepResult{Used: len(p.connections)}, nil
}

func (p *memoryPlane) Connections() iter.Seq[lvs.Connection] { return slices.Values(p.connections) }

func (p *memoryPlane) TableSize() int { return 4096 }

func (p *memoryPlane) Verdicts() ([]dataplane.VerdictCount, error) {
	return []dataplane.VerdictCount{{Name: "forward", Kind: "normal", Meaning: "to a real server", Packets: 7}}, nil
}

func (p *memoryPlane) Explain(frame []byte, ifindex int) (lvs.Explanation, error) {
	return lvs.Explanation{In: lvs.Frame{InterfaceIndex: ifindex, Length: len(frame)}}, p.fail
}

func (p *memoryPlane) Trace(_ context.Context, filter lvs.TraceFilter, visit func(lvs.TraceReport) error) error {
	return visit(lvs.TraceReport{Lost: filter.Count})
}

var errPlane = errors.New("map is broken")

// A fakeWatcher notes what is watched, and answers at once if it knows.
type fakeWatcher struct {
	watched map[netip.Addr]bool
	answer  func(netip.Addr)
}

func newFakeWatcher() *fakeWatcher {
	return &fakeWatcher{watched: map[netip.Addr]bool{}, answer: func(netip.Addr) {}}
}

func (w *fakeWatcher) Watch(addr netip.Addr) {
	w.watched[addr] = true
	w.answer(addr)
}

func (w *fakeWatcher) Forget(addr netip.Addr) { delete(w.watched, addr) }
