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

func (h *handler) Trace(ctx context.Context, req *connect.Request[fairleadv1.TraceRequest],
	stream *connect.ServerStream[fairleadv1.TraceResponse]) error {
	filter, err := traceFilterFromWire(req.Msg)
	if err != nil {
		return toWire(err)
	}
	return toWire(h.director.Trace(ctx, filter, func(report lvs.TraceReport) error {
		return stream.Send(traceReportToWire(report))
	}))
}

// Trace implements [Director].
func (c *Client) Trace(ctx context.Context, filter lvs.TraceFilter, visit func(lvs.TraceReport) error) error {
	wire, err := traceFilterToWire(filter)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.service.Trace(ctx, connect.NewRequest(wire))
	if err != nil {
		return c.refused(err)
	}
	defer func() {
		cancel() // before Close, which else waits for a stream that visit broke off
		stream.Close()
	}()
	for stream.Receive() {
		report, err := traceReportFromWire(stream.Msg())
		if err != nil {
			return fmt.Errorf("trace: director answered with %w", err)
		}
		if err := visit(report); err != nil {
			return err
		}
	}
	return c.refused(stream.Err())
}

func traceFilterToWire(f lvs.TraceFilter) (*fairleadv1.TraceRequest, error) {
	if f.For < 0 || f.For%time.Millisecond != 0 {
		return nil, invalid("for", f.For, "whole milliseconds")
	}
	return &fairleadv1.TraceRequest{
		Protocol: fairleadv1.Protocol(f.Protocol),
		Client:   f.Client.String(), Virtual: f.Virtual.String(),
		Count: f.Count, Milliseconds: uint64(f.For / time.Millisecond),
	}, nil
}

func traceFilterFromWire(wire *fairleadv1.TraceRequest) (f lvs.TraceFilter, err error) {
	if wire.Protocol != fairleadv1.Protocol_PROTOCOL_UNSPECIFIED {
		if f.Protocol, err = parseProtocol("protocol", wire.Protocol); err != nil {
			return f, err
		}
	}
	for _, side := range []struct {
		name, text string
		to         *lvs.Endpoint
	}{{"client", wire.Client, &f.Client}, {"virtual", wire.Virtual, &f.Virtual}} {
		if side.text == "" {
			continue
		}
		if *side.to, err = lvs.ParseEndpoint(side.text); err != nil {
			return f, fmt.Errorf("%s: %w", side.name, err)
		}
	}
	f.Count = wire.Count
	if wire.Milliseconds > math.MaxInt64/uint64(time.Millisecond) {
		return f, fmt.Errorf("milliseconds %d: %w", wire.Milliseconds, lvs.ErrRange)
	}
	f.For = time.Duration(wire.Milliseconds) * time.Millisecond
	return f, nil
}

func traceReportToWire(r lvs.TraceReport) *fairleadv1.TraceResponse {
	wire := &fairleadv1.TraceResponse{Lost: r.Lost}
	if p := r.Packet; p != nil {
		wire.Packet = &fairleadv1.TracedPacket{
			UnixNanoseconds:   p.Time.UnixNano(),
			Protocol:          fairleadv1.Protocol(p.Protocol),
			TcpFlags:          p.Flags.String(),
			Explanation:       explanationToWire(p.Explanation),
			OmittedCandidates: uint32(p.Omitted),
			FrameIn:           p.InData,
			FrameOut:          p.OutData,
		}
		if p.Protocol != 0 {
			wire.Packet.Client, wire.Packet.Virtual = p.Client.String(), p.Virtual.String()
		}
	}
	return wire
}

func traceReportFromWire(wire *fairleadv1.TraceResponse) (lvs.TraceReport, error) {
	report := lvs.TraceReport{Lost: wire.Lost}
	if wire.Packet == nil {
		return report, nil
	}
	w := wire.Packet
	p := &lvs.TracedPacket{
		Time:    time.Unix(0, w.UnixNanoseconds),
		Omitted: int(w.OmittedCandidates),
		InData:  w.FrameIn,
		OutData: w.FrameOut,
	}
	var err error
	if p.Flags, err = lvs.ParseTCPFlags(w.TcpFlags); err != nil {
		return report, err
	}
	if p.Explanation, err = explanationFromWire(w.GetExplanation()); err != nil {
		return report, err
	}
	if w.Protocol != fairleadv1.Protocol_PROTOCOL_UNSPECIFIED {
		if err := tracedFlowFromWire(p, w); err != nil {
			return report, err
		}
	}
	report.Packet = p
	return report, nil
}

func tracedFlowFromWire(p *lvs.TracedPacket, w *fairleadv1.TracedPacket) error {
	var err error
	if p.Protocol, err = parseProtocol("packet.protocol", w.Protocol); err != nil {
		return err
	}
	for _, address := range []struct {
		name, text string
		to         *netip.AddrPort
	}{{"client", w.Client, &p.Client}, {"virtual", w.Virtual, &p.Virtual}} {
		if *address.to, err = parseAddrPort("packet."+address.name, address.text); err != nil {
			return err
		}
	}
	return nil
}
