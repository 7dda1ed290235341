package director

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// testdata/rates.json was recorded from the kernel's IPVS (6.1): what came in
// each interval of the estimator, and the rates shown after it. Each packet was
// a connection of its own.
func TestRatesAreTheKernels(t *testing.T) {
	raw, err := os.ReadFile("testdata/rates.json")
	if err != nil {
		t.Fatal(err)
	}
	var intervals []struct {
		Packets, Bytes    uint64
		CPS, InPPS, InBPS uint64
	}
	if err := json.Unmarshal(raw, &intervals); err != nil {
		t.Fatal(err)
	}
	if len(intervals) < 46 {
		t.Fatalf("%d intervals, 46 were recorded", len(intervals))
	}
	service := []lvs.ServiceStatus{{
		Service: wlc(vip),
		Servers: []lvs.RealServerStatus{{RealServer: routed("192.0.2.11", 80)}},
	}}
	e := newEstimator(nil)
	for i, in := range intervals {
		came := lvs.Counters{Connections: in.Packets, InPackets: in.Packets, InBytes: in.Bytes}
		service[0].Counters = service[0].Counters.Add(came)
		service[0].Servers[0].Counters = service[0].Counters
		e.interval(service)
		e.fill(service)
		want := lvs.Rates{Connections: in.CPS, InPackets: in.InPPS, InBytes: in.InBPS}
		if got := service[0].Rates; got != want {
			t.Errorf("interval %d: service: got %+v, want %+v", i, got, want)
		}
		if got := service[0].Servers[0].Rates; got != want {
			t.Errorf("interval %d: server: got %+v, want %+v", i, got, want)
		}
	}
}

func counted(connections uint64) []lvs.ServiceStatus {
	return []lvs.ServiceStatus{{Counters: lvs.Counters{Connections: connections}}}
}

func ratesOf(e *estimator) uint64 {
	services := counted(0)
	e.fill(services)
	return services[0].Rates.Connections
}

func TestEstimatorStartsWithWhatIsThere(t *testing.T) {
	e := newEstimator(counted(1_000_000))
	e.interval(counted(1_000_000))
	if got := ratesOf(e); got != 0 {
		t.Errorf("what an earlier director counted shows as a rate of %d", got)
	}
	e.interval(counted(1_000_800))
	if got := ratesOf(e); got != 100 {
		t.Errorf("800 in an interval: rate %d, want 100", got)
	}
}

func TestEstimatorZero(t *testing.T) {
	e := newEstimator(nil)
	e.interval(counted(8000))
	e.zero(lvs.ServiceKey{})
	if got := ratesOf(e); got != 0 {
		t.Errorf("rate %d after zero", got)
	}
	e.interval(counted(800))
	if got := ratesOf(e); got != 100 {
		t.Errorf("rate %d after 800 more, want 100", got)
	}
}

func TestEstimatorOfServiceAddedAgain(t *testing.T) {
	e := newEstimator(nil)
	e.interval(counted(8000))
	for range 40 {
		e.interval(nil)
	}
	if len(e.estimates) != 1 {
		t.Fatalf("%d estimates: forgotten before a removed server is", len(e.estimates))
	}
	before := ratesOf(e)
	e.interval(counted(8)) // a new one: not 2^64 - 7992 more
	if got := ratesOf(e); got > before {
		t.Errorf("rate rose from %d to %d", before, got)
	}
	for range estimateRetention + 1 {
		e.interval(nil)
	}
	if len(e.estimates) != 0 {
		t.Errorf("%d estimates of what is long gone", len(e.estimates))
	}
}
