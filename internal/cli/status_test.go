package cli

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func exampleStatus() statusReport {
	server := func(address string, weight uint32) lvs.RealServer {
		return lvs.RealServer{
			RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr(address), Port: 80},
			Method:        lvs.DirectRouting, Weight: weight,
		}
	}
	return statusReport{
		director: api.Status{
			Version: "v1.2.3", Uptime: 90 * time.Second,
			Interfaces: []api.Interface{{Name: "eth0", Mode: "xdp"}, {Name: "eth1", Mode: "xdp-generic"}},
			Sweeps:     api.Sweeps{Count: 90, Time: 9 * time.Second, Last: 250 * time.Millisecond, Expired: 7},
			TableSize:  1 << 20, TableUsed: 1 << 18,
			Verdicts: []api.Verdict{
				{Name: "forward", Kind: "normal", Meaning: "to a real server", Packets: 1200},
				{Name: "bug-map", Kind: "bug", Meaning: "a look-up that cannot miss missed"},
			},
		},
		drift: []api.Change{{Sign: "~", Text: "edit service TCP 192.0.2.100:80", Detail: "scheduler rr -> wlc"}},
		services: []lvs.ServiceStatus{{
			Service: lvs.Service{
				ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
				Scheduler:  lvs.WeightedLeastConnection,
			},
			Rates: lvs.Rates{Connections: 12, InPackets: 70, InBytes: 9000},
			Servers: []lvs.RealServerStatus{
				{RealServer: server("192.0.2.12", 2), ConfiguredWeight: 2, NextHop: lvs.NextHop{Problem: "192.0.2.12 does not answer ARP on eth0"}},
				{
					RealServer: server("192.0.2.11", 4), ConfiguredWeight: 4, Active: 7, Inactive: 5, Retries: 3, Resets: 4,
					Rates: lvs.Rates{Connections: 12, InPackets: 70, InBytes: 9000},
					NextHop: lvs.NextHop{InterfaceIndex: 2, InterfaceName: "eth0",
						Source: lvs.MAC{2, 0, 0, 0, 0, 10}, Destination: lvs.MAC{2, 0, 0, 0, 0, 11}, MTU: 1500},
				},
			},
		}},
	}
}

func TestPrintStatus(t *testing.T) {
	const want = `director     fairlead v1.2.3, up 1m30s
interfaces   eth0 (xdp), eth1 (xdp-generic)
connections  262144 of 1048576 entries in use (25.0 %)
drift        1 change made by hand; fairlead diff shows them

SERVICE             BY     WEIGHT  ACTIVE  INACTIVE  CONN/S  PKT/S  BYTE/S  NEXT HOP
TCP 192.0.2.100:80  wlc                              12      70     9000    
  192.0.2.12:80     Route  2       0       0         0       0      0       none: 192.0.2.12 does not answer ARP on eth0
  192.0.2.11:80     Route  4       7       5         12      70     9000    02:00:00:00:00:0b on eth0

VERDICT  PACKETS  KIND    MEANING
forward  1200     normal  to a real server
`
	var got bytes.Buffer
	if err := printStatus(&got, exampleStatus()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPrintStatusOfNewDirector(t *testing.T) {
	var got bytes.Buffer
	if err := printStatus(&got, statusReport{director: api.Status{Version: "v1"}}); err != nil {
		t.Fatal(err)
	}
	const want = `director     fairlead v1, up 0s
interfaces   
connections  0 of 0 entries in use

no services; add one: fairlead ipvsadm -A -t 192.0.2.100:80 -s wlc
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPrintStatusJSON(t *testing.T) {
	var raw bytes.Buffer
	if err := printStatusJSON(&raw, exampleStatus()); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	zero := map[string]any{"connections": 0.0, "in_packets": 0.0, "out_packets": 0.0, "in_bytes": 0.0, "out_bytes": 0.0}
	rates := map[string]any{"connections": 12.0, "in_packets": 70.0, "out_packets": 0.0, "in_bytes": 9000.0, "out_bytes": 0.0}
	want := map[string]any{
		"version": "v1.2.3", "uptime_seconds": 90.0,
		"interfaces": []any{
			map[string]any{"name": "eth0", "mode": "xdp"}, map[string]any{"name": "eth1", "mode": "xdp-generic"},
		},
		"connection_table": map[string]any{"size": 1048576.0, "used": 262144.0},
		"sweeps":           map[string]any{"count": 90.0, "last_seconds": 0.25, "expired": 7.0},
		"drift":            []any{map[string]any{"sign": "~", "text": "edit service TCP 192.0.2.100:80", "detail": "scheduler rr -> wlc"}},
		"services": []any{map[string]any{
			"protocol": "TCP", "address": "192.0.2.100:80", "scheduler": "wlc", "counters": zero, "rates": rates,
			"servers": []any{
				map[string]any{
					"address": "192.0.2.12:80", "method": "Route", "weight": 2.0, "configured_weight": 2.0,
					"active_connections": 0.0, "inactive_connections": 0.0, "retries": 0.0, "resets": 0.0, "counters": zero, "rates": zero,
					"next_hop": map[string]any{"usable": false, "problem": "192.0.2.12 does not answer ARP on eth0"},
				},
				map[string]any{
					"address": "192.0.2.11:80", "method": "Route", "weight": 4.0, "configured_weight": 4.0,
					"active_connections": 7.0, "inactive_connections": 5.0, "retries": 3.0, "resets": 4.0, "counters": zero, "rates": rates,
					"next_hop": map[string]any{"usable": true, "interface": "eth0", "mtu": 1500.0,
						"source_mac": "02:00:00:00:00:0a", "destination_mac": "02:00:00:00:00:0b"},
				},
			},
		}},
		"verdicts": []any{map[string]any{
			"name": "forward", "kind": "normal", "meaning": "to a real server", "packets": 1200.0,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
