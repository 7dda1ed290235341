package api

import (
	"context"
	"fmt"
	"math"
	"time"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Connections calls visit with every entry of the connection table.
func (c *Client) Connections(ctx context.Context, visit func(lvs.Connection) error) error {
	return c.FindConnections(ctx, lvs.ConnectionFilter{}, visit)
}

// FindConnections implements [Director].
func (c *Client) FindConnections(ctx context.Context, filter lvs.ConnectionFilter, visit func(lvs.Connection) error) error {
	wire, err := connectionFilterToWire(filter)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.connections.CallServerStream(ctx, connect.NewRequest(&fairleadv1.ListConnectionsRequest{
		Filter: wire, Limit: uint64(filter.Limit),
	}))
	if err != nil {
		return c.refused(err)
	}
	defer func() {
		cancel() // before Close, which else waits for a stream that visit broke off
		stream.Close()
	}()
	decoder := newConnectionDecoder()
	for stream.Receive() {
		if err := decoder.visit(stream.Msg().bytes, visit); err != nil {
			return err
		}
	}
	return c.refused(stream.Err())
}

// CountConnections implements [Director].
func (c *Client) CountConnections(ctx context.Context, filter lvs.ConnectionFilter, by []lvs.ConnectionField) (lvs.ConnectionCount, error) {
	wire, err := connectionFilterToWire(filter)
	if err != nil {
		return lvs.ConnectionCount{}, err
	}
	request := &fairleadv1.CountConnectionsRequest{Filter: wire, Limit: uint64(filter.Limit)}
	for _, field := range by {
		request.By = append(request.By, string(field))
	}
	response, err := c.service.CountConnections(ctx, connect.NewRequest(request))
	if err != nil {
		return lvs.ConnectionCount{}, c.refused(err)
	}
	count := lvs.ConnectionCount{
		ConnectionTotal: totalFromWire(response.Msg.Total),
		Omitted:         int(response.Msg.Omitted),
	}
	for _, group := range response.Msg.Groups {
		if len(group.Values) != len(by) {
			return lvs.ConnectionCount{}, fmt.Errorf("count connections: director answered with %d values for %d fields", len(group.Values), len(by))
		}
		count.Groups = append(count.Groups, lvs.ConnectionGroup{Values: group.Values, ConnectionTotal: totalFromWire(group.Total)})
	}
	return count, nil
}

func (h *handler) ListConnections(ctx context.Context, req *connect.Request[fairleadv1.ListConnectionsRequest],
	stream *connect.ServerStream[fairleadv1.ListConnectionsResponse]) error {
	filter, err := connectionFilterFromWire(req.Msg.Filter, req.Msg.Limit)
	if err != nil {
		return toWire(err)
	}
	batch := newConnectionEncoder(req.Header().Get("Content-Type"))
	err = h.director.FindConnections(ctx, filter, func(c lvs.Connection) error {
		if !batch.add(&c) {
			return nil
		}
		return stream.Send(batch.take())
	})
	if err != nil {
		return toWire(err)
	}
	return stream.Send(batch.take())
}

func (h *handler) CountConnections(ctx context.Context, req *connect.Request[fairleadv1.CountConnectionsRequest]) (
	*connect.Response[fairleadv1.CountConnectionsResponse], error) {
	filter, err := connectionFilterFromWire(req.Msg.Filter, req.Msg.Limit)
	if err != nil {
		return nil, toWire(err)
	}
	var by []lvs.ConnectionField
	for _, name := range req.Msg.By {
		field, err := lvs.ParseConnectionField(name)
		if err != nil {
			return nil, toWire(fmt.Errorf("by: %w", err))
		}
		by = append(by, field)
	}
	count, err := h.director.CountConnections(ctx, filter, by)
	if err != nil {
		return nil, toWire(err)
	}
	response := &fairleadv1.CountConnectionsResponse{
		Total: totalToWire(count.ConnectionTotal), Omitted: uint64(count.Omitted),
	}
	for _, group := range count.Groups {
		response.Groups = append(response.Groups, &fairleadv1.ConnectionGroup{
			Values: group.Values, Total: totalToWire(group.ConnectionTotal),
		})
	}
	return connect.NewResponse(response), nil
}

func totalToWire(t lvs.ConnectionTotal) *fairleadv1.ConnectionTotal {
	return &fairleadv1.ConnectionTotal{Connections: t.Connections, Packets: t.Packets, Bytes: t.Bytes}
}

func totalFromWire(wire *fairleadv1.ConnectionTotal) lvs.ConnectionTotal {
	return lvs.ConnectionTotal{Connections: wire.GetConnections(), Packets: wire.GetPackets(), Bytes: wire.GetBytes()}
}

// The kinds of the domain are those of the wire.

func connectionFilterToWire(f lvs.ConnectionFilter) (*fairleadv1.ConnectionFilter, error) {
	if err := wholeSeconds("idle", f.IdleAtLeast); err != nil {
		return nil, err
	}
	if err := wholeSeconds("expires within", f.ExpiresWithin); err != nil {
		return nil, err
	}
	if f.Limit < 0 {
		return nil, fmt.Errorf("limit %d: %w", f.Limit, lvs.ErrRange)
	}
	wire := &fairleadv1.ConnectionFilter{
		Protocol: fairleadv1.Protocol(f.Protocol),
		Client:   f.Client.String(), Virtual: f.Virtual.String(), Server: f.Server.String(),
		Kind:                 fairleadv1.ConnectionKind(f.Kind),
		IdleSecondsAtLeast:   secondsToWire(f.IdleAtLeast),
		ExpiresWithinSeconds: secondsToWire(f.ExpiresWithin),
	}
	for _, state := range f.States {
		wire.States = append(wire.States, state.String())
	}
	return wire, nil
}

func connectionFilterFromWire(wire *fairleadv1.ConnectionFilter, limit uint64) (f lvs.ConnectionFilter, err error) {
	if limit > math.MaxInt32 {
		return f, fmt.Errorf("limit %d: %w: want 0 to %d", limit, lvs.ErrRange, math.MaxInt32)
	}
	f.Limit = int(limit)
	if p := wire.GetProtocol(); p != fairleadv1.Protocol_PROTOCOL_UNSPECIFIED {
		if f.Protocol, err = parseProtocol("filter.protocol", p); err != nil {
			return f, err
		}
	}
	for _, side := range []struct {
		name, text string
		to         *lvs.Endpoint
	}{{"client", wire.GetClient(), &f.Client}, {"virtual", wire.GetVirtual(), &f.Virtual}, {"server", wire.GetServer(), &f.Server}} {
		if side.text == "" {
			continue
		}
		if *side.to, err = lvs.ParseEndpoint(side.text); err != nil {
			return f, fmt.Errorf("filter.%s: %w", side.name, err)
		}
	}
	for _, name := range wire.GetStates() {
		states, err := lvs.ConnectionStatesNamed(name)
		if err != nil {
			return f, fmt.Errorf("filter.states: %w", err)
		}
		f.States = append(f.States, states...)
	}
	if f.Kind = lvs.ConnectionKind(wire.GetKind()); wire.GetKind() > fairleadv1.ConnectionKind_CONNECTION_KIND_TEMPLATE || wire.GetKind() < 0 {
		return f, invalid("filter.kind", wire.GetKind(), "CONNECTION_KIND_CONNECTION or CONNECTION_KIND_TEMPLATE")
	}
	f.IdleAtLeast = time.Duration(wire.GetIdleSecondsAtLeast()) * time.Second
	f.ExpiresWithin = time.Duration(wire.GetExpiresWithinSeconds()) * time.Second
	return f, nil
}
