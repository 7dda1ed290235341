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
	pool, err := eachFromWire("local_addresses", response.Msg.LocalAddresses, saying(localStatusFromWire))
	if err != nil {
		return nil, fmt.Errorf("list local addresses: director answered with %w", err)
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
	return reply(&fairleadv1.ListLocalAddressesResponse{LocalAddresses: each(pool, localStatusToWire)}, err)
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

func localStatusToWire(local lvs.LocalAddressStatus) *fairleadv1.LocalAddressStatus {
	return &fairleadv1.LocalAddressStatus{LocalAddress: localToWire(local.LocalAddress), Problem: local.Problem}
}

func localStatusFromWire(wire *fairleadv1.LocalAddressStatus) (lvs.LocalAddressStatus, error) {
	local, err := localFromWire(wire.GetLocalAddress())
	return lvs.LocalAddressStatus{LocalAddress: local, Problem: wire.GetProblem()}, err
}

// localFromWire checks the form; whether a director takes it is for that to say.
func localFromWire(wire *fairleadv1.LocalAddress) (local lvs.LocalAddress, err error) {
	if local.Prefix, err = lvs.ParseLocalPrefix(wire.GetPrefix()); err != nil {
		return lvs.LocalAddress{}, err
	}
	local.Ports, err = lvs.ParsePortRange(wire.GetPorts())
	return local, err
}
