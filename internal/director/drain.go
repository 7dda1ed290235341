package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-lb/fairlead/internal/dataplane"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/reset"
)

const (
	// drainInterval is how often drains are looked at.
	drainInterval = 500 * time.Millisecond
	// rateShare is the weight of the newest interval in the rate of a drain.
	rateShare = 0.2
	// resetPatience is how long clients are asked for what a RST needs.
	resetPatience = 3 * time.Second
	// undrainSlowStart is the slow start of a real server that returns, if its
	// service's slow_start does not say another.
	undrainSlowStart = 30 * time.Second
)

type drainKey struct {
	service lvs.ServiceKey
	server  lvs.RealServerKey
}

// A drain is of one real server of one service.
type drain struct {
	lvs.Drain
	host bool // of the whole host
	seen time.Time
}

func newDrain(r drainRecord) *drain {
	return &drain{
		Drain: lvs.Drain{
			Service: r.Service, Server: r.Server, Since: r.Since, Deadline: r.Deadline, Then: r.Then,
			Initial: r.Initial, Left: r.Initial, Remaining: -1, Ended: r.Ended,
		},
		host: r.Host,
	}
}

func (d *drain) record() drainRecord {
	return drainRecord{
		Service: d.Service, Server: d.Server, Since: d.Since, Deadline: d.Deadline, Then: d.Then,
		Initial: d.Initial, Ended: d.Ended, Host: d.host,
	}
}

// note takes how many connections are left now.
func (d *drain) note(left uint32, now time.Time) {
	if !d.seen.IsZero() && now.After(d.seen) {
		ended := max(float64(d.Left)-float64(left), 0) / now.Sub(d.seen).Seconds()
		d.Rate += rateShare * (ended - d.Rate)
	}
	d.Left, d.seen = left, now
	d.Remaining = -1
	const slowest = 1e-3 // a second: else the estimate says nothing
	switch {
	case left == 0:
		d.Remaining = 0
	case d.Rate > slowest:
		d.Remaining = time.Duration(float64(left) / d.Rate * float64(time.Second))
	}
}

func (d *Director) isDrained(service lvs.ServiceKey, server lvs.RealServerKey) bool {
	return d.drains[drainKey{service, server}] != nil
}

// forgetDrain is of a real server that was deleted.
func (d *Director) forgetDrain(service lvs.ServiceKey, server lvs.RealServerKey) {
	delete(d.drains, drainKey{service, server})
}

// Drain implements [api.Director].
func (d *Director) Drain(_ context.Context, scope lvs.DrainScope, deadline time.Duration, then lvs.DrainEnd) ([]lvs.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys, err := d.inScope(scope)
	if err != nil {
		return nil, fmt.Errorf("drain %s: %w", scope, err)
	}
	return d.drain(keys, deadline, then, false)
}

// inScope returns the real servers that are meant, in the order of services and
// servers.
func (d *Director) inScope(scope lvs.DrainScope) ([]drainKey, error) {
	if _, ok := d.rosters[scope.Service]; !ok && (scope.Service != lvs.ServiceKey{}) {
		return nil, lvs.ErrNoService
	}
	var keys []drainKey
	for service, r := range d.rosters {
		for _, server := range r.told {
			if scope.Has(service, server.RealServerKey) {
				keys = append(keys, drainKey{service, server.RealServerKey})
			}
		}
	}
	if len(keys) == 0 {
		return nil, lvs.ErrNoServer
	}
	slices.SortFunc(keys, compareDrains)
	return keys, nil
}

func compareDrains(a, b drainKey) int {
	if order := a.service.Compare(b.service); order != 0 {
		return order
	}
	return strings.Compare(a.server.String(), b.server.String())
}

