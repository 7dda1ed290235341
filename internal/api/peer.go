package api

import (
	"context"
	"fmt"
	"net/netip"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Peers implements [Director].
func (c *Client) Peers(ctx context.Context) ([]lvs.Peer, error) {
	response, err := c.service.ListPeers(ctx, connect.NewRequest(&fairleadv1.ListPeersRequest{}))
	if err != nil {
		return nil, c.refused(err)
	}
	peers, err := eachFromWire("peers", response.Msg.Peers, peerFromWire)
	if err != nil {
		return nil, fmt.Errorf("list peers: director answered with %w", err)
	}
	return peers, nil
}

// AddPeer implements [Director].
func (c *Client) AddPeer(ctx context.Context, addr netip.Addr) error {
	_, err := c.service.AddPeer(ctx, connect.NewRequest(&fairleadv1.AddPeerRequest{Address: addr.String()}))
	return c.refused(err)
}

// DeletePeer implements [Director].
func (c *Client) DeletePeer(ctx context.Context, addr netip.Addr) error {
	_, err := c.service.DeletePeer(ctx, connect.NewRequest(&fairleadv1.DeletePeerRequest{Address: addr.String()}))
	return c.refused(err)
}

func (h *handler) ListPeers(ctx context.Context, _ *connect.Request[fairleadv1.ListPeersRequest]) (
	*connect.Response[fairleadv1.ListPeersResponse], error) {
	peers, err := h.director.Peers(ctx)
	return reply(&fairleadv1.ListPeersResponse{Peers: each(peers, peerToWire)}, err)
}

func (h *handler) AddPeer(ctx context.Context, req *connect.Request[fairleadv1.AddPeerRequest]) (
	*connect.Response[fairleadv1.AddPeerResponse], error) {
	addr, err := parseAddr("address", req.Msg.Address)
	if err == nil {
		err = h.director.AddPeer(ctx, addr)
	}
	return answer[fairleadv1.AddPeerResponse](err)
}

func (h *handler) DeletePeer(ctx context.Context, req *connect.Request[fairleadv1.DeletePeerRequest]) (
	*connect.Response[fairleadv1.DeletePeerResponse], error) {
	addr, err := parseAddr("address", req.Msg.Address)
	if err == nil {
		err = h.director.DeletePeer(ctx, addr)
	}
	return answer[fairleadv1.DeletePeerResponse](err)
}

func peerToWire(p lvs.Peer) *fairleadv1.Peer {
	return &fairleadv1.Peer{
		Address: p.Address.String(), Configured: p.Configured, Mac: macToWire(p.MAC), Interface: p.Interface, Problem: p.Problem,
	}
}

func peerFromWire(field string, wire *fairleadv1.Peer) (lvs.Peer, error) {
	addr, err := parseAddr(field+".address", wire.Address)
	if err != nil {
		return lvs.Peer{}, err
	}
	mac, err := macFromWire(field+".mac", wire.Mac)
	return lvs.Peer{
		Address: addr, Configured: wire.Configured, MAC: mac, Interface: wire.Interface, Problem: wire.Problem,
	}, err
}
