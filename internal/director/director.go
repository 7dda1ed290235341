package director

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
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
