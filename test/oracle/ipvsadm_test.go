package oracle

import (
	"context"
	"fmt"
	"slices"

	fairlead "github.com/fairlead-lb/fairlead/internal/director"
	"github.com/fairlead-lb/fairlead/internal/ipvsadm"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A director takes the commands of ipvsadm as the daemon does, without asking the
// network for next hops.
var _ ipvsadm.Director = (*director)(nil)

func (d *director) Services(context.Context) ([]lvs.ServiceStatus, error) {
	services, err := d.Plane.Services()
	if d.rates != nil {
		d.rates.Fill(services)
	}
	return services, err
}

func (d *director) Service(_ context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	services, err := d.Services(context.Background())
	if err != nil {
		return lvs.ServiceStatus{}, err
	}
	for _, svc := range services {
		if svc.ServiceKey == key {
			return svc, nil
		}
	}
	return lvs.ServiceStatus{}, fmt.Errorf("find service %s: %w", key, lvs.ErrNoService)
}

func (d *director) AddService(_ context.Context, svc lvs.Service) error {
	if err := fairlead.CheckService(svc); err != nil {
		return err
	}
	return d.Plane.AddService(svc)
}

func (d *director) EditService(_ context.Context, svc lvs.Service) error {
	if err := fairlead.CheckService(svc); err != nil {
		return err
	}
	return d.Plane.EditService(svc)
}

func (d *director) DeleteService(_ context.Context, key lvs.ServiceKey) error {
	return d.Plane.DeleteService(key)
}

func (d *director) Clear(context.Context) error {
	services, err := d.Plane.Services()
	if err != nil {
		return err
	}
	for _, svc := range services {
		if err := d.Plane.DeleteService(svc.ServiceKey); err != nil {
			return err
		}
	}
	return nil
}

// checkServer refuses what the daemon refuses.
func (d *director) checkServer(key lvs.ServiceKey, rs lvs.RealServer, there bool) error {
	svc, err := d.Service(context.Background(), key)
	if err != nil {
		return err
	}
	has := slices.ContainsFunc(svc.Servers, func(s lvs.RealServerStatus) bool { return s.RealServerKey == rs.RealServerKey })
	return fairlead.CheckServer(key, rs, has, there)
}

func (d *director) AddServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServer) error {
	if err := d.checkServer(key, rs, false); err != nil {
		return err
	}
	if err := d.Plane.AddServer(key, rs); err != nil {
		return err
	}
	return d.setNextHop(rs.Address)
}

func (d *director) EditServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServer) error {
	if err := d.checkServer(key, rs, true); err != nil {
		return err
	}
	return d.Plane.EditServer(key, rs)
}

func (d *director) DeleteServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServerKey) error {
	return d.Plane.DeleteServer(key, rs)
}

func (d *director) Zero(ctx context.Context) error {
	services, err := d.Plane.Services()
	if err != nil {
		return err
	}
	for _, svc := range services {
		if err := d.ZeroService(ctx, svc.ServiceKey); err != nil {
			return err
		}
	}
	return nil
}

func (d *director) ZeroService(_ context.Context, key lvs.ServiceKey) error {
	if d.rates != nil {
		d.rates.Zero(key)
	}
	return d.Plane.Zero(key)
}

func (d *director) Timeouts(context.Context) (lvs.Timeouts, error) { return d.Plane.Timeouts(), nil }

func (d *director) SetTimeouts(_ context.Context, t lvs.Timeouts) error {
	return d.Plane.SetTimeouts(t)
}

// TableSize returns the kernel's, which headings show: ours has another meaning.
func (d *director) TableSize(context.Context) (int, error) { return 4096, nil }

// connections returns the connection table as it is at one time.
func (d *director) connections() (all []lvs.Connection) {
	d.onTime(func() { all = slices.Collect(d.Plane.Connections()) })
	return all
}

func (d *director) Connections(ctx context.Context, visit func(lvs.Connection) error) error {
	for _, c := range d.connections() {
		if err := visit(c); err != nil {
			return err
		}
	}
	return ctx.Err()
}
