package cli

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func exampleExplanation() (lvs.Question, lvs.Explanation) {
	q := lvs.Question{
		Protocol: lvs.TCP, Flags: lvs.TCPSyn,
		Client: netip.MustParseAddrPort("203.0.113.5:40000"), Virtual: netip.MustParseAddrPort("192.0.2.100:80"),
	}
	key := func(address string) lvs.RealServerKey {
		return lvs.RealServerKey{Address: netip.MustParseAddr(address), Port: 80}
	}
	in := lvs.Frame{
		InterfaceIndex: 2, InterfaceName: "eth0", Source: lvs.MAC{0, 0, 0x5e, 0, 0x53, 1}, Destination: lvs.MAC{2, 0, 0, 0, 0, 10},
		SourceIP: q.Client.Addr(), DestinationIP: q.Virtual.Addr(), TTL: 64, Length: 60,
	}
	out := in
	out.Source, out.Destination, out.TTL = in.Destination, lvs.MAC{2, 0, 0, 0, 0, 11}, 63
	return q, lvs.Explanation{
		Verdict: "forward", VerdictKind: "normal", VerdictMeaning: "to a real server", Action: "XDP_TX", In: in, Out: &out,
		Service: &lvs.Service{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: q.Virtual.Addr(), Port: 80}, Scheduler: lvs.WeightedLeastConnection,
		},
		Candidates: []lvs.Candidate{
			{RealServerKey: key("192.0.2.13"), Load: 3, Inactive: 3},
			{RealServerKey: key("192.0.2.12"), Weight: 2, Active: 1, Load: 256, Divisor: 2},
			{RealServerKey: key("192.0.2.11"), Weight: 4, Divisor: 4, Chosen: true},
		},
		Choice: lvs.Choice{
			By: lvs.ChosenByScheduler, Server: key("192.0.2.11"),
			Why: "least (active*256+inactive)/weight: 192.0.2.11:80 0/4 beats 192.0.2.12:80 256/2",
		},
		After: &lvs.Connection{
			Protocol: lvs.TCP, Client: q.Client, Virtual: q.Virtual, Server: netip.MustParseAddrPort("192.0.2.11:80"),
			State: lvs.StateSynRecv, Expires: time.Minute, Packets: 1, Bytes: 40,
		},
	}
}

