package director

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/reconcile"
)

// State implements [api.Director].
func (d *Director) State(context.Context) (lvs.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state()
}

// state returns what the director has now: services in the order of their keys,
// which says the same of two directors that were told the same in another order.
func (d *Director) state() (state lvs.State, err error) {
	if state.Sysctls, err = d.settings(lvs.ServiceKey{}); err != nil {
		return lvs.State{}, err
	}
	for _, peer := range d.hops.peers() {
		if peer.Configured {
			state.Peers = append(state.Peers, peer.Address)
		}
	}
	state.Marks = slices.Clone(d.plane.MarkRules())
	if len(state.Marks) == 0 {
		state.Marks = nil
	}
	state.LocalAddresses = d.plane.LocalAddresses()
	configured := d.plane.Configured()
	state.Services = slices.Grow(state.Services, len(configured))
	for _, s := range configured {
		service := lvs.ServiceState{Service: s}
		var err error
		if service.Sysctls, err = d.settings(s.ServiceKey); err != nil {
			return lvs.State{}, err
		}
		service.Servers = append([]lvs.RealServer(nil), d.rosters[s.ServiceKey].told...)
		state.Services = append(state.Services, service)
	}
	slices.SortFunc(state.Services, func(a, b lvs.ServiceState) int { return a.ServiceKey.Compare(b.ServiceKey) })
	return state, nil
}

// settings returns the sysctls that the director was told, or, of a service, those
// that it has for itself.
func (d *Director) settings(key lvs.ServiceKey) ([]lvs.SysctlSetting, error) {
	var values []lvs.SysctlValue
	var err error
	if (key == lvs.ServiceKey{}) {
		values, err = d.plane.Sysctls(key)
		values = slices.DeleteFunc(values, func(v lvs.SysctlValue) bool { return v.Value == v.Default })
	} else {
		values, err = d.plane.OwnSysctls(key)
	}
	if err != nil {
		return nil, err
	}
	var settings []lvs.SysctlSetting
	for _, v := range values {
		settings = append(settings, setting(v.Sysctl, v.Value))
	}
	return settings, nil
}

// setting returns a value as it was told: the modes of defence turn from 1 to 2 and
// back by themselves.
func setting(s lvs.Sysctl, value int32) lvs.SysctlSetting {
	if s.IsMode() && value == 2 {
		value = 1
	}
	return lvs.SysctlSetting{Name: s.Name, Value: value}
}

// Restore implements [api.Director].
func (d *Director) Restore(_ context.Context, want lvs.State, dryRun bool) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	want, err := d.checkState(want)
	if err != nil {
		return nil, err
	}
	have, err := d.state()
	if err != nil {
		return nil, err
	}
	steps := reconcile.Plan(have, want)
	changes := make([]string, 0, len(steps))
	for _, step := range steps {
		changes = append(changes, step.String())
	}
	if dryRun {
		return changes, nil
	}
	if err := d.configure(have, want, steps, d.config.asked.Health); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	d.log.Info("state restored", "services", len(want.Services), "changes", len(steps))
	return changes, nil
}

// reach carries out the steps from one state to another, all of them or none.
func (d *Director) reach(have, want lvs.State, steps []reconcile.Step) error {
	// All next hops are looked for at once, not each before its server is added.
	for _, s := range want.Services {
		for _, server := range s.Servers {
			d.hops.hold(server.Address)
			defer d.hops.release(server.Address)
		}
	}
	if err := d.carryOut(steps); err != nil {
		return d.undo(have, err)
	}
	return nil
}

func (d *Director) carryOut(steps []reconcile.Step) error {
	for _, step := range steps {
		if err := step.Do(unlocked{d}); err != nil {
			return err
		}
	}
	return nil
}

// undo leads back to what was before a change that failed with cause. What it
// returns wraps cause, and says whether all is as before.
func (d *Director) undo(before lvs.State, cause error) error {
	now, err := d.state()
	if err == nil {
		err = d.carryOut(reconcile.Plan(now, before))
	}
	if err != nil {
		d.log.Error("half changed", "cause", cause, "undo", err)
		return fmt.Errorf("%w; it can't be undone, and the state is in between: %w", cause, err)
	}
	return fmt.Errorf("%w; all is as before", cause)
}

// checkState returns why a state is refused, as an *lvs.ItemError, or the state as
// the plane will have it.
func (d *Director) checkState(state lvs.State) (lvs.State, error) {
	var err error
	if state.Sysctls, err = checkSettings("sysctls", state.Sysctls, false); err != nil {
		return lvs.State{}, err
	}
	for i, addr := range state.Peers {
		err := d.checkPeerAddress(addr)
		if slices.Contains(state.Peers[:i], addr) {
			err = errTwice
		}
		if err != nil {
			return lvs.State{}, refuse(fmt.Sprintf("peers[%d]", i), "peer %s: %w", addr, err)
		}
	}
	for i, rule := range state.Marks {
		if err := rule.Check(); err != nil {
			return lvs.State{}, refuse(fmt.Sprintf("marks[%d]", i), "mark rule: %w", err)
		}
		if slices.Contains(state.Marks[:i], rule) {
			return lvs.State{}, refuse(fmt.Sprintf("marks[%d]", i), "mark rule of mark %d: %w", rule.Mark, errTwice)
		}
	}
	if i, err := lvs.CheckLocalAddresses(state.LocalAddresses); err != nil {
		return lvs.State{}, refuse(fmt.Sprintf("local_addresses[%d]", i), "%w", err)
	}
	state.LocalAddresses = inFamilies(state.LocalAddresses)
	state.Services = slices.Clone(state.Services)
	keys := map[lvs.ServiceKey]bool{}
	for i := range state.Services {
		s, item := &state.Services[i], fmt.Sprintf("services[%d]", i)
		err := CheckService(s.Service)
		if keys[s.ServiceKey] {
			err = errTwice
		}
		if err != nil {
			return lvs.State{}, refuse(item, "service %s: %w", s.ServiceKey, err)
		}
		keys[s.ServiceKey] = true
		s.Service = withoutIdleMask(s.Service)
		if s.Sysctls, err = checkSettings(item+".sysctls", s.Sysctls, true); err != nil {
			return lvs.State{}, err
		}
		if err := checkServers(item, s, state.LocalAddresses); err != nil {
			return lvs.State{}, err
		}
	}
	return state, nil
}

