package ipvsadm

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A fakeDirector keeps what it is told in memory, by the kernel's rules (6.1,
// ip_vs_ctl.c): what it refuses, with which error, in which order of checks, and
// that a new real server comes first.
type fakeDirector struct {
	services    []lvs.ServiceStatus
	timeouts    lvs.Timeouts
	connections []lvs.Connection
	calls       int // of all methods
	changes     int // that were done
	// failure, if set, is what every method returns.
	failure error
}

func newFakeDirector() *fakeDirector {
	return &fakeDirector{timeouts: lvs.Timeouts{TCP: 900 * time.Second, TCPFin: 120 * time.Second, UDP: 300 * time.Second}}
}

func (d *fakeDirector) connect(context.Context) (Director, error) { return d, nil }

func (d *fakeDirector) find(key lvs.ServiceKey) (*lvs.ServiceStatus, error) {
	d.calls++
	if d.failure != nil {
		return nil, d.failure
	}
	for i := range d.services {
		if d.services[i].ServiceKey == key {
			return &d.services[i], nil
		}
	}
	return nil, fmt.Errorf("find %s: %w", key, lvs.ErrNoService)
}

func (d *fakeDirector) Services(context.Context) ([]lvs.ServiceStatus, error) {
	d.calls++
	if d.failure != nil {
		return nil, d.failure
	}
	out := slices.Clone(d.services)
	for i := range out {
		out[i].Servers = slices.Clone(out[i].Servers)
	}
	return out, nil
}

func (d *fakeDirector) Service(_ context.Context, key lvs.ServiceKey) (lvs.ServiceStatus, error) {
	svc, err := d.find(key)
	if err != nil {
		return lvs.ServiceStatus{}, err
	}
	out := *svc
	out.Servers = slices.Clone(out.Servers)
	return out, nil
}

func checkService(svc lvs.Service) error {
	if !svc.Scheduler.Known() || (svc.PersistenceEngine != "" && svc.PersistenceEngine != "sip") {
		return fmt.Errorf("check %s: %w", svc.ServiceKey, lvs.ErrSchedulerNotFound)
	}
	return nil
}

func (d *fakeDirector) AddService(_ context.Context, svc lvs.Service) error {
	if _, err := d.find(svc.ServiceKey); err == nil {
		return fmt.Errorf("add %s: %w", svc.ServiceKey, lvs.ErrServiceExists)
	} else if d.failure != nil {
		return err
	}
	if err := checkService(svc); err != nil {
		return err
	}
	d.changes++
	d.services = append(d.services, lvs.ServiceStatus{Service: svc})
	return nil
}

func (d *fakeDirector) EditService(_ context.Context, svc lvs.Service) error {
	old, err := d.find(svc.ServiceKey)
	if err != nil {
		return err
	}
	if err := checkService(svc); err != nil {
		return err
	}
	d.changes++
	old.Service = svc
	return nil
}

func (d *fakeDirector) DeleteService(_ context.Context, key lvs.ServiceKey) error {
	if _, err := d.find(key); err != nil {
		return err
	}
	d.changes++
	d.services = slices.DeleteFunc(d.services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == key })
	return nil
}

func (d *fakeDirector) Clear(context.Context) error {
	d.calls++
	if d.failure != nil {
		return d.failure
	}
	d.changes++
	d.services = nil
	return nil
}

func findServer(svc *lvs.ServiceStatus, key lvs.RealServerKey) *lvs.RealServerStatus {
	i := slices.IndexFunc(svc.Servers, func(s lvs.RealServerStatus) bool { return s.RealServerKey == key })
	if i < 0 {
		return nil
	}
	return &svc.Servers[i]
}

func checkServer(rs lvs.RealServer) error {
	if rs.LowerThreshold > rs.UpperThreshold {
		return fmt.Errorf("check %s: %w", rs.RealServerKey, lvs.ErrRange)
	}
	return nil
}

func (d *fakeDirector) AddServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServer) error {
	svc, err := d.find(key)
	if err != nil {
		return err
	}
	if err := checkServer(rs); err != nil {
		return err
	}
	if findServer(svc, rs.RealServerKey) != nil {
		return fmt.Errorf("add %s: %w", rs.RealServerKey, lvs.ErrServerExists)
	}
	if rs.Address.IsMulticast() || rs.Address == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("add %s: %w", rs.RealServerKey, lvs.ErrInvalid)
	}
	d.changes++
	svc.Servers = slices.Insert(svc.Servers, 0, lvs.RealServerStatus{RealServer: rs})
	return nil
}

func (d *fakeDirector) EditServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServer) error {
	svc, err := d.find(key)
	if err != nil {
		return err
	}
	if err := checkServer(rs); err != nil {
		return err
	}
	old := findServer(svc, rs.RealServerKey)
	if old == nil {
		return fmt.Errorf("edit %s: %w", rs.RealServerKey, lvs.ErrNoServer)
	}
	d.changes++
	old.RealServer = rs
	return nil
}

func (d *fakeDirector) DeleteServer(_ context.Context, key lvs.ServiceKey, rs lvs.RealServerKey) error {
	svc, err := d.find(key)
	if err != nil {
		return err
	}
	if findServer(svc, rs) == nil {
		return fmt.Errorf("delete %s: %w", rs, lvs.ErrNoServer)
	}
	d.changes++
	svc.Servers = slices.DeleteFunc(svc.Servers, func(s lvs.RealServerStatus) bool { return s.RealServerKey == rs })
	return nil
}

func zero(svc *lvs.ServiceStatus) {
	svc.Counters, svc.Rates = lvs.Counters{}, lvs.Rates{}
	for i := range svc.Servers {
		svc.Servers[i].Counters, svc.Servers[i].Rates = lvs.Counters{}, lvs.Rates{}
	}
}

func (d *fakeDirector) Zero(context.Context) error {
	d.calls++
	if d.failure != nil {
		return d.failure
	}
	d.changes++
	for i := range d.services {
		zero(&d.services[i])
	}
	return nil
}

func (d *fakeDirector) ZeroService(_ context.Context, key lvs.ServiceKey) error {
	svc, err := d.find(key)
	if err != nil {
		return err
	}
	d.changes++
	zero(svc)
	return nil
}

func (d *fakeDirector) Timeouts(context.Context) (lvs.Timeouts, error) {
	d.calls++
	return d.timeouts, d.failure
}

func (d *fakeDirector) SetTimeouts(_ context.Context, t lvs.Timeouts) error {
	d.calls++
	if d.failure != nil {
		return d.failure
	}
	d.changes++
	for _, c := range []struct{ to, from *time.Duration }{
		{&d.timeouts.TCP, &t.TCP}, {&d.timeouts.TCPFin, &t.TCPFin}, {&d.timeouts.UDP, &t.UDP},
	} {
		if *c.from != 0 {
			*c.to = *c.from
		}
	}
	return nil
}

func (d *fakeDirector) TableSize(context.Context) (int, error) {
	d.calls++
	return 4096, d.failure
}

func (d *fakeDirector) Connections(_ context.Context, visit func(lvs.Connection) error) error {
	d.calls++
	if d.failure != nil {
		return d.failure
	}
	for _, c := range d.connections {
		if err := visit(c); err != nil {
			return err
		}
	}
	return nil
}
