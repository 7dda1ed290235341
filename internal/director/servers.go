package director

import (
	"context"
	"fmt"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// AddServer implements [api.Director]. It waits a moment for the server's next
// hop, so that the first packets to it have one.
func (d *Director) AddServer(_ context.Context, key lvs.ServiceKey, server lvs.RealServer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addServer(key, server)
}

func (d *Director) addServer(key lvs.ServiceKey, server lvs.RealServer) error {
	if err := d.checkServer(key, server, false); err != nil {
		return fmt.Errorf("add real server %s to %s: %w", server.RealServerKey, key, err)
	}
	d.hops.hold(server.Address)
	d.hops.wait(server.Address)
	alone := d.expected == nil
	if wanted := d.wantedOf(key); alone && wanted != nil {
		d.expectHealth([]lvs.ServiceHealth{{ServiceKey: key, Servers: wanted.Among([]lvs.RealServer{server})}})
	}
	err := d.tell(key, slices.Insert(slices.Clone(d.rosters[key].told), 0, server))
	if alone {
		d.expected = nil
	}
	if err != nil {
		d.hops.release(server.Address)
		return err
	}
	d.services[key][server.RealServerKey] = struct{}{}
	d.adjustHealth(key)
	d.log.Info("real server added", "service", key, "realserver", server.RealServerKey, "weight", server.Weight)
	return nil
}

// EditServer implements [api.Director].
func (d *Director) EditServer(_ context.Context, key lvs.ServiceKey, server lvs.RealServer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.editServer(key, server)
}

func (d *Director) editServer(key lvs.ServiceKey, server lvs.RealServer) error {
	if err := d.checkServer(key, server, true); err != nil {
		return fmt.Errorf("edit real server %s of %s: %w", server.RealServerKey, key, err)
	}
	told := slices.Clone(d.rosters[key].told)
	at := findServer(told, server.RealServerKey)
	was := told[at]
	told[at] = server
	if err := d.tell(key, told); err != nil {
		return err
	}
	if was.Method != server.Method || was.Tunnel != server.Tunnel {
		d.adjustHealth(key)
	}
	d.log.Info("real server edited", "service", key, "realserver", server.RealServerKey, "weight", server.Weight)
	return nil
}

// checkServer returns why server is refused; there says whether it should be a
// server of the service already.
func (d *Director) checkServer(key lvs.ServiceKey, server lvs.RealServer, there bool) error {
	servers, ok := d.services[key]
	if !ok {
		return lvs.ErrNoService
	}
	_, has := servers[server.RealServerKey]
	if err := CheckServer(key, server, has, there); err != nil {
		return err
	}
	if server.Method != lvs.FullNAT {
		return checkFullNAT(lvs.Service{}, server, nil)
	}
	service, err := d.told(key)
	if err != nil {
		return err
	}
	return checkFullNAT(service, server, d.plane.LocalAddresses())
}

// told returns a service as it was told.
func (d *Director) told(key lvs.ServiceKey) (lvs.Service, error) {
	services, err := d.plane.Services()
	if err != nil {
		return lvs.Service{}, err
	}
	i := slices.IndexFunc(services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == key })
	if i < 0 {
		return lvs.Service{}, lvs.ErrNoService
	}
	return services[i].Service, nil
}

// DeleteServer implements [api.Director].
func (d *Director) DeleteServer(_ context.Context, key lvs.ServiceKey, server lvs.RealServerKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deleteServer(key, server)
}

func (d *Director) deleteServer(key lvs.ServiceKey, server lvs.RealServerKey) error {
	servers, ok := d.services[key]
	if !ok {
		return fmt.Errorf("delete real server %s of %s: %w", server, key, lvs.ErrNoService)
	}
	if _, ok := servers[server]; !ok {
		return fmt.Errorf("delete real server %s of %s: %w", server, key, lvs.ErrNoServer)
	}
	told := slices.DeleteFunc(slices.Clone(d.rosters[key].told), func(s lvs.RealServer) bool { return s.RealServerKey == server })
	if err := d.tell(key, told); err != nil {
		return err
	}
	delete(servers, server)
	d.hops.release(server.Address)
	d.forgetDrain(key, server)
	d.adjustHealth(key)
	d.log.Info("real server deleted", "service", key, "realserver", server)
	return nil
}
