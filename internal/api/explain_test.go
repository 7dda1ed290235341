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

func exampleQuestion() lvs.Question {
	return lvs.Question{
		Protocol: lvs.TCP, Client: netip.MustParseAddrPort("203.0.113.5:40000"), Virtual: netip.MustParseAddrPort("192.0.2.100:80"),
		Flags: lvs.TCPFin | lvs.TCPAck, Interface: "eth0",
	}
}

func TestQuestionArrives(t *testing.T) {
	without := exampleQuestion()
	without.Flags, without.Interface = 0, ""
	udp := without
	udp.Protocol = lvs.UDP
	for _, q := range []lvs.Question{exampleQuestion(), without, udp} {
		d := &recorder{}
		e, err := serve(t, d).Explain(t.Context(), q)
		if err != nil || e.Verdict != "forward" {
			t.Errorf("explain %v: %+v, %v", q, e, err)
		}
		if diff := cmp.Diff([]string{fmt.Sprintf("explain %v", q)}, d.calls); diff != "" {
			t.Errorf("-wanted +called:\n%s", diff)
		}
	}
}

func TestQuestionFromWire(t *testing.T) {
	const client, virtual = "203.0.113.5:40000", "192.0.2.100:80"
	q, err := questionFromWire(&fairleadv1.ExplainRequest{Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Client: client, Virtual: virtual})
	if err != nil || q.Flags != lvs.TCPSyn {
		t.Errorf("without flags: %+v, %v; want SYN", q, err)
	}
	for name, wire := range map[string]*fairleadv1.ExplainRequest{
		"no protocol":    {Client: client, Virtual: virtual},
		"client":         {Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Client: "203.0.113.5", Virtual: virtual},
		"virtual":        {Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Client: client},
		"families":       {Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Client: "[2001:db8::1]:1", Virtual: virtual},
		"flag":           {Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Client: client, Virtual: virtual, TcpFlags: "X"},
		"flags of UDP":   {Protocol: fairleadv1.Protocol_PROTOCOL_UDP, Client: client, Virtual: virtual, TcpFlags: "S"},
		"flags and none": {Protocol: fairleadv1.Protocol_PROTOCOL_TCP, Client: client, Virtual: virtual, TcpFlags: "S", NoTcpFlags: true},
	} {
		if _, err := questionFromWire(wire); !errors.Is(err, lvs.ErrInvalid) {
			t.Errorf("%s: got %v, want one that wraps ErrInvalid", name, err)
		}
	}
}

func TestExplanationRoundTrip(t *testing.T) {
	server := lvs.RealServerKey{Address: netip.MustParseAddr("198.51.100.1"), Port: 80}
	q := exampleQuestion()
	connection := lvs.Connection{
		Protocol: lvs.TCP, Client: q.Client, Virtual: q.Virtual, Server: netip.AddrPortFrom(server.Address, 80),
		State: lvs.StateFinWait, Expires: 2 * time.Minute, Packets: 3, Bytes: 120,
	}
	before := connection
	before.State = lvs.StateEstablished
	for _, want := range []lvs.Explanation{
		{Verdict: "pass-no-service", VerdictKind: "normal", VerdictMeaning: "to the host", Action: "XDP_PASS", In: lvs.Frame{Length: 60}},
		{
			Verdict: "forward", VerdictKind: "normal", VerdictMeaning: "to a real server", Action: "XDP_TX",
			In: lvs.Frame{InterfaceIndex: 2, InterfaceName: "eth0", Source: lvs.MAC{2, 1}, Destination: lvs.MAC{2, 2},
				VLAN: 7, SourceIP: q.Client.Addr(), DestinationIP: q.Virtual.Addr(), TTL: 64, Length: 58},
			Out:     &lvs.Frame{InterfaceIndex: 3, Source: lvs.MAC{2, 2}, Destination: lvs.MAC{2, 3}, TTL: 63, Length: 54},
			Service: &lvs.Service{ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: q.Virtual.Addr(), Port: 80}, Scheduler: lvs.NeverQueue},
			Candidates: []lvs.Candidate{
				{RealServerKey: server, Weight: 1, Active: 2, Inactive: 3, Load: 3, Divisor: 1, Chosen: true},
				{RealServerKey: server, Weight: 4, Overloaded: true, Load: 1 << 40, Divisor: 4},
			},
			Choice: lvs.Choice{By: lvs.ChosenByScheduler, Server: server, Why: "least"},
			Before: &before, After: &connection,
		},
	} {
		got, err := explanationFromWire(explanationToWire(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compareAddresses, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