// drain drains real servers of which none is unknown. mu is held.
func (d *Director) drain(keys []drainKey, deadline time.Duration, then lvs.DrainEnd, host bool) ([]lvs.Drain, error) {
	left, err := d.connectionsLeft()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	affected := map[lvs.ServiceKey]bool{}
	for _, key := range keys {
		one := d.drains[key]
		if one == nil {
			one = newDrain(drainRecord{Service: key.service, Server: key.server, Since: now, Initial: left[key]})
			one.note(left[key], now)
			d.drains[key] = one
		}
		one.Then, one.Deadline, one.Ended, one.host = then, time.Time{}, false, host
		if deadline > 0 {
			one.Deadline = now.Add(deadline)
		}
		affected[key.service] = true
	}
	err = d.refreshSet(affected)
	drains := make([]lvs.Drain, 0, len(keys))
	for _, key := range keys {
		err = errors.Join(err, d.markDrain(key, dataplane.DrainTemplates))
		drains = append(drains, d.drains[key].Drain)
		d.log.Info("drain", "service", key.service, "realserver", key.server, "connections", d.drains[key].Left,
			"deadline", deadline, "then", then)
	}
	return drains, err
}

func (d *Director) refreshSet(services map[lvs.ServiceKey]bool) error {
	keys := make([]lvs.ServiceKey, 0, len(services))
	for key := range services {
		keys = append(keys, key)
	}
	return d.refreshAll(keys)
}

// markDrain tells the plane of a drain, if the server is there.
func (d *Director) markDrain(key drainKey, state dataplane.Drain) error {
	r := d.rosters[key.service]
	if r == nil || findServer(r.applied, key.server) < 0 {
		return nil
	}
	return d.plane.SetDrain(key.service, key.server, state)
}

// connectionsLeft returns how many connections each real server has that may go on. Of
// TCP and SCTP those are the active ones: what the others have to say, they have said.
// UDP has no active ones.
func (d *Director) connectionsLeft() (map[drainKey]uint32, error) {
	services, err := d.plane.Services()
	if err != nil {
		return nil, err
	}
	left := map[drainKey]uint32{}
	for _, s := range services {
		for _, server := range s.Servers {
			count := server.Active
			if s.Protocol != lvs.TCP && s.Protocol != lvs.SCTP {
				count += server.Inactive
			}
			left[drainKey{s.ServiceKey, server.RealServerKey}] = count
		}
	}
	return left, nil
}

// Undrain implements [api.Director].
func (d *Director) Undrain(_ context.Context, scope lvs.DrainScope) ([]lvs.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys, err := d.inScope(scope)
	if err != nil {
		return nil, fmt.Errorf("undrain %s: %w", scope, err)
	}
	keys = slices.DeleteFunc(keys, func(key drainKey) bool { return d.drains[key] == nil })
	if len(keys) == 0 {
		return nil, fmt.Errorf("undrain %s: %w", scope, lvs.ErrNoDrain)
	}
	drains := make([]lvs.Drain, 0, len(keys))
	for _, key := range keys {
		drains = append(drains, d.drains[key].Drain)
	}
	return drains, d.undrain(keys)
}

// undrain gives real servers their weight back. mu is held.
func (d *Director) undrain(keys []drainKey) error {
	var errs []error
	affected := map[lvs.ServiceKey]bool{}
	for _, key := range keys {
		delete(d.drains, key)
		affected[key.service] = true
		errs = append(errs, d.markDrain(key, dataplane.NotDrained))
	}
	errs = append(errs, d.refreshSet(affected))
	for _, key := range keys {
		if findServer(d.rosters[key.service].applied, key.server) >= 0 {
			errs = append(errs, d.plane.StartSlowly(key.service, key.server, undrainSlowStart))
		}
		d.log.Info("drain undone", "service", key.service, "realserver", key.server)
	}
	return errors.Join(errs...)
}

// Drains implements [api.Director].
func (d *Director) Drains(context.Context) ([]lvs.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := make([]drainKey, 0, len(d.drains))
	for key := range d.drains {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareDrains)
	drains := make([]lvs.Drain, 0, len(keys))
	for _, key := range keys {
		drains = append(drains, d.drains[key].Drain)
	}
	return drains, nil
}

