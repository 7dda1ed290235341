package api

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

var (
	testApplied = Applied{
		Revision: 7,
		Changes:  []Change{{Sign: "+", Text: "add service TCP 192.0.2.100:80 rr"}, {Sign: "~", Text: "edit", Detail: "weight 1 -> 2"}},
		Drift:    []Change{{Sign: "-", Text: "delete peer 192.0.2.9"}},
	}
	testRevisions = []Revision{
		{Number: 6, Time: time.Unix(1_700_000_000, 5_000_000).UTC(), Name: "a.yaml", Of: 6, Text: "version: 1\n"},
		{Number: 7, Time: time.Unix(1_700_000_001, 0).UTC(), Name: "a.yaml", Of: 5},
	}
)

func TestConfigurationCallsArrive(t *testing.T) {
	d := &recorder{}
	c, ctx := serve(t, d), t.Context()
	check := func(what string, err error, diff string) {
		t.Helper()
		if err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", what, err, diff)
		}
	}
	applied, err := c.Apply(ctx, ApplyRequest{Name: "a.yaml", Text: []byte("x"), DryRun: true, Prune: true})
	check("apply", err, cmp.Diff(testApplied, applied))
	rolled, err := c.Rollback(ctx, 3, true)
	check("rollback", err, cmp.Diff(testApplied, rolled))
	drift, err := c.Drift(ctx)
	check("drift", err, cmp.Diff(testApplied.Drift, drift))
	text, err := c.Export(ctx)
	check("export", err, cmp.Diff("version: 1\n", text))
	revisions, err := c.Revisions(ctx)
	check("revisions", err, cmp.Diff(testRevisions, revisions))
	check("calls", nil, cmp.Diff([]string{"apply a.yaml x true true", "rollback 3 true", "drift", "export", "revisions"}, d.calls))
	d.refusal = lvs.ErrInvalid
	if _, err := c.Apply(ctx, ApplyRequest{}); !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("refused: %v", err)
	}
}
