package api

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func (h *handler) Explain(ctx context.Context, req *connect.Request[fairleadv1.ExplainRequest]) (
	*connect.Response[fairleadv1.ExplainResponse], error) {
	question, err := questionFromWire(req.Msg)
	if err != nil {
		return nil, toWire(err)
	}
	explanation, err := h.director.Explain(ctx, question)
	return reply(explanationToWire(explanation), err)
}

// Explain implements [Director].
func (c *Client) Explain(ctx context.Context, question lvs.Question) (lvs.Explanation, error) {
	response, err := c.service.Explain(ctx, connect.NewRequest(questionToWire(question)))
	if err != nil {
		return lvs.Explanation{}, c.refused(err)
	}
	explanation, err := explanationFromWire(response.Msg)
	if err != nil {
		return lvs.Explanation{}, fmt.Errorf("explain: director answered with %w", err)
	}
	return explanation, nil
}

// defaultTCPFlags begin a connection.
const defaultTCPFlags = "S"

func questionToWire(q lvs.Question) *fairleadv1.ExplainRequest {
	return &fairleadv1.ExplainRequest{
		Protocol:   fairleadv1.Protocol(q.Protocol),
		Client:     q.Client.String(),
		Virtual:    q.Virtual.String(),
		TcpFlags:   q.Flags.String(),
		NoTcpFlags: q.Protocol == lvs.TCP && q.Flags == 0,
		Interface:  q.Interface,
	}
}

func questionFromWire(wire *fairleadv1.ExplainRequest) (q lvs.Question, err error) {
	if q.Protocol, err = parseProtocol("protocol", wire.Protocol); err != nil {
		return q, err
	}
	if q.Protocol == lvs.SCTP {
		return q, fmt.Errorf("protocol SCTP: %w", lvs.ErrUnsupported)
	}
	if q.Client, err = parseAddrPort("client", wire.Client); err != nil {
		return q, err
	}
	if q.Virtual, err = parseAddrPort("virtual", wire.Virtual); err != nil {
		return q, err
	}
	if q.Client.Addr().Is4() != q.Virtual.Addr().Is4() {
		return q, invalid("client", wire.Client, "an address of the family of "+wire.Virtual)
	}
	q.Interface = wire.Interface
	letters := wire.TcpFlags
	switch {
	case letters != "" && (wire.NoTcpFlags || q.Protocol != lvs.TCP):
		return q, invalid("tcp_flags", letters, "them for TCP only, and not with no_tcp_flags")
	case letters == "" && !wire.NoTcpFlags && q.Protocol == lvs.TCP:
		letters = defaultTCPFlags
	}
	q.Flags, err = lvs.ParseTCPFlags(letters)
	return q, err
}

func explanationToWire(e lvs.Explanation) *fairleadv1.ExplainResponse {
	wire := &fairleadv1.ExplainResponse{
		Verdict: &fairleadv1.Verdict{Name: e.Verdict, Kind: e.VerdictKind, Meaning: e.VerdictMeaning},
		Action:  e.Action,
		In:      frameToWire(e.In),
		Choice:  &fairleadv1.Choice{By: string(e.Choice.By), Server: serverToText(e.Choice.Server), Why: e.Choice.Why},
		Before:  connectionToWire(e.Before),
		After:   connectionToWire(e.After),
	}
	if e.Out != nil {
		wire.Out = frameToWire(*e.Out)
	}
	if e.Service != nil {
		wire.Service = serviceToWire(*e.Service)
	}
	for _, c := range e.Candidates {
		wire.Candidates = append(wire.Candidates, &fairleadv1.Candidate{
			Server: c.RealServerKey.String(), Weight: c.Weight,
			ActiveConnections: c.Active, InactiveConnections: c.Inactive, Overloaded: c.Overloaded,
			Load: c.Load, Divisor: c.Divisor, Chosen: c.Chosen,
		})
	}
	return wire
}

