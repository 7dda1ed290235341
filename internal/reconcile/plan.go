package reconcile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A Target is what steps are carried out on.
type Target interface {
	AddService(lvs.Service) error
	EditService(lvs.Service) error
	DeleteService(lvs.ServiceKey) error
	// AddServer adds a real server before all others.
	AddServer(lvs.ServiceKey, lvs.RealServer) error
	EditServer(lvs.ServiceKey, lvs.RealServer) error
	DeleteServer(lvs.ServiceKey, lvs.RealServerKey) error
	// OrderServers says in which order all servers of a service stand.
	OrderServers(lvs.ServiceKey, []lvs.RealServerKey) error
	// SetSysctls changes those of a service, or of the director for the zero key.
	SetSysctls(lvs.ServiceKey, []lvs.SysctlChange) error
	AddPeer(netip.Addr) error
	DeletePeer(netip.Addr) error
	// SetMarkRules replaces all rules.
	SetMarkRules([]lvs.MarkRule) error
	// SetLocalAddresses replaces the pool.
	SetLocalAddresses([]lvs.LocalAddress) error
}

// A Step is one change.
type Step struct {
	sign   Sign
	text   string
	detail string
	do     func(Target) error
}

// A Sign says how a step is drawn.
type Sign string

// The signs.
const (
	Adds    Sign = "+"
	Deletes Sign = "-"
	Edits   Sign = "~"
)

// Sign says whether something comes, goes, or becomes another.
func (s Step) Sign() Sign { return s.sign }

// String says what the step changes: "add service TCP 192.0.2.100:80 rr".
func (s Step) String() string { return s.text }

// Detail says what becomes of what: "weight 1 -> 2"; "" where String says all.
func (s Step) Detail() string { return s.detail }

// Do carries the step out.
func (s Step) Do(t Target) error { return s.do(t) }

// Plan returns the steps that lead from have to want, none if there is no
// difference. What is in both is edited, so that its connections and counters stay.
// What is new comes before what goes: no service that has real servers before and
// after is without one in between. Neither state may have a key twice.
func Plan(have, want lvs.State) []Step {
	var p plan
	p.sysctls(lvs.ServiceKey{}, have.Sysctls, want.Sysctls)
	for _, addr := range missing(want.Peers, have.Peers) {
		p.add(Adds, func(t Target) error { return t.AddPeer(addr) }, "add peer %s", addr)
	}
	pool := union(have.LocalAddresses, want.LocalAddresses)
	p.localAddresses(have.LocalAddresses, pool)
	old := make(map[lvs.ServiceKey]*lvs.ServiceState, len(have.Services))
	for i := range have.Services {
		old[have.Services[i].ServiceKey] = &have.Services[i]
	}
	for _, s := range want.Services {
		was, there := old[s.ServiceKey]
		delete(old, s.ServiceKey)
		switch {
		case there && sameService(*was, s):
			continue // as most are, of many
		case !there:
			was = &lvs.ServiceState{}
		}
		switch {
		case !there:
			p.add(Adds, func(t Target) error { return t.AddService(s.Service) }, "add service %s %s", s.ServiceKey, s.Scheduler)
		case was.Service != s.Service:
			p.add(Edits, func(t Target) error { return t.EditService(s.Service) }, "edit service %s", s.ServiceKey)
			p.detail(serviceDetail(was.Service, s.Service))
		}
		p.sysctls(s.ServiceKey, was.Sysctls, s.Sysctls)
		p.servers(s.ServiceKey, was.Servers, s.Servers)
	}
	if !slices.Equal(have.Marks, want.Marks) {
		p.add(Edits, func(t Target) error { return t.SetMarkRules(want.Marks) }, "set %d mark rules, of %d", len(want.Marks), len(have.Marks))
		p.detail(marksDetail(have.Marks, want.Marks))
	}
	for _, s := range have.Services {
		if _, goes := old[s.ServiceKey]; goes {
			p.add(Deletes, func(t Target) error { return t.DeleteService(s.ServiceKey) }, "delete service %s", s.ServiceKey)
		}
	}
	p.localAddresses(pool, want.LocalAddresses)
	for _, addr := range missing(have.Peers, want.Peers) {
		p.add(Deletes, func(t Target) error { return t.DeletePeer(addr) }, "delete peer %s", addr)
	}
	return p.steps
}