// inFamilies returns a pool as the plane has it: IPv4 first.
func inFamilies(pool []lvs.LocalAddress) []lvs.LocalAddress {
	return slices.SortedStableFunc(slices.Values(pool), func(a, b lvs.LocalAddress) int {
		return a.Prefix.Addr().BitLen() - b.Prefix.Addr().BitLen()
	})
}

var errTwice = fmt.Errorf("%w: given twice", lvs.ErrInvalid)

func refuse(item, format string, args ...any) error {
	return &lvs.ItemError{Item: item, Err: fmt.Errorf(format, args...)}
}

// checkSettings returns why one of the settings of a director or a service is
// refused, or all as they will be read back: without those that say the default of a
// director.
func checkSettings(list string, settings []lvs.SysctlSetting, ofService bool) ([]lvs.SysctlSetting, error) {
	var told []lvs.SysctlSetting
	changes := make([]lvs.SysctlChange, 0, len(settings))
	for i, s := range settings {
		changes = append(changes, lvs.SysctlChange{Name: s.Name, Value: s.Value})
		if err := lvs.CheckSysctlChanges(changes, ofService); err != nil {
			return nil, &lvs.ItemError{Item: fmt.Sprintf("%s[%d]", list, i), Err: err}
		}
		sysctl, err := lvs.FindSysctl(s.Name)
		if err != nil {
			return nil, err
		}
		if ofService || s.Value != sysctl.Default {
			told = append(told, setting(sysctl, s.Value))
		}
	}
	return told, nil
}

func checkServers(item string, service *lvs.ServiceState, pool []lvs.LocalAddress) error {
	keys := map[lvs.RealServerKey]bool{}
	for i, s := range service.Servers {
		err := checkThresholds(s)
		if err == nil {
			err = checkServer(service.ServiceKey, s)
		}
		if err == nil {
			err = checkFullNAT(service.Service, s, pool)
		}
		if keys[s.RealServerKey] {
			err = errTwice
		}
		if err != nil {
			return refuse(fmt.Sprintf("%s.servers[%d]", item, i), "real server %s of %s: %w", s.RealServerKey, service.ServiceKey, err)
		}
		keys[s.RealServerKey] = true
	}
	return nil
}

// unlocked is a director whose mu is held.
type unlocked struct{ d *Director }

var _ reconcile.Target = unlocked{}

// AddService implements [reconcile.Target].
func (u unlocked) AddService(s lvs.Service) error { return u.d.addService(s) }

// EditService implements [reconcile.Target].
func (u unlocked) EditService(s lvs.Service) error { return u.d.editService(s) }

// DeleteService implements [reconcile.Target].
func (u unlocked) DeleteService(key lvs.ServiceKey) error { return u.d.deleteService(key) }

// AddServer implements [reconcile.Target].
func (u unlocked) AddServer(key lvs.ServiceKey, s lvs.RealServer) error { return u.d.addServer(key, s) }

// EditServer implements [reconcile.Target].
func (u unlocked) EditServer(key lvs.ServiceKey, s lvs.RealServer) error {
	return u.d.editServer(key, s)
}

// DeleteServer implements [reconcile.Target].
func (u unlocked) DeleteServer(key lvs.ServiceKey, s lvs.RealServerKey) error {
	return u.d.deleteServer(key, s)
}

// OrderServers implements [reconcile.Target].
func (u unlocked) OrderServers(key lvs.ServiceKey, order []lvs.RealServerKey) error {
	place := map[lvs.RealServerKey]int{}
	for i, server := range order {
		place[server] = i
	}
	told := slices.SortedFunc(slices.Values(u.d.rosters[key].told), func(a, b lvs.RealServer) int {
		return place[a.RealServerKey] - place[b.RealServerKey]
	})
	return u.d.tell(key, told)
}

// SetSysctls implements [reconcile.Target].
func (u unlocked) SetSysctls(key lvs.ServiceKey, changes []lvs.SysctlChange) error {
	return u.d.setSysctls(key, changes)
}

// SetMarkRules implements [reconcile.Target].
func (u unlocked) SetMarkRules(rules []lvs.MarkRule) error { return u.d.plane.SetMarkRules(rules) }

// SetLocalAddresses implements [reconcile.Target].
func (u unlocked) SetLocalAddresses(pool []lvs.LocalAddress) error {
	return u.d.plane.SetLocalAddresses(pool)
}

// AddPeer implements [reconcile.Target].
func (u unlocked) AddPeer(addr netip.Addr) error { return u.d.addPeer(addr) }

// DeletePeer implements [reconcile.Target].
func (u unlocked) DeletePeer(addr netip.Addr) error { return u.d.deletePeer(addr) }