// followDrains looks at the drains that go on.
func (d *Director) followDrains() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.drains) == 0 {
		return nil
	}
	left, err := d.connectionsLeft()
	if err != nil {
		return err
	}
	now := time.Now()
	var over []drainKey
	for key, one := range d.drains {
		before := one.Left
		one.note(left[key], now)
		if one.Left == 0 && before != 0 {
			d.log.Info("drained", "service", key.service, "realserver", key.server, "after", now.Sub(one.Since).Round(time.Millisecond))
		}
		if !one.Ended && !one.Deadline.IsZero() && !now.Before(one.Deadline) {
			over = append(over, key)
		}
	}
	return d.endDrains(over)
}

// endDrains does to what is left what was asked for.
func (d *Director) endDrains(over []drainKey) error {
	if len(over) == 0 {
		return nil
	}
	var errs []error
	var left []reset.Connection
	for _, key := range over {
		one := d.drains[key]
		one.Ended = true
		d.log.Info("deadline of a drain", "service", key.service, "realserver", key.server, "connections", one.Left, "then", one.Then)
		if one.Then == lvs.DrainKeep {
			continue
		}
		if one.Then == lvs.DrainReset {
			left = append(left, d.connectionsOf(key)...)
		}
		errs = append(errs, d.markDrain(key, dataplane.DrainExpire))
	}
	if len(left) > 0 {
		// What clients answer must not be forwarded any more.
		if _, err := d.plane.Sweep(); err != nil {
			errs = append(errs, err)
		}
		d.resets.Go(func() { d.reset(left) })
	}
	return errors.Join(append(errs, d.writeRecord())...)
}

// connectionsOf returns the TCP connections of a real server of a service.
func (d *Director) connectionsOf(key drainKey) []reset.Connection {
	r := d.rosters[key.service]
	at := findServer(r.told, key.server)
	hop, known := d.hops.find(key.server.Address)
	if at < 0 || !known {
		return nil
	}
	var found []reset.Connection
	for c := range d.plane.Connections() {
		if c.Protocol != lvs.TCP || c.Template || c.Server.Addr() != key.server.Address {
			continue
		}
		virtual := netip.AddrPortFrom(key.service.Address, key.service.Port)
		if key.service.Mark == 0 && (key.service.Protocol != lvs.TCP || c.Virtual.Addr() != virtual.Addr() ||
			virtual.Port() != 0 && c.Virtual.Port() != virtual.Port()) {
			continue
		}
		found = append(found, reset.Connection{Client: c.Client, Virtual: c.Virtual, Local: c.Local, Server: r.told[at], NextHop: hop})
	}
	return found
}

// reset tells both ends of connections that are not forwarded any more.
func (d *Director) reset(left []reset.Connection) {
	ctx, cancel := context.WithTimeout(context.Background(), resetPatience)
	defer cancel()
	told, err := reset.All(ctx, left)
	if err != nil {
		d.log.Error("connections not reset", "connections", len(left), "cause", err)
		return
	}
	d.log.Info("connections reset", "connections", len(left), "told", told)
}

// drainHost drains all real servers, and returns when nothing is left, or at the
// deadline when that is over, or when ctx ends.
func (d *Director) drainHost(ctx context.Context, deadline time.Duration, then lvs.DrainEnd) error {
	d.mu.Lock()
	var keys []drainKey
	for service, r := range d.rosters {
		for _, server := range r.told {
			key := drainKey{service, server.RealServerKey}
			if d.drains[key] == nil {
				keys = append(keys, key)
			}
		}
	}
	d.hostDrained.Store(true)
	_, err := d.drain(keys, deadline, then, true)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	ticker := time.NewTicker(drainInterval)
	defer ticker.Stop()
	for {
		if d.hostIsDrained(keys) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// hostIsDrained reports whether no drain of the host goes on.
func (d *Director) hostIsDrained(keys []drainKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range keys {
		one := d.drains[key]
		if one != nil && one.Left > 0 && (!one.Ended || one.Then != lvs.DrainKeep) {
			return false
		}
	}
	return true
}

// liftHostDrain ends what a director left that drained the host before it stopped.
func (d *Director) liftHostDrain() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := d.inheritedDrains
	d.inheritedDrains = nil
	if len(keys) == 0 {
		return nil
	}
	return d.undrain(keys)
}
