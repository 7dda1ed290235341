package api

import (
	"context"
	"fmt"

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
	if err != nil {
		return nil, toWire(err)
	}
	return connect.NewResponse(&fairleadv1.GetStateResponse{State: stateToWire(state)}), nil
}

func (h *handler) Restore(ctx context.Context, req *connect.Request[fairleadv1.RestoreRequest]) (
	*connect.Response[fairleadv1.RestoreResponse], error) {
	state, err := stateFromWire("state", req.Msg.State)
	if err != nil {
		return nil, toWire(err)
	}
	changes, err := h.director.Restore(ctx, state, req.Msg.DryRun)
	if err != nil {
		return nil, toWire(err)
	}
	return connect.NewResponse(&fairleadv1.RestoreResponse{Changes: changes}), nil
}

func stateToWire(state lvs.State) *fairleadv1.State {
	wire := &fairleadv1.State{Sysctls: settingsToWire(state.Sysctls)}
	for _, addr := range state.Peers {
		wire.Peers = append(wire.Peers, addr.String())
	}
	for _, rule := range state.Marks {
		wire.Marks = append(wire.Marks, markToWire(rule))
	}
	for _, local := range state.LocalAddresses {
		wire.LocalAddresses = append(wire.LocalAddresses, localToWire(local))
	}
	for _, s := range state.Services {
		service := &fairleadv1.ServiceState{Service: serviceToWire(s.Service), Sysctls: settingsToWire(s.Sysctls)}
		for _, server := range s.Servers {
			service.Servers = append(service.Servers, serverToWire(server))
		}
		wire.Services = append(wire.Services, service)
	}
	return wire
}

// stateFromWire returns errors of items as *lvs.ItemError.
func stateFromWire(field string, wire *fairleadv1.State) (lvs.State, error) {
	if wire == nil {
		return lvs.State{}, missing(field)
	}
	state := lvs.State{Sysctls: settingsFromWire(wire.Sysctls)}
	for i, given := range wire.Peers {
		addr, err := parseAddr("peer", given)
		if err != nil {
			return lvs.State{}, &lvs.ItemError{Item: fmt.Sprintf("peers[%d]", i), Err: err}
		}
		state.Peers = append(state.Peers, addr)
	}
	for i, given := range wire.Marks {
		rule, err := markFromWire(given)
		if err != nil {
			return lvs.State{}, &lvs.ItemError{Item: fmt.Sprintf("marks[%d]", i), Err: err}
		}
		state.Marks = append(state.Marks, rule)
	}
	for i, given := range wire.LocalAddresses {
		local, err := localFromWire(given)
		if err != nil {
			return lvs.State{}, &lvs.ItemError{Item: fmt.Sprintf("local_addresses[%d]", i), Err: err}
		}
		state.LocalAddresses = append(state.LocalAddresses, local)
	}
	for i, given := range wire.Services {
		service, err := serviceStateFromWire(fmt.Sprintf("services[%d]", i), given)
		if err != nil {
			return lvs.State{}, err
		}
		state.Services = append(state.Services, service)
	}
	return state, nil
}

func serviceStateFromWire(item string, wire *fairleadv1.ServiceState) (lvs.ServiceState, error) {
	service, err := serviceFromWire("service", wire.GetService())
	if err != nil {
		return lvs.ServiceState{}, &lvs.ItemError{Item: item, Err: err}
	}
	state := lvs.ServiceState{Service: service, Sysctls: settingsFromWire(wire.Sysctls)}
	for i, given := range wire.Servers {
		server, err := serverFromWire("real server", given)
		if err != nil {
			return lvs.ServiceState{}, &lvs.ItemError{Item: fmt.Sprintf("%s.servers[%d]", item, i), Err: err}
		}
		state.Servers = append(state.Servers, server)
	}
	return state, nil
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
