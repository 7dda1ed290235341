package reconcile

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// A model is a target that is strict: it refuses what would not change anything.
type model struct {
	state lvs.State
	// emptied: a service with servers has lost its last one.
	emptied bool
}

func (m *model) at(key lvs.ServiceKey) int {
	return slices.IndexFunc(m.state.Services, func(s lvs.ServiceState) bool { return s.ServiceKey == key })
}

func (m *model) service(key lvs.ServiceKey) *lvs.ServiceState { return &m.state.Services[m.at(key)] }

func serverAt(s *lvs.ServiceState, key lvs.RealServerKey) int {
	return slices.IndexFunc(s.Servers, func(r lvs.RealServer) bool { return r.RealServerKey == key })
}

func (m *model) AddService(s lvs.Service) error {
	if m.at(s.ServiceKey) >= 0 {
		return lvs.ErrServiceExists
	}
	m.state.Services = append(m.state.Services, lvs.ServiceState{Service: s})
	return nil
}

func (m *model) EditService(s lvs.Service) error {
	if was := m.service(s.ServiceKey); was.Service == s {
		return fmt.Errorf("nothing to edit")
	}
	m.service(s.ServiceKey).Service = s
	return nil
}

func (m *model) DeleteService(key lvs.ServiceKey) error {
	m.state.Services = slices.Delete(m.state.Services, m.at(key), m.at(key)+1)
	return nil
}

func (m *model) AddServer(key lvs.ServiceKey, r lvs.RealServer) error {
	s := m.service(key)
	if serverAt(s, r.RealServerKey) >= 0 {
		return lvs.ErrServerExists
	}
	s.Servers = slices.Insert(s.Servers, 0, r)
	return nil
}

func (m *model) EditServer(key lvs.ServiceKey, r lvs.RealServer) error {
	s := m.service(key)
	at := serverAt(s, r.RealServerKey)
	if s.Servers[at] == r {
		return fmt.Errorf("nothing to edit")
	}
	s.Servers[at] = r
	return nil
}

func (m *model) DeleteServer(key lvs.ServiceKey, r lvs.RealServerKey) error {
	s := m.service(key)
	at := serverAt(s, r)
	s.Servers = slices.Delete(s.Servers, at, at+1)
	m.emptied = m.emptied || len(s.Servers) == 0
	return nil
}

func (m *model) OrderServers(key lvs.ServiceKey, order []lvs.RealServerKey) error {
	s := m.service(key)
	slices.SortFunc(s.Servers, func(a, b lvs.RealServer) int {
		return slices.Index(order, a.RealServerKey) - slices.Index(order, b.RealServerKey)
	})
	return nil
}

func (m *model) SetSysctls(key lvs.ServiceKey, changes []lvs.SysctlChange) error {
	settings := &m.state.Sysctls
	if (key != lvs.ServiceKey{}) {
		settings = &m.service(key).Sysctls
	}
	for _, c := range changes {
		*settings = slices.DeleteFunc(*settings, func(s lvs.SysctlSetting) bool { return s.Name == c.Name })
		if !c.Reset {
			*settings = append(*settings, lvs.SysctlSetting{Name: c.Name, Value: c.Value})
		}
	}
	return nil
}

func (m *model) AddPeer(addr netip.Addr) error {
	m.state.Peers = append(m.state.Peers, addr)
	return nil
}

func (m *model) SetLocalAddresses(pool []lvs.LocalAddress) error {
	if slices.Equal(pool, m.state.LocalAddresses) {
		return fmt.Errorf("nothing to set")
	}
	if _, err := lvs.CheckLocalAddresses(pool); err != nil {
		return err
	}
	m.state.LocalAddresses = pool
	return nil
}

func (m *model) SetMarkRules(rules []lvs.MarkRule) error {
	if slices.Equal(rules, m.state.Marks) {
		return fmt.Errorf("nothing to set")
	}
	m.state.Marks = rules
	return nil
}

func (m *model) DeletePeer(addr netip.Addr) error {
	m.state.Peers = slices.DeleteFunc(m.state.Peers, func(a netip.Addr) bool { return a == addr })
	return nil
}

// canonical sorts what has no order.
func canonical(s lvs.State) lvs.State {
	byName := func(a, b lvs.SysctlSetting) int { return strings.Compare(a.Name, b.Name) }
	s.Sysctls = slices.SortedFunc(slices.Values(s.Sysctls), byName)
	s.Peers = slices.SortedFunc(slices.Values(s.Peers), netip.Addr.Compare)
	s.LocalAddresses = slices.SortedFunc(slices.Values(s.LocalAddresses), func(a, b lvs.LocalAddress) int {
		return a.Prefix.Addr().Compare(b.Prefix.Addr())
	})
	s.Services = slices.SortedFunc(slices.Values(s.Services), func(a, b lvs.ServiceState) int { return a.ServiceKey.Compare(b.ServiceKey) })
	for i := range s.Services {
		s.Services[i].Sysctls = slices.SortedFunc(slices.Values(s.Services[i].Sysctls), byName)
		s.Services[i].Servers = append([]lvs.RealServer{}, s.Services[i].Servers...)
	}
	return s
}

