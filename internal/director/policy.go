package director

import (
	"context"
	"fmt"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Timeouts implements [api.Director].
func (d *Director) Timeouts(context.Context) (lvs.Timeouts, error) { return d.plane.Timeouts(), nil }

// SetTimeouts implements [api.Director].
func (d *Director) SetTimeouts(_ context.Context, timeouts lvs.Timeouts) error {
	if err := checkTimeouts(timeouts); err != nil {
		return fmt.Errorf("set timeouts: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.plane.SetTimeouts(timeouts); err != nil {
		return err
	}
	now := d.plane.Timeouts()
	d.log.Info("timeouts set", "tcp", now.TCP, "tcpfin", now.TCPFin, "udp", now.UDP)
	return nil
}

// Sysctls implements [api.Director].
func (d *Director) Sysctls(_ context.Context, service lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	return d.plane.Sysctls(service)
}

// SetSysctls implements [api.Director].
func (d *Director) SetSysctls(_ context.Context, service lvs.ServiceKey, changes []lvs.SysctlChange) error {
	if err := lvs.CheckSysctlChanges(changes, service != lvs.ServiceKey{}); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.setSysctls(service, changes)
}

func (d *Director) setSysctls(service lvs.ServiceKey, changes []lvs.SysctlChange) error {
	if err := d.plane.SetSysctls(service, changes); err != nil {
		return err
	}
	log := d.log
	if (service != lvs.ServiceKey{}) {
		log = log.With("service", service)
	}
	for _, c := range changes {
		if c.Reset {
			log.Info("sysctl reset", "name", c.Name)
		} else {
			log.Info("sysctl set", "name", c.Name, "value", c.Value)
		}
	}
	return nil
}
