package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// A still is a source that does not change.
type still struct {
	status   api.Status
	services []lvs.ServiceStatus
	err      error
}

func (s still) Status(context.Context) (api.Status, error)            { return s.status, nil }
func (s still) Services(context.Context) ([]lvs.ServiceStatus, error) { return s.services, s.err }

func example() still {
	server := func(address string, port uint16) lvs.RealServer {
		return lvs.RealServer{RealServerKey: lvs.RealServerKey{Address: netip.MustParseAddr(address), Port: port}, Weight: 4}
	}
	return still{
		status: api.Status{
			Version: `v1"2`, Uptime: 90 * time.Second, Interfaces: []api.Interface{{Name: "eth0", Mode: "native"}},
			TableSize: 4096, TableUsed: 12, Sweeps: api.Sweeps{Count: 90, Time: 1500 * time.Millisecond, Expired: 7},
			Verdicts: []api.Verdict{{Name: "forward", Kind: "normal", Packets: 1 << 40}, {Name: "bug-map", Kind: "bug"}},
		},
		services: []lvs.ServiceStatus{
			{
				Service:  lvs.Service{ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}},
				Counters: lvs.Counters{Connections: 10, InPackets: 100, OutPackets: 90, InBytes: 10000, OutBytes: 9000},
				Servers: []lvs.RealServerStatus{{
					RealServer: server("192.0.2.11", 80), Active: 3, Inactive: 2, Persistent: 1, Retries: 5, Resets: 6,
					Counters: lvs.Counters{Connections: 10, InPackets: 100, OutPackets: 90, InBytes: 10000, OutBytes: 9000},
					NextHop:  lvs.NextHop{Local: true},
					Health:   lvs.HealthStatus{State: lvs.HealthUp, Since: time.UnixMilli(1500), Latency: 20 * time.Millisecond},
				}},
				Withheld: []lvs.RealServerStatus{{
					RealServer: server("192.0.2.12", 80),
					Health:     lvs.HealthStatus{State: lvs.HealthDown, Since: time.Unix(7, 0), Cause: "process-down", Suspected: time.UnixMilli(6500)},
				}},
				Quorum: lvs.QuorumStatus{Needed: 2, Have: 1, Lost: true},
			},
			{
				Service: lvs.Service{ServiceKey: lvs.MarkKey(0x1f, true)},
				Servers: []lvs.RealServerStatus{{RealServer: server("2001:db8::11", 0), NextHop: lvs.NextHop{Problem: "it is silent"}}},
			},
			{Service: lvs.Service{ServiceKey: lvs.MarkKey(0x1f, false)}},
		},
	}
}

func get(t *testing.T, source Source) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	NewHandler(source, slog.New(slog.DiscardHandler)).ServeHTTP(answer, request)
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Code, string(body)
}

// Dashboards rely on every name and label.
func TestMetrics(t *testing.T) {
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	code, body := get(t, example())
	var ours strings.Builder
	process := false
	for line := range strings.Lines(body) {
		if strings.Contains(line, "fairlead_") {
			ours.WriteString(line)
		}
		process = process || strings.HasPrefix(line, "process_cpu_seconds_total ")
	}
	if diff := cmp.Diff(string(want), ours.String()); code != http.StatusOK || diff != "" {
		t.Errorf("status %d, -want +got:\n%s", code, diff)
	}
	if !process {
		t.Error("nothing of the process itself")
	}
}

func TestMetricsOfABrokenSource(t *testing.T) {
	source := example()
	source.err = errors.New("read the counters of slot 7: no")
	if code, body := get(t, source); code != http.StatusInternalServerError || !strings.Contains(body, "slot 7: no") {
		t.Errorf("status %d: %s", code, body)
	}
}
