package api

import (
	"context"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Sysctls implements [Director].
func (c *Client) Sysctls(ctx context.Context, service lvs.ServiceKey) ([]lvs.SysctlValue, error) {
	response, err := c.service.ListSysctls(ctx, connect.NewRequest(&fairleadv1.ListSysctlsRequest{
		Service: ownerToWire(service),
	}))
	if err != nil {
		return nil, c.refused(err)
	}
	values := make([]lvs.SysctlValue, 0, len(response.Msg.Sysctls))
	for _, wire := range response.Msg.Sysctls {
		values = append(values, lvs.SysctlValue{
			Sysctl: lvs.Sysctl{
				Name: wire.Name, Meaning: wire.Meaning, Unit: wire.Unit,
				Default: wire.DefaultValue, Min: wire.Min, Max: wire.Max, PerService: wire.PerService,
			},
			Value: wire.Value, Own: wire.Own,
		})
	}
	return values, nil
}

// SetSysctls implements [Director].
func (c *Client) SetSysctls(ctx context.Context, service lvs.ServiceKey, changes []lvs.SysctlChange) error {
	request := &fairleadv1.SetSysctlsRequest{Service: ownerToWire(service)}
	for _, change := range changes {
		request.Changes = append(request.Changes, &fairleadv1.SysctlChange{
			Name: change.Name, Value: change.Value, Reset_: change.Reset,
		})
	}
	_, err := c.service.SetSysctls(ctx, connect.NewRequest(request))
	return c.refused(err)
}

func (h *handler) ListSysctls(ctx context.Context, req *connect.Request[fairleadv1.ListSysctlsRequest]) (
	*connect.Response[fairleadv1.ListSysctlsResponse], error) {
	service, err := ownerFromWire("service", req.Msg.Service)
	if err != nil {
		return nil, toWire(err)
	}
	values, err := h.director.Sysctls(ctx, service)
	if err != nil {
		return nil, toWire(err)
	}
	response := &fairleadv1.ListSysctlsResponse{}
	for _, v := range values {
		response.Sysctls = append(response.Sysctls, &fairleadv1.Sysctl{
			Name: v.Name, Meaning: v.Meaning, Unit: v.Unit,
			DefaultValue: v.Default, Min: v.Min, Max: v.Max, PerService: v.PerService,
			Value: v.Value, Own: v.Own,
		})
	}
	return connect.NewResponse(response), nil
}

func (h *handler) SetSysctls(ctx context.Context, req *connect.Request[fairleadv1.SetSysctlsRequest]) (
	*connect.Response[fairleadv1.SetSysctlsResponse], error) {
	service, err := ownerFromWire("service", req.Msg.Service)
	if err != nil {
		return nil, toWire(err)
	}
	changes := make([]lvs.SysctlChange, 0, len(req.Msg.Changes))
	for _, wire := range req.Msg.Changes {
		changes = append(changes, lvs.SysctlChange{Name: wire.GetName(), Value: wire.GetValue(), Reset: wire.GetReset_()})
	}
	return answer[fairleadv1.SetSysctlsResponse](h.director.SetSysctls(ctx, service, changes))
}

// ownerToWire returns nil for the zero key: the director.
func ownerToWire(key lvs.ServiceKey) *fairleadv1.ServiceKey {
	if (key == lvs.ServiceKey{}) {
		return nil
	}
	return keyToWire(key)
}

func ownerFromWire(field string, key *fairleadv1.ServiceKey) (lvs.ServiceKey, error) {
	if key == nil {
		return lvs.ServiceKey{}, nil
	}
	return keyFromWire(field, key)
}
