package dataplane

import (
	"testing"
)

func TestBenchCases(t *testing.T) {
	needRoot(t)
	for _, c := range BenchCases() {
		r, err := Bench(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-28s %7.1f %7.1f %7.1f", r.Case, r.NS, r.Bare, r.Above)
	}
}
