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
	e := NewEstimator(nil)
	for i, in := range intervals {
		came := lvs.Counters{Connections: in.Packets, InPackets: in.Packets, InBytes: in.Bytes}
		service[0].Counters = service[0].Counters.Add(came)
		service[0].Servers[0].Counters = service[0].Counters
		e.Interval(service)
		e.Fill(service)
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

func ratesOf(e *Estimator) uint64 {
	services := counted(0)
	e.Fill(services)
	return services[0].Rates.Connections
}

func TestEstimatorStartsWithWhatIsThere(t *testing.T) {
	e := NewEstimator(counted(1_000_000))
	e.Interval(counted(1_000_000))
	if got := ratesOf(e); got != 0 {
		t.Errorf("what an earlier director counted shows as a rate of %d", got)
	}
	e.Interval(counted(1_000_800))
	if got := ratesOf(e); got != 100 {
		t.Errorf("800 in an interval: rate %d, want 100", got)
	}
}

func TestEstimatorZero(t *testing.T) {
	e := NewEstimator(nil)
	e.Interval(counted(8000))
	e.Zero(lvs.ServiceKey{})
	if got := ratesOf(e); got != 0 {
		t.Errorf("rate %d after zero", got)
	}
	e.Interval(counted(800))
	if got := ratesOf(e); got != 100 {
		t.Errorf("rate %d after 800 more, want 100", got)
	}
}

func TestEstimatorOfServiceAddedAgain(t *testing.T) {
	e := NewEstimator(nil)
	e.Interval(counted(8000))
	for range 40 {
		e.Interval(nil)
	}
	if len(e.estimates) != 1 {
		t.Fatalf("%d estimates: forgotten before a removed server is", len(e.estimates))
	}
	before := ratesOf(e)
	e.Interval(counted(8)) // a new one: not 2^64 - 7992 more
	if got := ratesOf(e); got > before {
		t.Errorf("rate rose from %d to %d", before, got)
	}
	for range estimateRetention + 1 {
		e.Interval(nil)
	}
	if len(e.estimates) != 0 {
		t.Errorf("%d estimates of what is long gone", len(e.estimates))
	}
}
