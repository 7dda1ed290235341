package director

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/health"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A plane is what a director needs of the data plane; *dataplane.Plane is one.
// It is safe for concurrent use.
type plane interface {
	AddService(lvs.Service) error
	EditService(lvs.Service) error
	DeleteService(lvs.ServiceKey) error
	AddServer(lvs.ServiceKey, lvs.RealServer) error
	EditServer(lvs.ServiceKey, lvs.RealServer) error
	DeleteServer(lvs.ServiceKey, lvs.RealServerKey) error
	OrderServers(lvs.ServiceKey, []lvs.RealServerKey) error
	SetDrain(lvs.ServiceKey, lvs.RealServerKey, dataplane.Drain) error
	StartSlowly(lvs.ServiceKey, lvs.RealServerKey, time.Duration) error
	Services() ([]lvs.ServiceStatus, error)
	Configured() []lvs.Service
	Zero(lvs.ServiceKey) error
	Timeouts() lvs.Timeouts
	SetTimeouts(lvs.Timeouts) error
	Sysctls(lvs.ServiceKey) ([]lvs.SysctlValue, error)
	OwnSysctls(lvs.ServiceKey) ([]lvs.SysctlValue, error)
	SetSysctls(lvs.ServiceKey, []lvs.SysctlChange) error
	SetNextHop(netip.Addr, lvs.NextHop) error
	SetServerNextHop(lvs.ServiceKey, lvs.RealServerKey, lvs.NextHop) error
	Peers() (map[netip.Addr]lvs.MAC, error)
	SetPeer(netip.Addr, lvs.MAC) error
	DeletePeer(netip.Addr) error
	PeerMACs() ([]lvs.MAC, error)
	AddPeerMAC(lvs.MAC) error
	DeletePeerMAC(lvs.MAC) error
	MarkRules() []lvs.MarkRule
	SetMarkRules([]lvs.MarkRule) error
	LocalAddresses() []lvs.LocalAddress
	SetLocalAddresses([]lvs.LocalAddress) error
	Sweep() (dataplane.SweepResult, error)
	Connections() iter.Seq[lvs.Connection]
	TableSize() int
	Verdicts() ([]dataplane.VerdictCount, error)
	Explain(frame []byte, ifindex int) (lvs.Explanation, error)
	Trace(context.Context, lvs.TraceFilter, func(lvs.TraceReport) error) error
}

var _ plane = (*dataplane.Plane)(nil)

// A Director carries out what the API asks for. It is safe for concurrent use.
type Director struct {
	plane      plane
	hops       *hopTable
	rates      *Estimator
	signs      suspicions // of the goroutine that calls estimate
	fragments  *fragmentKeeper
	log        *slog.Logger
	version    string
	interfaces attachments
	isLocal    func(netip.Addr) (bool, error)
	started    time.Time
	swept      sweepRecord
	stopping   <-chan struct{} // closed when traces are to end
	stop       func()          // ends the daemon

	// checks is nil until there are some.
	checks *health.Manager
	news   *news          // what checks tell of
	resets sync.WaitGroup // of connections, that go on

	// mu is held through a change. services is what the director was told of;
	// rosters, of each, its real servers.
	mu       sync.Mutex
	services map[lvs.ServiceKey]map[lvs.RealServerKey]struct{}
	rosters  map[lvs.ServiceKey]*roster
	drains   map[drainKey]*drain
	health   map[lvs.ServiceKey]lvs.ServiceHealth // what is looked after
	wanted   []lvs.ServiceHealth                  // of services and servers that there may be
	// inherited are the real servers that were down when a former director ended, of
	// the services of which it withheld something; inheritedDrains those that it
	// drained because it was about to stop. Both are nil once that is dealt with.
	inherited       map[lvs.ServiceKey]map[lvs.RealServerKey]bool
	inheritedDrains []drainKey
	hostDrained     atomic.Bool // until the daemon ends
	recordPath      string      // "": nothing is recorded
	// expected are the real servers that checks are about to be set for, and that are
	// down until their first success.
	expected map[drainKey]bool
	config   configuration

	tookOver bool        // forwarding goes on since before the start
	file     *configFile // that is followed, or nil; of one goroutine
}

var _ api.Director = (*Director)(nil)

// newDirector returns a director of p, with the services that p has already.
// What w finds is to be given to hops.learn.
func newDirector(p plane, w watcher, log *slog.Logger, isLocal func(netip.Addr) (bool, error)) (*Director, error) {
	services, err := p.Services()
	if err != nil {
		return nil, fmt.Errorf("read the services of the data plane: %w", err)
	}
	d := &Director{
		plane:    p,
		hops:     newHopTable(w, p, log),
		rates:    NewEstimator(services),
		log:      log,
		isLocal:  isLocal,
		started:  time.Now(),
		services: map[lvs.ServiceKey]map[lvs.RealServerKey]struct{}{},
		rosters:  map[lvs.ServiceKey]*roster{},
		drains:   map[drainKey]*drain{},
		news:     newNews(),
	}
	if err := d.hops.inherit(); err != nil {
		return nil, fmt.Errorf("read the peers of the data plane: %w", err)
	}
	for _, service := range services {
		servers, r := map[lvs.RealServerKey]struct{}{}, &roster{}
		for _, server := range service.Servers {
			servers[server.RealServerKey] = struct{}{}
			r.told = append(r.told, server.RealServer)
			d.hops.hold(server.Address)
		}
		r.applied = slices.Clone(r.told)
		d.services[service.ServiceKey], d.rosters[service.ServiceKey] = servers, r
	}
	return d, nil
}

// Status implements [api.Director].
func (d *Director) Status(context.Context) (api.Status, error) {
	counts, err := d.plane.Verdicts()
	if err != nil {
		return api.Status{}, err
	}
	status := api.Status{
		Version:    d.version,
		Uptime:     time.Since(d.started),
		Interfaces: d.interfaces.list(),
		TableSize:  d.plane.TableSize(),
	}
	status.TableUsed, status.Sweeps = d.swept.read()
	for _, c := range counts {
		status.Verdicts = append(status.Verdicts, api.Verdict(c))
	}
	return status, nil
}

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

// estimate ends one interval of the rates, and of what clients' packets say against real
// servers. Only one goroutine calls it.
func (d *Director) estimate() error {
	services, err := d.plane.Services()
	if err != nil {
		return err
	}
	d.rates.Interval(services)
	d.suspect(services)
	return nil
}

// suspect brings the checks of those forward whose clients get no answers.
func (d *Director) suspect(services []lvs.ServiceStatus) {
	var suspects []suspect
	d.signs, suspects = d.signs.interval(services)
	if len(suspects) == 0 {
		return
	}
	d.mu.Lock()
	checks := d.checks
	d.mu.Unlock()
	if checks == nil {
		return
	}
	for _, s := range suspects {
		checks.Suspect(s.service, s.server, s.reason)
	}
}
