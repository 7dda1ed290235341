package api

import (
	"context"
	"fmt"
	"net/netip"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// State implements [Director].
func (c *Client) State(ctx context.Context) (lvs.State, error) {
	response, err := c.service.GetState(ctx, connect.NewRequest(&fairleadv1.GetStateRequest{}))
	if err != nil {
		return lvs.State{}, c.refused(err)
	}
	state, err := stateFromWire("state", response.Msg.State)
	if err != nil {
		return lvs.State{}, fmt.Errorf("get state: director answered with %w", err)
	}
	return state, nil
}

// Restore implements [Director].
func (c *Client) Restore(ctx context.Context, state lvs.State, dryRun bool) ([]string, error) {
	for i, s := range state.Services {
		if err := wholeSeconds("persistence timeout", s.PersistenceTimeout); err != nil {
			return nil, &lvs.ItemError{Item: fmt.Sprintf("services[%d]", i), Err: err}
		}
	}
	response, err := c.service.Restore(ctx, connect.NewRequest(&fairleadv1.RestoreRequest{
		State: stateToWire(state), DryRun: dryRun,
	}))
	if err != nil {
		return nil, c.refused(err)
	}
	return response.Msg.Changes, nil
}

func (h *handler) GetState(ctx context.Context, _ *connect.Request[fairleadv1.GetStateRequest]) (
	*connect.Response[fairleadv1.GetStateResponse], error) {
	state, err := h.director.State(ctx)
	return reply(&fairleadv1.GetStateResponse{State: stateToWire(state)}, err)
}

func (h *handler) Restore(ctx context.Context, req *connect.Request[fairleadv1.RestoreRequest]) (
	*connect.Response[fairleadv1.RestoreResponse], error) {
	state, err := stateFromWire("state", req.Msg.State)
	if err != nil {
		return nil, toWire(err)
	}
	changes, err := h.director.Restore(ctx, state, req.Msg.DryRun)
	return reply(&fairleadv1.RestoreResponse{Changes: changes}, err)
}

func stateToWire(state lvs.State) *fairleadv1.State {
	return &fairleadv1.State{
		Sysctls:        settingsToWire(state.Sysctls),
		Peers:          each(state.Peers, netip.Addr.String),
		Marks:          each(state.Marks, markToWire),
		LocalAddresses: each(state.LocalAddresses, localToWire),
		Services:       each(state.Services, serviceStateToWire),
	}
}

func serviceStateToWire(s lvs.ServiceState) *fairleadv1.ServiceState {
	return &fairleadv1.ServiceState{
		Service: serviceToWire(s.Service), Sysctls: settingsToWire(s.Sysctls), Servers: each(s.Servers, serverToWire),
	}
}

// stateFromWire returns errors of items as *lvs.ItemError.
func stateFromWire(field string, wire *fairleadv1.State) (lvs.State, error) {
	if wire == nil {
		return lvs.State{}, missing(field)
	}
	state := lvs.State{Sysctls: settingsFromWire(wire.Sysctls)}
	var err error
	if state.Peers, err = eachFromWire("peers", wire.Peers, ofState(peerAddressFromWire)); err != nil {
		return lvs.State{}, err
	}
	if state.Marks, err = eachFromWire("marks", wire.Marks, ofState(markFromWire)); err != nil {
		return lvs.State{}, err
	}
	if state.LocalAddresses, err = eachFromWire("local_addresses", wire.LocalAddresses, ofState(localFromWire)); err != nil {
		return lvs.State{}, err
	}
	if state.Services, err = eachFromWire("services", wire.Services, serviceStateFromWire); err != nil {
		return lvs.State{}, err
	}
	return state, nil
}

func peerAddressFromWire(given string) (netip.Addr, error) { return parseAddr("peer", given) }

func serviceStateFromWire(item string, wire *fairleadv1.ServiceState) (lvs.ServiceState, error) {
	service, err := serviceFromWire("service", wire.GetService())
	if err != nil {
		return lvs.ServiceState{}, &lvs.ItemError{Item: item, Err: err}
	}
	servers, err := eachFromWire(item+".servers", wire.Servers, ofState(stateServerFromWire))
	if err != nil {
		return lvs.ServiceState{}, err
	}
	return lvs.ServiceState{Service: service, Sysctls: settingsFromWire(wire.Sysctls), Servers: servers}, nil
}

func stateServerFromWire(given *fairleadv1.RealServer) (lvs.RealServer, error) {
	return serverFromWire("real server", given)
}

func settingsToWire(settings []lvs.SysctlSetting) []*fairleadv1.SysctlSetting {
	var wire []*fairleadv1.SysctlSetting
	for _, s := range settings {
		wire = append(wire, &fairleadv1.SysctlSetting{Name: s.Name, Value: s.Value})
	}
	return wire
}

func settingsFromWire(wire []*fairleadv1.SysctlSetting) []lvs.SysctlSetting {
	var settings []lvs.SysctlSetting
	for _, s := range wire {
		settings = append(settings, lvs.SysctlSetting{Name: s.GetName(), Value: s.GetValue()})
	}
	return settings
}
