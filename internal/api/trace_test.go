package api

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	fairleadv1 "github.com/fairlead-lb/fairlead/api/fairlead/v1"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func exampleTrace() (lvs.TraceFilter, []lvs.TraceReport) {
	filter := lvs.TraceFilter{
		Protocol: lvs.TCP,
		Client:   lvs.Endpoint{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		Virtual:  lvs.Endpoint{Prefix: netip.MustParsePrefix("192.0.2.100/32"), Port: 80},
		Count:    7, For: 1500 * time.Millisecond,
	}
	q := exampleQuestion()
	return filter, []lvs.TraceReport{
		{},
		{Lost: 3, Packet: &lvs.TracedPacket{
			Explanation: lvs.Explanation{
				Verdict: "forward", VerdictKind: "normal", VerdictMeaning: "to a real server", Action: "XDP_TX",
				In:  lvs.Frame{InterfaceIndex: 2, InterfaceName: "eth0", Source: lvs.MAC{2, 1}, Destination: lvs.MAC{2, 2}, Length: 2060},
				Out: &lvs.Frame{InterfaceIndex: 2, Source: lvs.MAC{2, 2}, Destination: lvs.MAC{2, 3}, TTL: 63, Length: 54},
			},
			Time: time.Unix(1_700_000_000, 123_456_789), Protocol: q.Protocol, Client: q.Client, Virtual: q.Virtual, Flags: q.Flags,
			Omitted: 12, InData: []byte{1, 2, 3}, OutData: []byte{4, 5},
		}},
		{Lost: 3, Packet: &lvs.TracedPacket{
			Explanation: lvs.Explanation{Verdict: "forward", After: &lvs.Connection{
				Protocol: lvs.SCTP, Client: q.Client, Virtual: q.Virtual, Server: q.Virtual, State: lvs.StateSCTPEstablished,
			}},
			Time: time.Unix(1_700_000_001, 0), Protocol: lvs.SCTP, Client: q.Client, Virtual: q.Virtual,
		}},
		{Lost: 4, Packet: &lvs.TracedPacket{ // ARP
			Explanation: lvs.Explanation{Verdict: "pass-not-ip", In: lvs.Frame{Length: 42}},
			Time:        time.Unix(1_700_000_001, 0), InData: []byte{6},
		}},
		{Lost: 5},
	}
}

func TestTraceArrives(t *testing.T) {
	filter, reports := exampleTrace()
	d := &recorder{reports: reports}
	var got []lvs.TraceReport
	err := serve(t, d).Trace(t.Context(), filter, func(r lvs.TraceReport) error {
		got = append(got, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("trace %+v", filter)}, d.calls); diff != "" {
		t.Errorf("-wanted +called:\n%s", diff)
	}
	if diff := cmp.Diff(reports, got, compareAddresses, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-sent +received:\n%s", diff)
	}
}

func TestTraceBrokenOff(t *testing.T) {
	filter, reports := exampleTrace()
	broken := errors.New("broken")
	err := serve(t, &recorder{reports: reports}).Trace(t.Context(), filter, func(lvs.TraceReport) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the visitor's error", err)
	}
	refused := serve(t, &recorder{refusal: fmt.Errorf("trace: %w", lvs.ErrTableFull)})
	err = refused.Trace(t.Context(), filter, func(lvs.TraceReport) error { return nil })
	if !errors.Is(err, lvs.ErrTableFull) {
		t.Errorf("got %v, want one that wraps ErrTableFull", err)
	}
	filter.For = time.Microsecond
	if err := refused.Trace(t.Context(), filter, nil); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("got %v, want one that wraps ErrInvalid", err)
	}
}

func TestTraceFilterFromWire(t *testing.T) {
	if f, err := traceFilterFromWire(&fairleadv1.TraceRequest{}); err != nil || f != (lvs.TraceFilter{}) {
		t.Errorf("without a filter: %+v, %v", f, err)
	}
	for name, wire := range map[string]*fairleadv1.TraceRequest{
		"protocol": {Protocol: 1},
		"client":   {Client: "203.0.113.0/33"},
		"virtual":  {Virtual: "192.0.2.100:http"},
	} {
		if _, err := traceFilterFromWire(wire); !errors.Is(err, lvs.ErrInvalid) {
			t.Errorf("%s: got %v, want one that wraps ErrInvalid", name, err)
		}
	}
	if _, err := traceFilterFromWire(&fairleadv1.TraceRequest{Milliseconds: 1 << 63}); !errors.Is(err, lvs.ErrRange) {
		t.Errorf("got %v, want one that wraps ErrRange", err)
	}
}
