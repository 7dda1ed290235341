package director

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// Suspects are those that do worse than their fellows, whatever all of them suffer.
func TestSuspicions(t *testing.T) {
	type came struct {
		connections     uint64
		retries, resets uint32
	}
	for _, test := range []struct {
		name      string
		intervals [][]came // by interval and server
		want      []int    // after the last one
	}{
		{"nothing", [][]came{{{100, 0, 0}, {100, 0, 0}}}, nil},
		{"one client alone", [][]came{{{100, 1, 0}, {100, 0, 0}}, {{100, 1, 0}, {100, 0, 0}}, {{0, 0, 0}, {0, 0, 0}}, {{0, 1, 0}, {0, 0, 0}}}, nil},
		{"several clients", [][]came{{{20, 10, 0}, {20, 0, 0}, {20, 1, 0}}}, []int{0}},
		{"a few, over several intervals", [][]came{{{2, 2, 0}, {2, 0, 0}}, {{2, 2, 0}, {2, 0, 0}}}, []int{0}},
		{"refused", [][]came{{{20, 0, 0}, {20, 0, 20}, {20, 0, 0}}}, []int{1}},
		{"two of three", [][]came{{{20, 20, 0}, {20, 0, 20}, {20, 0, 0}}}, []int{0, 1}},
		{"a flood", [][]came{{{1000, 900, 0}, {1000, 1100, 0}, {1000, 1000, 0}}}, nil},
		{"broken in a flood", [][]came{{{1000, 5000, 0}, {1000, 1100, 0}, {1000, 1000, 0}}}, []int{0}},
		{"no fellow", [][]came{{{10, 10, 0}}}, []int{0}},
		{"a fellow without connections", [][]came{{{10, 10, 0}, {0, 0, 0}}}, []int{0}},
		{"without connections itself", [][]came{{{0, 5, 0}, {10, 0, 0}}}, []int{0}},
		{"as a matter of course", [][]came{{{100, 0, 50}, {100, 0, 60}}}, nil},
		{"long ago", [][]came{{{10, 5, 0}, {10, 0, 0}}, {{10, 0, 0}, {10, 0, 0}}, {{10, 0, 0}, {10, 0, 0}}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := lvs.ServiceStatus{Service: wlc(vip)}
			for i := range test.intervals[0] {
				service.Servers = append(service.Servers, lvs.RealServerStatus{
					RealServer: routed(fmt.Sprintf("192.0.2.%d", 11+i), 80), Retries: 1<<32 - 2, Resets: 1000,
				})
			}
			s, found := suspicions(nil).interval([]lvs.ServiceStatus{service})
			if len(found) > 0 {
				t.Errorf("what was before counts: %v", found)
			}
			for _, interval := range test.intervals {
				for i, c := range interval {
					service.Servers[i].Counters.Connections += c.connections
					service.Servers[i].Retries += c.retries
					service.Servers[i].Resets += c.resets
				}
				s, found = s.interval([]lvs.ServiceStatus{service})
			}
			var got []int
			for _, f := range found {
				got = append(got, slices.IndexFunc(service.Servers, func(r lvs.RealServerStatus) bool { return r.RealServerKey == f.server }))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("suspects %v, want %v: %v", got, test.want, found)
			}
			if s, _ = s.interval(nil); len(s) > 0 {
				t.Errorf("%d are remembered that are gone", len(s))
			}
		})
	}
}