func explanationFromWire(wire *fairleadv1.ExplainResponse) (e lvs.Explanation, err error) {
	e = lvs.Explanation{
		Verdict: wire.GetVerdict().GetName(), VerdictKind: wire.GetVerdict().GetKind(), VerdictMeaning: wire.GetVerdict().GetMeaning(),
		Action: wire.GetAction(),
		Choice: lvs.Choice{By: lvs.ChosenBy(wire.GetChoice().GetBy()), Why: wire.GetChoice().GetWhy()},
	}
	if e.In, err = frameFromWire("in", wire.In); err != nil {
		return e, err
	}
	if wire.Out != nil {
		out, err := frameFromWire("out", wire.Out)
		if err != nil {
			return e, err
		}
		e.Out = &out
	}
	if wire.Service != nil {
		service, err := serviceFromWire("service", wire.Service)
		if err != nil {
			return e, err
		}
		e.Service = &service
	}
	if text := wire.GetChoice().GetServer(); text != "" {
		if e.Choice.Server, err = serverKeyFromWire("choice.server", text); err != nil {
			return e, err
		}
	}
	for i, c := range wire.Candidates {
		key, err := serverKeyFromWire(fmt.Sprintf("candidates[%d].server", i), c.GetServer())
		if err != nil {
			return e, err
		}
		e.Candidates = append(e.Candidates, lvs.Candidate{
			RealServerKey: key, Weight: c.GetWeight(),
			Active: c.GetActiveConnections(), Inactive: c.GetInactiveConnections(), Overloaded: c.GetOverloaded(),
			Load: c.GetLoad(), Divisor: c.GetDivisor(), Chosen: c.GetChosen(),
		})
	}
	if e.Before, err = connectionFromWire("before", wire.Before); err != nil {
		return e, err
	}
	e.After, err = connectionFromWire("after", wire.After)
	return e, err
}

func serverToText(key lvs.RealServerKey) string {
	if key == (lvs.RealServerKey{}) {
		return ""
	}
	return key.String()
}

func frameToWire(f lvs.Frame) *fairleadv1.Frame {
	wire := &fairleadv1.Frame{
		Interface: f.InterfaceName, InterfaceIndex: uint32(f.InterfaceIndex),
		SourceMac: macToWire(f.Source), DestinationMac: macToWire(f.Destination),
		Vlan: uint32(f.VLAN), Ttl: uint32(f.TTL), Bytes: uint32(f.Length),
	}
	if f.SourceIP.IsValid() {
		wire.SourceIp, wire.DestinationIp = f.SourceIP.String(), f.DestinationIP.String()
	}
	return wire
}

func frameFromWire(field string, wire *fairleadv1.Frame) (f lvs.Frame, err error) {
	if f.Source, err = macFromWire(field+".source_mac", wire.GetSourceMac()); err != nil {
		return f, err
	}
	if f.Destination, err = macFromWire(field+".destination_mac", wire.GetDestinationMac()); err != nil {
		return f, err
	}
	for _, ip := range []struct {
		name, text string
		to         *netip.Addr
	}{
		{"source_ip", wire.GetSourceIp(), &f.SourceIP},
		{"destination_ip", wire.GetDestinationIp(), &f.DestinationIP},
	} {
		if ip.text == "" {
			continue
		}
		if *ip.to, err = netip.ParseAddr(ip.text); err != nil {
			return f, invalid(field+"."+ip.name, ip.text, "an IP address")
		}
	}
	f.InterfaceName, f.InterfaceIndex = wire.GetInterface(), int(wire.GetInterfaceIndex())
	f.VLAN, f.TTL, f.Length = uint16(wire.GetVlan()), uint8(wire.GetTtl()), int(wire.GetBytes())
	return f, nil
}

// connectionToWire returns nil for nil.
func connectionToWire(c *lvs.Connection) *fairleadv1.Connection {
	if c == nil {
		return nil
	}
	return &fairleadv1.Connection{
		Protocol: fairleadv1.Protocol(c.Protocol),
		Client:   c.Client.String(), Virtual: c.Virtual.String(), Server: c.Server.String(),
		State: c.State.String(), ExpiresSeconds: secondsToWire(c.Expires), Packets: c.Packets, Bytes: c.Bytes,
	}
}

func connectionFromWire(field string, wire *fairleadv1.Connection) (*lvs.Connection, error) {
	if wire == nil {
		return nil, nil
	}
	c := lvs.Connection{
		Expires: time.Duration(wire.ExpiresSeconds) * time.Second, Packets: wire.Packets, Bytes: wire.Bytes,
	}
	var err error
	if c.Protocol, err = parseProtocol(field+".protocol", wire.Protocol); err != nil {
		return nil, err
	}
	for _, address := range []struct {
		name, text string
		to         *netip.AddrPort
	}{
		{"client", wire.Client, &c.Client}, {"virtual", wire.Virtual, &c.Virtual}, {"server", wire.Server, &c.Server},
	} {
		if *address.to, err = parseAddrPort(field+"."+address.name, address.text); err != nil {
			return nil, err
		}
	}
	if c.State, err = lvs.ParseConnectionState(c.Protocol, wire.State); err != nil {
		return nil, fmt.Errorf("%s.%w", field, err)
	}
	return &c, nil
}
