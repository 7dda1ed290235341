package api

import (
	"context"
	"fmt"
	"net/netip"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// LocalAddresses implements [Director].
func (c *Client) LocalAddresses(ctx context.Context) ([]lvs.LocalAddressStatus, error) {
	response, err := c.service.ListLocalAddresses(ctx, connect.NewRequest(&fairleadv1.ListLocalAddressesRequest{}))
	if err != nil {
		return nil, c.refused(err)
	}
	pool := make([]lvs.LocalAddressStatus, 0, len(response.Msg.LocalAddresses))
	for i, wire := range response.Msg.LocalAddresses {
		local, err := localFromWire(wire.GetLocalAddress())
		if err != nil {
			return nil, fmt.Errorf("list local addresses: director answered with local_addresses[%d]: %w", i, err)
		}
		pool = append(pool, lvs.LocalAddressStatus{LocalAddress: local, Problem: wire.GetProblem()})
	}
	return pool, nil
}

// AddLocalAddress implements [Director].
func (c *Client) AddLocalAddress(ctx context.Context, local lvs.LocalAddress) error {
	_, err := c.service.AddLocalAddress(ctx, connect.NewRequest(&fairleadv1.AddLocalAddressRequest{LocalAddress: localToWire(local)}))
	return c.refused(err)
}

// DeleteLocalAddress implements [Director].
func (c *Client) DeleteLocalAddress(ctx context.Context, prefix netip.Prefix) error {
	_, err := c.service.DeleteLocalAddress(ctx, connect.NewRequest(&fairleadv1.DeleteLocalAddressRequest{Prefix: prefix.String()}))
	return c.refused(err)
}

func (h *handler) ListLocalAddresses(ctx context.Context, _ *connect.Request[fairleadv1.ListLocalAddressesRequest]) (
	*connect.Response[fairleadv1.ListLocalAddressesResponse], error) {
	pool, err := h.director.LocalAddresses(ctx)
	if err != nil {
		return nil, toWire(err)
	}
	response := &fairleadv1.ListLocalAddressesResponse{}
	for _, local := range pool {
		response.LocalAddresses = append(response.LocalAddresses, &fairleadv1.LocalAddressStatus{
			LocalAddress: localToWire(local.LocalAddress), Problem: local.Problem,
		})
	}
	return connect.NewResponse(response), nil
}

func (h *handler) AddLocalAddress(ctx context.Context, req *connect.Request[fairleadv1.AddLocalAddressRequest]) (
	*connect.Response[fairleadv1.AddLocalAddressResponse], error) {
	local, err := localFromWire(req.Msg.LocalAddress)
	if err == nil {
		err = h.director.AddLocalAddress(ctx, local)
	}
	return answer[fairleadv1.AddLocalAddressResponse](err)
}

func (h *handler) DeleteLocalAddress(ctx context.Context, req *connect.Request[fairleadv1.DeleteLocalAddressRequest]) (
	*connect.Response[fairleadv1.DeleteLocalAddressResponse], error) {
	prefix, err := lvs.ParseLocalPrefix(req.Msg.Prefix)
	if err == nil {
		err = h.director.DeleteLocalAddress(ctx, prefix)
	}
	return answer[fairleadv1.DeleteLocalAddressResponse](err)
}

func localToWire(local lvs.LocalAddress) *fairleadv1.LocalAddress {
	return &fairleadv1.LocalAddress{Prefix: local.String(), Ports: local.Ports.String()}
}

// localFromWire checks the form; whether a director takes it is for that to say.
func localFromWire(wire *fairleadv1.LocalAddress) (local lvs.LocalAddress, err error) {
	if local.Prefix, err = lvs.ParseLocalPrefix(wire.GetPrefix()); err != nil {
		return lvs.LocalAddress{}, err
	}
	local.Ports, err = lvs.ParsePortRange(wire.GetPorts())
	return local, err
}
