package dataplane

import (
	"testing"
	"time"
)

// A connection is idle for as long as no packet set its timer, by the timeout of its
// service; when that was made shorter meanwhile, for no time at all.
func TestIdle(t *testing.T) {
	p := newTestPlane(t)
	one, _ := serveBoth(t, p)
	mustSet(t, p, one.ServiceKey, map[string]int32{"timeout_established": 100})
	for _, flags := range []string{"S", "A"} {
		wantVerdict(t, p, tcpFrame(client4, vip4, flags), "forward", xdpTX)
		wantVerdict(t, p, tcpFrame(client6, vip6, flags), "forward", xdpTX)
	}
	check := func(want4, want6 time.Duration) {
		t.Helper()
		for c := range p.Connections() {
			want := want4
			if c.Virtual.Addr().Is6() {
				want = want6
			}
			if got := c.Idle.Round(time.Second); got != want {
				t.Errorf("%s is idle for %s, want %s", c.Client, got, want)
			}
		}
	}
	check(0, 0)
	p.SetClockOffset(40 * time.Second)
	check(40*time.Second, 40*time.Second)
	wantVerdict(t, p, tcpFrame(client6, vip6, "A"), "forward", xdpTX)
	check(40*time.Second, 0)
	mustSet(t, p, one.ServiceKey, map[string]int32{"timeout_established": 50})
	check(0, 0)
}