func randomState(g *rand.Rand) (state lvs.State) {
	settings := func() (settings []lvs.SysctlSetting) {
		for _, name := range []string{"a", "b", "c"} {
			if g.IntN(2) == 0 {
				settings = append(settings, lvs.SysctlSetting{Name: name, Value: g.Int32N(2)})
			}
		}
		return settings
	}
	address := func(last int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(last)}) }
	state.Sysctls = settings()
	for range 1 + g.IntN(2) {
		state.Marks = append(state.Marks, lvs.MarkRule{Mark: 1 + g.Uint32N(2)})
	}
	for i := range 3 {
		if g.IntN(2) == 0 {
			state.LocalAddresses = append(state.LocalAddresses, lvs.LocalAddress{
				Prefix: netip.PrefixFrom(address(i), 32), Ports: lvs.PortRange{First: 1, Last: 1 + uint16(g.IntN(2))},
			})
		}
	}
	for i := range 3 {
		if g.IntN(2) == 0 {
			state.Peers = append(state.Peers, address(i))
		}
	}
	for i := range 3 {
		if g.IntN(3) == 0 {
			continue
		}
		s := lvs.ServiceState{Sysctls: settings()}
		s.ServiceKey = lvs.ServiceKey{Protocol: lvs.TCP, Address: address(100 + i), Port: 80}
		s.Scheduler = lvs.Schedulers()[g.IntN(2)]
		for _, j := range g.Perm(5)[:g.IntN(5)] {
			s.Servers = append(s.Servers, lvs.RealServer{
				RealServerKey: lvs.RealServerKey{Address: address(10 + j), Port: 80}, Weight: g.Uint32N(2),
			})
		}
		state.Services = append(state.Services, s)
	}
	return state
}

func TestPlansLeadFromAnyStateToAnyOther(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	g := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		have, want := randomState(g), randomState(g)
		m := &model{state: canonical(have)}
		alwaysServed := true
		for _, s := range want.Services {
			if len(s.Servers) == 0 {
				alwaysServed = false
			}
		}
		steps := Plan(have, want)
		for _, step := range steps {
			if err := step.Do(m); err != nil {
				t.Fatalf("seed %d, step %s: %v\nhave %+v\nwant %+v", seed, step, err, have, want)
			}
		}
		if diff := cmp.Diff(canonical(want), canonical(m.state), compareAddresses); diff != "" {
			t.Fatalf("seed %d, -want +got:\n%s\nsteps %v", seed, diff, steps)
		}
		if m.emptied && alwaysServed {
			t.Fatalf("seed %d: a service was without servers in between: %v\nhave %+v\nwant %+v", seed, steps, have, want)
		}
		if again := Plan(want, want); len(again) != 0 {
			t.Fatalf("seed %d: steps %v between equal states", seed, again)
		}
	}
}

// What is printed to people, and in which order things happen.
func TestSteps(t *testing.T) {
	key := func(port uint16) lvs.ServiceKey {
		return lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: port}
	}
	server := func(last byte, weight uint32) lvs.RealServer {
		return lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: netip.AddrFrom4([4]byte{192, 0, 2, last}), Port: 80}, Weight: weight}
	}
	service := func(port uint16, scheduler lvs.Scheduler, servers ...lvs.RealServer) lvs.ServiceState {
		return lvs.ServiceState{Service: lvs.Service{ServiceKey: key(port), Scheduler: scheduler}, Servers: servers}
	}
	own := service(81, "rr")
	own.Sysctls = []lvs.SysctlSetting{{Name: "timeout_udp", Value: 9}}
	have := lvs.State{
		Sysctls: []lvs.SysctlSetting{{Name: "sloppy_tcp", Value: 1}},
		Peers:   []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Services: []lvs.ServiceState{
			service(80, "rr", server(11, 1), server(12, 1)), service(443, "rr"),
		},
	}
	want := lvs.State{
		Sysctls:  []lvs.SysctlSetting{{Name: "conn_reuse_mode", Value: 0}},
		Peers:    []netip.Addr{netip.MustParseAddr("192.0.2.2")},
		Services: []lvs.ServiceState{service(80, "wlc", server(12, 2), server(13, 1)), own},
	}
	var got []string
	for _, step := range Plan(have, want) {
		got = append(got, step.String())
	}
	if diff := cmp.Diff([]string{
		"set conn_reuse_mode=0 sloppy_tcp=default",
		"add peer 192.0.2.2",
		"edit service TCP 192.0.2.100:80",
		"add real server 192.0.2.13:80 to TCP 192.0.2.100:80",
		"edit real server 192.0.2.12:80 of TCP 192.0.2.100:80",
		"delete real server 192.0.2.11:80 of TCP 192.0.2.100:80",
		"order the real servers of TCP 192.0.2.100:80",
		"add service TCP 192.0.2.100:81 rr",
		"set timeout_udp=9 of TCP 192.0.2.100:81",
		"delete service TCP 192.0.2.100:443",
		"delete peer 192.0.2.1",
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