func TestPrintExplanation(t *testing.T) {
	const want = `TCP 203.0.113.5:40000 -> 192.0.2.100:80, flags S

 1  in          00:00:5e:00:53:01 > 02:00:00:00:00:0a on eth0, 203.0.113.5 > 192.0.2.100, TTL 64, 60 bytes
 2  service     TCP 192.0.2.100:80, scheduler wlc
 3  connection  none yet
 4  real server 192.0.2.11:80, by scheduler: least (active*256+inactive)/weight: 192.0.2.11:80 0/4 beats 192.0.2.12:80 256/2

     REAL SERVER    WEIGHT  ACTIVE  INACTIVE  LOAD   USABLE
     192.0.2.13:80  0       0       3         -      no: quiesced: weight 0
     192.0.2.12:80  2       1       0         256/2  yes
   * 192.0.2.11:80  4       0       0         0/4    yes

 5  then        SYN_RECV to 192.0.2.11:80, ends in 1m0s, 1 packets, 40 bytes
 6  out         02:00:00:00:00:0a > 02:00:00:00:00:0b on eth0, 203.0.113.5 > 192.0.2.100, TTL 63, 60 bytes
 7  verdict     forward (normal): to a real server; XDP_TX

This is what would happen now; nothing was sent or changed.
`
	q, e := exampleExplanation()
	var got bytes.Buffer
	if err := printExplanation(&got, explained{q, e}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPrintExplanationOfOthersPacket(t *testing.T) {
	const want = `UDP [2001:db8:3::5]:40000 -> [2001:db8::100]:53

 1  in          00:00:00:00:00:00 > 02:00:00:00:00:0a on interface 4 VLAN 7, 2001:db8:3::5 > 2001:db8::100, TTL 64, 62 bytes
 2  service     none
 3  connection  none yet
 4  real server none is looked for
 5  then        no connection
 6  out         nothing is sent
 7  verdict     pass-no-service (normal): to the host; XDP_PASS

This is what would happen now; nothing was sent or changed.
`
	q := lvs.Question{
		Protocol: lvs.UDP,
		Client:   netip.MustParseAddrPort("[2001:db8:3::5]:40000"), Virtual: netip.MustParseAddrPort("[2001:db8::100]:53"),
	}
	e := lvs.Explanation{
		Verdict: "pass-no-service", VerdictKind: "normal", VerdictMeaning: "to the host", Action: "XDP_PASS",
		In: lvs.Frame{
			InterfaceIndex: 4, Destination: lvs.MAC{2, 0, 0, 0, 0, 10}, VLAN: 7,
			SourceIP: q.Client.Addr(), DestinationIP: q.Virtual.Addr(), TTL: 64, Length: 62,
		},
	}
	var got bytes.Buffer
	if err := printExplanation(&got, explained{q, e}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPrintExplanationJSON(t *testing.T) {
	var raw bytes.Buffer
	q, e := exampleExplanation()
	if err := printExplanationJSON(&raw, explained{q, e}); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	frame := func(source, destination string, ttl float64) map[string]any {
		return map[string]any{
			"interface": "eth0", "interface_index": 2.0, "source_mac": source, "destination_mac": destination,
			"source_ip": "203.0.113.5", "destination_ip": "192.0.2.100", "ttl": ttl, "bytes": 60.0,
		}
	}
	candidate := func(server string, weight, active, inactive, load, divisor float64, usable, chosen bool) map[string]any {
		return map[string]any{
			"server": server, "weight": weight, "active_connections": active, "inactive_connections": inactive,
			"overloaded": false, "usable": usable, "load": load, "divisor": divisor, "chosen": chosen,
		}
	}
	want := map[string]any{
		"protocol": "TCP", "client": "203.0.113.5:40000", "virtual": "192.0.2.100:80", "tcp_flags": "S",
		"verdict": "forward", "kind": "normal", "meaning": "to a real server", "action": "XDP_TX",
		"in":      frame("00:00:5e:00:53:01", "02:00:00:00:00:0a", 64),
		"out":     frame("02:00:00:00:00:0a", "02:00:00:00:00:0b", 63),
		"service": map[string]any{"protocol": "TCP", "address": "192.0.2.100:80", "scheduler": "wlc"},
		"candidates": []any{
			candidate("192.0.2.13:80", 0, 0, 3, 3, 0, false, false),
			candidate("192.0.2.12:80", 2, 1, 0, 256, 2, true, false),
			candidate("192.0.2.11:80", 4, 0, 0, 0, 4, true, true),
		},
		"choice": map[string]any{"by": "scheduler", "server": "192.0.2.11:80",
			"why": "least (active*256+inactive)/weight: 192.0.2.11:80 0/4 beats 192.0.2.12:80 256/2"},
		"after": map[string]any{"server": "192.0.2.11:80", "state": "SYN_RECV", "expires_seconds": 60.0, "packets": 1.0, "bytes": 40.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestExplainRefusals(t *testing.T) {
	const client, virtual = "203.0.113.5:40000", "192.0.2.100:80"
	for want, args := range map[string][]string{
		`protocol "icmp": want tcp or udp`:        {"icmp", client, virtual},
		`CIP:PORT "203.0.113.5": want an address`: {"tcp", "203.0.113.5", virtual},
		`--flags: TCP flags "SX": invalid`:        {"tcp", client, virtual, "--flags", "SX"},
		`--flags S: only TCP has flags`:           {"udp", client, virtual, "--flags", "S"},
		`--output yaml: want text or json`:        {"tcp", client, virtual, "-o", "yaml"},
		`director is not reachable`:               {"tcp", client, virtual, "--run-dir", t.TempDir()},
	} {
		var stdout, stderr bytes.Buffer
		env := Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return "" }}
		if status := Main(t.Context(), env, append([]string{"explain"}, args...)); status != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: exit status %d, %q; want 1 and %q", args, status, stderr.String(), want)
		}
	}
}
