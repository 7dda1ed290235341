package director

import (
	"errors"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A roster is the real servers of one service: those that the director was told of,
// and those that the plane has. They differ by what checks and drains come to. Both
// are in the order in which schedulers walk them.
type roster struct {
	told    []lvs.RealServer
	applied []lvs.RealServer
}

func findServer(servers []lvs.RealServer, key lvs.RealServerKey) int {
	return slices.IndexFunc(servers, func(s lvs.RealServer) bool { return s.RealServerKey == key })
}

// inForce returns what the plane is to have of a service that was told of servers.
func (d *Director) inForce(key lvs.ServiceKey, told []lvs.RealServer) []lvs.RealServer {
	servers := told
	if d.checks != nil {
		servers = d.checks.InForce(key, told)
	}
	if len(d.expected) > 0 {
		servers = slices.DeleteFunc(slices.Clone(servers), func(s lvs.RealServer) bool { return d.isAwaited(key, s.RealServerKey) })
	}
	if len(d.drains) == 0 {
		return servers
	}
	servers = slices.Clone(servers)
	for i := range servers {
		if d.isDrained(key, servers[i].RealServerKey) {
			servers[i].Weight = 0
		}
	}
	return servers
}

// isAwaited reports whether a real server is about to get its first check, and is down
// until that succeeds.
func (d *Director) isAwaited(key lvs.ServiceKey, server lvs.RealServerKey) bool {
	if !d.expected[drainKey{key, server}] {
		return false
	}
	return d.checks == nil || d.checks.Server(key, server).State == lvs.HealthUnchecked
}

// tell makes told what the director was told of a service, and lets the plane have
// what follows. After an error the plane has what it had before, or, if that can't be
// had again, what the roster says.
func (d *Director) tell(key lvs.ServiceKey, told []lvs.RealServer) error {
	r := d.rosters[key]
	err := d.enforce(key, d.inForce(key, told))
	if err == nil {
		r.told = told
		if !slices.Equal(told, r.applied) {
			return d.writeRecord()
		}
		return nil
	}
	return errors.Join(err, d.enforce(key, d.inForce(key, r.told)))
}

// refresh lets the plane have what follows from checks and drains as they are now.
func (d *Director) refresh(key lvs.ServiceKey) error {
	r, ok := d.rosters[key]
	if !ok {
		return nil // deleted while the news was under way
	}
	return d.enforce(key, d.inForce(key, r.told))
}

// enforce makes want the real servers of a service in the plane: those that come first,
// so that there is always one if there is one before and after.
func (d *Director) enforce(key lvs.ServiceKey, want []lvs.RealServer) error {
	r := d.rosters[key]
	// Most changes are of one server, and leave all before it and behind it alone.
	head, tail := 0, 0
	for head < len(want) && head < len(r.applied) && want[head] == r.applied[head] {
		head++
	}
	for tail < len(want)-head && tail < len(r.applied)-head && want[len(want)-1-tail] == r.applied[len(r.applied)-1-tail] {
		tail++
	}
	news := want[head : len(want)-tail]
	olds := slices.Clone(r.applied[head : len(r.applied)-tail])
	for _, s := range slices.Backward(news) {
		if err := d.put(key, s, olds); err != nil {
			return err
		}
	}
	for _, s := range olds {
		if findServer(news, s.RealServerKey) >= 0 {
			continue
		}
		if err := d.plane.DeleteServer(key, s.RealServerKey); err != nil {
			return err
		}
		r.applied = slices.Delete(r.applied, findServer(r.applied, s.RealServerKey), findServer(r.applied, s.RealServerKey)+1)
	}
	return d.order(key, want)
}

// put adds or edits one real server of the plane's; olds are those of which it may be.
func (d *Director) put(key lvs.ServiceKey, s lvs.RealServer, olds []lvs.RealServer) error {
	r := d.rosters[key]
	switch at := findServer(olds, s.RealServerKey); {
	case at >= 0 && olds[at] == s:
		return nil
	case at >= 0:
		if err := d.plane.EditServer(key, s); err != nil {
			return err
		}
		r.applied[findServer(r.applied, s.RealServerKey)] = s
		return nil
	}
	if err := d.plane.AddServer(key, s); err != nil {
		return err
	}
	r.applied = slices.Insert(r.applied, 0, s)
	if err := d.hops.write(key, s.RealServerKey); err != nil {
		// The server is there; that nothing reaches it is a state, shown as such.
		d.log.Error("next hop not written", "realserver", s.Address, "cause", err)
	}
	if d.isDrained(key, s.RealServerKey) {
		return d.plane.SetDrain(key, s.RealServerKey, dataplane.DrainTemplates)
	}
	return nil
}

// order makes the plane's order that of want, which has the same real servers.
func (d *Director) order(key lvs.ServiceKey, want []lvs.RealServer) error {
	r := d.rosters[key]
	if slices.Equal(r.applied, want) {
		return nil
	}
	keys := make([]lvs.RealServerKey, 0, len(want))
	for _, s := range want {
		keys = append(keys, s.RealServerKey)
	}
	if err := d.plane.OrderServers(key, keys); err != nil {
		return err
	}
	r.applied = slices.Clone(want)
	return nil
}

// servicesNow returns the services of the plane, with what checks and drains say of
// their real servers, and with those that are withheld: none is between the two.
func (d *Director) servicesNow() ([]lvs.ServiceStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	services, err := d.plane.Services()
	if err != nil {
		return nil, err
	}
	d.fillRosters(services)
	return services, nil
}

func (d *Director) fillRosters(services []lvs.ServiceStatus) {
	for i := range services {
		s := &services[i]
		r, ok := d.rosters[s.ServiceKey]
		if !ok {
			continue
		}
		for j := range s.Servers {
			s.Servers[j].ConfiguredWeight = s.Servers[j].Weight
			d.fillServer(r, s.ServiceKey, &s.Servers[j])
		}
		if len(r.told) == 0 {
			continue
		}
		for _, told := range r.told {
			if findServer(r.applied, told.RealServerKey) >= 0 {
				continue
			}
			withheld := lvs.RealServerStatus{RealServer: told, ConfiguredWeight: told.Weight}
			d.fillServer(r, s.ServiceKey, &withheld)
			s.Withheld = append(s.Withheld, withheld)
		}
		if d.checks != nil {
			s.Quorum = d.checks.Quorum(s.ServiceKey)
		}
	}
}

func (d *Director) fillServer(r *roster, key lvs.ServiceKey, s *lvs.RealServerStatus) {
	if at := findServer(r.told, s.RealServerKey); at >= 0 {
		s.ConfiguredWeight = r.told[at].Weight
	}
	if d.checks != nil {
		s.Health = d.checks.Server(key, s.RealServerKey)
	}
	s.Draining = d.isDrained(key, s.RealServerKey)
}
