package director

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Services implements [api.Director].
func (d *Director) Services(context.Context) ([]lvs.ServiceStatus, error) {
	services, err := d.servicesNow()
	if err != nil {
		return nil, err
	}
	d.rates.Fill(services)
	d.hops.fill(services)
	return services, nil
}

// Service implements [api.Director].
func (d *Director) Service(ctx context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	services, err := d.Services(ctx)
	if err != nil {
		return lvs.ServiceStatus{}, err
	}
	i := slices.IndexFunc(services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == key })
	if i < 0 {
		return lvs.ServiceStatus{}, fmt.Errorf("list service %s: %w", key, lvs.ErrNoService)
	}
	return services[i], nil
}

// AddService implements [api.Director].
func (d *Director) AddService(_ context.Context, service lvs.Service) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addService(service)
}

func (d *Director) addService(service lvs.Service) error {
	err := CheckService(service)
	if _, ok := d.services[service.ServiceKey]; ok {
		err = lvs.ErrServiceExists // IPVS says this before all else
	}
	if err != nil {
		return fmt.Errorf("add service %s: %w", service.ServiceKey, err)
	}
	if err := d.plane.AddService(withoutIdleMask(service)); err != nil {
		return err
	}
	d.services[service.ServiceKey] = map[lvs.RealServerKey]struct{}{}
	d.rosters[service.ServiceKey] = &roster{}
	d.log.Info("service added", "service", service.ServiceKey, "scheduler", service.Scheduler)
	return nil
}

// EditService implements [api.Director].
func (d *Director) EditService(_ context.Context, service lvs.Service) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.editService(service)
}

func (d *Director) editService(service lvs.Service) error {
	err := CheckService(service)
	if _, ok := d.services[service.ServiceKey]; !ok {
		err = lvs.ErrNoService
	}
	if err == nil && service.OnePacket {
		for _, server := range d.rosters[service.ServiceKey].told {
			if err == nil {
				err = checkFullNAT(service, server, d.plane.LocalAddresses())
			}
		}
	}
	if err != nil {
		return fmt.Errorf("edit service %s: %w", service.ServiceKey, err)
	}
	if err := d.plane.EditService(withoutIdleMask(service)); err != nil {
		return err
	}
	d.log.Info("service edited", "service", service.ServiceKey, "scheduler", service.Scheduler)
	return nil
}

// withoutIdleMask replaces the mask of a service that is not persistent, which
// IPVS takes and never reads.
func withoutIdleMask(service lvs.Service) lvs.Service {
	if service.PersistenceTimeout == 0 {
		service.PersistenceMask = lvs.FullPersistenceMask(service.Address)
	}
	return service
}

// DeleteService implements [api.Director].
func (d *Director) DeleteService(_ context.Context, key lvs.ServiceKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deleteService(key)
}

func (d *Director) deleteService(key lvs.ServiceKey) error {
	servers, ok := d.services[key]
	if !ok {
		return fmt.Errorf("delete service %s: %w", key, lvs.ErrNoService)
	}
	if err := d.plane.DeleteService(key); err != nil {
		return err
	}
	delete(d.services, key)
	delete(d.rosters, key)
	for server := range servers {
		d.hops.release(server.Address)
		d.forgetDrain(key, server)
	}
	d.adjustHealth(key)
	d.log.Info("service deleted", "service", key)
	return nil
}

// Clear implements [api.Director].
func (d *Director) Clear(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range slices.Collect(maps.Keys(d.services)) {
		if err := d.deleteService(key); err != nil {
			return err
		}
	}
	return nil
}

// Zero implements [api.Director].
func (d *Director) Zero(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key := range d.services {
		if err := d.zero(key); err != nil {
			return err
		}
	}
	return nil
}

// ZeroService implements [api.Director].
func (d *Director) ZeroService(_ context.Context, key lvs.ServiceKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.zero(key)
}

func (d *Director) zero(key lvs.ServiceKey) error {
	if _, ok := d.services[key]; !ok {
		return fmt.Errorf("zero service %s: %w", key, lvs.ErrNoService)
	}
	if err := d.plane.Zero(key); err != nil {
		return err
	}
	d.rates.Zero(key)
	return nil
}
