package oracle

import (
	"context"
	"fmt"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/ipvsadm"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A director takes the commands of ipvsadm as the daemon does, without asking the
// network for next hops.
var _ ipvsadm.Director = (*director)(nil)

func (d *director) Services(context.Context) ([]lvs.ServiceStatus, error) { return d.Plane.Services() }

func (d *director) Service(_ context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	services, err := d.Plane.Services()
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

// checkService refuses what the data plane has not, so that no recording is
// played on half of what it needs.
func checkService(svc lvs.Service) error {
	if !dataplane.HasScheduler(svc.Scheduler) ||
		svc.PersistenceEngine != "" {
		return fmt.Errorf("service %+v: %w", svc, lvs.ErrUnsupported)
	}
	return nil
}

func (d *director) AddService(_ context.Context, svc lvs.Service) error {
	if err := checkService(svc); err != nil {
		return err
	}
	return d.Plane.AddService(svc)
}

func (d *director) EditService(_ context.Context, svc lvs.Service) error {
	if err := checkService(svc); err != nil {
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

func (d *director) AddServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServer) error {
	if rs.Method != lvs.DirectRouting && rs.Method != lvs.Tunnelling && rs.Method != lvs.Masquerading {
		return fmt.Errorf("real server %+v: %w", rs, lvs.ErrUnsupported)
	}
	if err := d.Plane.AddServer(key, rs); err != nil {
		return err
	}
	return d.setNextHop(rs.Address)
}

func (d *director) EditServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServer) error {
	if rs.Method != lvs.DirectRouting && rs.Method != lvs.Tunnelling && rs.Method != lvs.Masquerading {
		return fmt.Errorf("real server %+v: %w", rs, lvs.ErrUnsupported)
	}
	return d.Plane.EditServer(key, rs)
}

func (d *director) DeleteServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServerKey) error {
	return d.Plane.DeleteServer(key, rs)
}

func (d *director) Zero(context.Context) error {
	services, err := d.Plane.Services()
	if err != nil {
		return err
	}
	for _, svc := range services {
		if err := d.Plane.Zero(svc.ServiceKey); err != nil {
			return err
		}
	}
	return nil
}

func (d *director) ZeroService(_ context.Context, key lvs.ServiceKey) error { return d.Plane.Zero(key) }

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
