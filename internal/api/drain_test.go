package api

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var (
	drainedService = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	drainedServer  = lvs.RealServerKey{Address: netip.MustParseAddr("2001:db8::11"), Port: 80}
	testDrains     = []lvs.Drain{
		{
			Service: drainedService, Server: drainedServer, Since: time.Unix(1_700_000_000, 5), Deadline: time.Unix(1_700_000_300, 0),
			Then: lvs.DrainExpire, Initial: 100, Left: 3, Rate: 1.5, Remaining: 2 * time.Second,
		},
		{Service: lvs.MarkKey(7, true), Server: drainedServer, Since: time.Unix(1_700_000_000, 0), Remaining: -1, Ended: true},
	}
)

func TestDrains(t *testing.T) {
	r := &recorder{}
	client := serve(t, r)
	ctx := t.Context()
	for _, scope := range []lvs.DrainScope{
		{Address: drainedServer.Address},
		{Address: drainedServer.Address, Port: 80},
		{Address: netip.MustParseAddr("192.0.2.11"), Port: 80, Service: drainedService},
	} {
		drains, err := client.Drain(ctx, scope, time.Minute, lvs.DrainReset)
		if diff := cmp.Diff(testDrains, drains, compareAddresses); err != nil || diff != "" {
			t.Fatalf("%v, -want +got:\n%s", err, diff)
		}
		if _, err := client.Undrain(ctx, scope); err != nil {
			t.Fatal(err)
		}
	}
	if drains, err := client.Drains(ctx); err != nil || len(drains) != len(testDrains) {
		t.Errorf("%v, %v", drains, err)
	}
	want := []string{
		`drain 2001:db8::11 within 1m0s then "reset"`, "undrain 2001:db8::11",
		`drain [2001:db8::11]:80 within 1m0s then "reset"`, "undrain [2001:db8::11]:80",
		`drain 192.0.2.11:80 of TCP 192.0.2.100:80 within 1m0s then "reset"`, "undrain 192.0.2.11:80 of TCP 192.0.2.100:80",
		"drains",
	}
	if diff := cmp.Diff(want, r.calls); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := client.Drain(ctx, lvs.DrainScope{Address: drainedServer.Address}, MaxDrain+1, lvs.DrainKeep); !errors.Is(err, lvs.ErrRange) {
		t.Errorf("too long: %v", err)
	}
	r.refusal = lvs.ErrNoDrain
	if _, err := client.Undrain(ctx, lvs.DrainScope{Address: drainedServer.Address}); !errors.Is(err, lvs.ErrNoDrain) {
		t.Errorf("got %v", err)
	}
}

func TestHealthOnTheWire(t *testing.T) {
	for _, want := range []lvs.HealthStatus{
		{},
		{State: lvs.HealthUnknown},
		{State: lvs.HealthDown, Since: time.Unix(1_700_000_000, 5), Cause: "vip-path-broken", Detail: "tcp: no answer", Latency: time.Millisecond},
		{State: lvs.HealthUp, Suspicion: "9 first packets came again", Suspected: time.Unix(1_700_000_000, 6)},
	} {
		if diff := cmp.Diff(want, healthFromWire(healthToWire(want))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	for _, want := range []lvs.QuorumStatus{{}, {Needed: 3, Have: 2, Lost: true, Since: time.Unix(1_700_000_000, 5), Sorry: true}} {
		if diff := cmp.Diff(want, quorumFromWire(quorumToWire(want))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
