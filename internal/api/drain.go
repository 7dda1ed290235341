package api

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// MaxDrain is the longest deadline of a drain, as long as the longest timeout.
const MaxDrain = MaxTimeout

// Drain implements [Director].
func (c *Client) Drain(ctx context.Context, scope lvs.DrainScope, deadline time.Duration, then lvs.DrainEnd) ([]lvs.Drain, error) {
	if deadline < 0 || deadline > MaxDrain {
		return nil, fmt.Errorf("drain %s: deadline %s: %w: want 0 to %s", scope, deadline, lvs.ErrRange, MaxDrain)
	}
	response, err := c.service.Drain(ctx, connect.NewRequest(&fairleadv1.DrainRequest{
		Scope: scopeToWire(scope), DeadlineMilliseconds: uint64(deadline.Milliseconds()), Then: drainEndToWire(then),
	}))
	if err != nil {
		return nil, c.refused(err)
	}
	return eachFromWire("drains", response.Msg.Drains, drainFromWire)
}

// Undrain implements [Director].
func (c *Client) Undrain(ctx context.Context, scope lvs.DrainScope) ([]lvs.Drain, error) {
	response, err := c.service.Undrain(ctx, connect.NewRequest(&fairleadv1.UndrainRequest{Scope: scopeToWire(scope)}))
	if err != nil {
		return nil, c.refused(err)
	}
	return eachFromWire("drains", response.Msg.Drains, drainFromWire)
}

// Drains implements [Director].
func (c *Client) Drains(ctx context.Context) ([]lvs.Drain, error) {
	response, err := c.service.ListDrains(ctx, connect.NewRequest(&fairleadv1.ListDrainsRequest{}))
	if err != nil {
		return nil, c.refused(err)
	}
	return eachFromWire("drains", response.Msg.Drains, drainFromWire)
}

func (h *handler) Drain(ctx context.Context, req *connect.Request[fairleadv1.DrainRequest]) (
	*connect.Response[fairleadv1.DrainResponse], error) {
	scope, err := scopeFromWire("scope", req.Msg.Scope)
	if err != nil {
		return nil, toWire(err)
	}
	if req.Msg.DeadlineMilliseconds > uint64(MaxDrain/time.Millisecond) {
		return nil, toWire(invalid("deadline_milliseconds", req.Msg.DeadlineMilliseconds, fmt.Sprintf("0 to %d, 31 days", MaxDrain/time.Millisecond)))
	}
	then, err := drainEndFromWire("then", req.Msg.Then)
	if err != nil {
		return nil, toWire(err)
	}
	drains, err := h.director.Drain(ctx, scope, time.Duration(req.Msg.DeadlineMilliseconds)*time.Millisecond, then)
	return reply(&fairleadv1.DrainResponse{Drains: each(drains, drainToWire)}, err)
}

func (h *handler) Undrain(ctx context.Context, req *connect.Request[fairleadv1.UndrainRequest]) (
	*connect.Response[fairleadv1.UndrainResponse], error) {
	scope, err := scopeFromWire("scope", req.Msg.Scope)
	if err != nil {
		return nil, toWire(err)
	}
	drains, err := h.director.Undrain(ctx, scope)
	return reply(&fairleadv1.UndrainResponse{Drains: each(drains, drainToWire)}, err)
}

func (h *handler) ListDrains(ctx context.Context, _ *connect.Request[fairleadv1.ListDrainsRequest]) (
	*connect.Response[fairleadv1.ListDrainsResponse], error) {
	drains, err := h.director.Drains(ctx)
	return reply(&fairleadv1.ListDrainsResponse{Drains: each(drains, drainToWire)}, err)
}

func scopeToWire(s lvs.DrainScope) *fairleadv1.DrainScope {
	wire := &fairleadv1.DrainScope{Address: s.Address.String()}
	if s.Port != 0 {
		wire.Address = netip.AddrPortFrom(s.Address, s.Port).String()
	}
	if (s.Service != lvs.ServiceKey{}) {
		wire.Service = keyToWire(s.Service)
	}
	return wire
}

func scopeFromWire(field string, s *fairleadv1.DrainScope) (scope lvs.DrainScope, err error) {
	if s == nil {
		return lvs.DrainScope{}, missing(field)
	}
	if _, err := netip.ParseAddr(s.Address); err == nil {
		if scope.Address, err = parseAddr(field+".address", s.Address); err != nil {
			return lvs.DrainScope{}, err
		}
	} else {
		addr, err := parseAddrPort(field+".address", s.Address)
		if err != nil {
			return lvs.DrainScope{}, err
		}
		scope.Address, scope.Port = addr.Addr(), addr.Port()
	}
	if s.Service != nil {
		scope.Service, err = keyFromWire(field+".service", s.Service)
	}
	return scope, err
}

func drainEndToWire(end lvs.DrainEnd) fairleadv1.DrainEnd {
	switch end {
	case lvs.DrainExpire:
		return fairleadv1.DrainEnd_DRAIN_END_EXPIRE
	case lvs.DrainReset:
		return fairleadv1.DrainEnd_DRAIN_END_RESET
	}
	return fairleadv1.DrainEnd_DRAIN_END_UNSPECIFIED
}

func drainEndFromWire(field string, end fairleadv1.DrainEnd) (lvs.DrainEnd, error) {
	switch end {
	case fairleadv1.DrainEnd_DRAIN_END_UNSPECIFIED:
		return lvs.DrainKeep, nil
	case fairleadv1.DrainEnd_DRAIN_END_EXPIRE:
		return lvs.DrainExpire, nil
	case fairleadv1.DrainEnd_DRAIN_END_RESET:
		return lvs.DrainReset, nil
	}
	return "", invalid(field, end, "DRAIN_END_EXPIRE or DRAIN_END_RESET")
}

func drainToWire(d lvs.Drain) *fairleadv1.Drain {
	wire := &fairleadv1.Drain{
		Service: keyToWire(d.Service), Server: d.Server.String(),
		SinceUnixNanoseconds: timeToWire(d.Since), DeadlineUnixNanoseconds: timeToWire(d.Deadline),
		Then: drainEndToWire(d.Then), Initial: d.Initial, Left: d.Left, Rate: d.Rate, Ended: d.Ended,
	}
	if d.Remaining >= 0 {
		remaining := uint64(d.Remaining.Milliseconds())
		wire.RemainingMilliseconds = &remaining
	}
	return wire
}

func drainFromWire(field string, wire *fairleadv1.Drain) (lvs.Drain, error) {
	service, err := keyFromWire(field+".service", wire.GetService())
	if err != nil {
		return lvs.Drain{}, err
	}
	server, err := serverKeyFromWire(field+".server", wire.GetServer())
	if err != nil {
		return lvs.Drain{}, err
	}
	then, err := drainEndFromWire(field+".then", wire.GetThen())
	if err != nil {
		return lvs.Drain{}, err
	}
	d := lvs.Drain{
		Service: service, Server: server, Then: then,
		Since: timeFromWire(wire.GetSinceUnixNanoseconds()), Deadline: timeFromWire(wire.GetDeadlineUnixNanoseconds()),
		Initial: wire.GetInitial(), Left: wire.GetLeft(), Rate: wire.GetRate(), Ended: wire.GetEnded(), Remaining: -1,
	}
	if wire.RemainingMilliseconds != nil {
		d.Remaining = time.Duration(min(*wire.RemainingMilliseconds, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	}
	return d, nil
}
