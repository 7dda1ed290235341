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
	// drainGrace is how long after its deadline the drain of a host waits for what is
	// expired or reset to be gone.
	drainGrace = 10 * time.Second
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
	found := d.connectionsOf(slices.DeleteFunc(slices.Clone(over), func(key drainKey) bool { return d.drains[key].Then != lvs.DrainReset }))
	for _, key := range over {
		one := d.drains[key]
		if one.Then != lvs.DrainKeep {
			if err := d.markDrain(key, dataplane.DrainExpire); err != nil {
				errs = append(errs, err)
				continue // it is tried again
			}
		}
		one.Ended = true
		left = append(left, found[key]...)
		d.log.Info("deadline of a drain", "service", key.service, "realserver", key.server, "connections", one.Left, "then", one.Then)
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

// connectionsOf returns the TCP connections of some real servers. It walks the connection
// table once, if at all.
func (d *Director) connectionsOf(keys []drainKey) map[drainKey][]reset.Connection {
	found := map[drainKey][]reset.Connection{}
	ofAddress := map[netip.Addr][]drainKey{}
	for _, key := range keys {
		ofAddress[key.server.Address] = append(ofAddress[key.server.Address], key)
	}
	if len(keys) == 0 {
		return found
	}
	for c := range d.plane.Connections() {
		if c.Protocol != lvs.TCP || c.Template {
			continue
		}
		for _, key := range ofAddress[c.Server.Addr()] {
			at := findServer(d.rosters[key.service].told, key.server)
			hop, known := d.hops.find(key.server.Address)
			if at >= 0 && known && key.isOf(c) {
				server := d.rosters[key.service].told[at]
				found[key] = append(found[key], reset.Connection{Client: c.Client, Virtual: c.Virtual, Local: c.Local, Server: server, NextHop: hop})
			}
		}
	}
	return found
}

// isOf reports whether a connection to the address of a real server is one of its service.
func (k drainKey) isOf(c lvs.Connection) bool {
	return k.service.Mark != 0 || k.service.Protocol == lvs.TCP && c.Virtual.Addr() == k.service.Address &&
		(k.service.Port == 0 || c.Virtual.Port() == k.service.Port)
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

// drainHost drains all real servers, and returns when nothing is left, also of those that
// were drained before, or at the deadline when that is over, or when ctx ends.
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
	over := time.Now().Add(deadline)
	_, err := d.drain(keys, deadline, then, true)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	ticker := time.NewTicker(drainInterval)
	defer ticker.Stop()
	for !d.hostIsDrained(over) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// hostIsDrained reports whether there is no connection that the drain of the host, which
// is over at a time, waits for.
func (d *Director) hostIsDrained(over time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, left := time.Now(), uint32(0)
	for _, one := range d.drains {
		until := over
		if one.host && one.Then != lvs.DrainKeep {
			until = over.Add(drainGrace)
		}
		if one.Left > 0 && now.Before(until) {
			return false
		}
		left += one.Left
	}
	if left > 0 {
		d.log.Warn("the host is not drained in time", "connections", left)
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