// union returns a pool that real servers of both states can use: what is wanted, and what
// of the other does not overlap with it, as far as there is room.
func union(have, want []lvs.LocalAddress) []lvs.LocalAddress {
	pool := slices.Clone(want)
	for _, h := range have {
		if slices.Contains(want, h) {
			continue
		}
		if _, err := lvs.CheckLocalAddresses(append(slices.Clone(pool), h)); err == nil {
			pool = append(pool, h)
		}
	}
	if len(pool) == len(have) && !slices.ContainsFunc(pool, func(l lvs.LocalAddress) bool { return !slices.Contains(have, l) }) {
		return have // in its own order
	}
	return pool
}

// localAddresses replaces the pool, if that is another one.
func (p *plan) localAddresses(have, want []lvs.LocalAddress) {
	if slices.Equal(have, want) {
		return
	}
	var come, gone []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			come = append(come, fmt.Sprintf("%s with ports %s", w, w.Ports))
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			gone = append(gone, h.String())
		}
	}
	switch do := func(t Target) error { return t.SetLocalAddresses(want) }; {
	case len(gone) == 0 && len(come) > 0:
		p.add(Adds, do, "add local address %s", strings.Join(come, ", "))
	case len(come) == 0 && len(gone) > 0:
		p.add(Deletes, do, "delete local address %s", strings.Join(gone, ", "))
	case len(come) == 0:
		p.add(Edits, do, "order the local addresses")
	default:
		p.add(Edits, do, "set local addresses")
		p.detail(fmt.Sprintf("%s -> %s", strings.Join(gone, ", "), strings.Join(come, ", ")))
	}
}

// missing returns those of all that are not in some.
func missing(all, some []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(some, a) })
}

type plan struct{ steps []Step }

func (p *plan) add(sign Sign, do func(Target) error, format string, args ...any) {
	p.steps = append(p.steps, Step{sign: sign, text: fmt.Sprintf(format, args...), do: do})
}

// detail is that of the last step.
func (p *plan) detail(text string) { p.steps[len(p.steps)-1].detail = text }

// sysctls changes those of a service, or of the director, in one step.
func (p *plan) sysctls(key lvs.ServiceKey, have, want []lvs.SysctlSetting) {
	var changes []lvs.SysctlChange
	text := "set"
	for _, s := range want {
		if !slices.Contains(have, s) {
			changes = append(changes, lvs.SysctlChange{Name: s.Name, Value: s.Value})
			text += fmt.Sprintf(" %s=%d", s.Name, s.Value)
		}
	}
	for _, s := range have {
		if !slices.ContainsFunc(want, func(w lvs.SysctlSetting) bool { return w.Name == s.Name }) {
			changes = append(changes, lvs.SysctlChange{Name: s.Name, Reset: true})
			text += fmt.Sprintf(" %s=default", s.Name)
		}
	}
	if len(changes) == 0 {
		return
	}
	if (key != lvs.ServiceKey{}) {
		text += " of " + key.String()
	}
	p.add(Edits, func(t Target) error { return t.SetSysctls(key, changes) }, "%s", text)
}

func (p *plan) servers(key lvs.ServiceKey, have, want []lvs.RealServer) {
	old := map[lvs.RealServerKey]lvs.RealServer{}
	order := make([]lvs.RealServerKey, 0, len(have)+len(want)) // as it will be
	for _, s := range have {
		old[s.RealServerKey] = s
		order = append(order, s.RealServerKey)
	}
	wanted := make([]lvs.RealServerKey, len(want))
	var come []lvs.RealServerKey
	for i, s := range slices.Backward(want) {
		wanted[i] = s.RealServerKey
		was, there := old[s.RealServerKey]
		delete(old, s.RealServerKey)
		switch {
		case !there:
			p.add(Adds, func(t Target) error { return t.AddServer(key, s) }, "add real server %s to %s", s.RealServerKey, key)
			come = append(come, s.RealServerKey)
		case was != s:
			p.add(Edits, func(t Target) error { return t.EditServer(key, s) }, "edit real server %s of %s", s.RealServerKey, key)
			p.detail(serverDetail(was, s))
		}
	}
	for _, s := range have {
		if _, goes := old[s.RealServerKey]; goes {
			p.add(Deletes, func(t Target) error { return t.DeleteServer(key, s.RealServerKey) }, "delete real server %s of %s", s.RealServerKey, key)
		}
	}
	slices.Reverse(come)
	order = slices.DeleteFunc(append(come, order...), func(k lvs.RealServerKey) bool {
		_, goes := old[k]
		return goes
	})
	if !slices.Equal(order, wanted) {
		p.add(Edits, func(t Target) error { return t.OrderServers(key, wanted) }, "order the real servers of %s", key)
	}
}
