package director

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

func onPorts(mark uint32, first, last uint16) lvs.MarkRule {
	return lvs.MarkRule{Mark: mark, SourcePorts: lvs.AllPorts, DestinationPorts: lvs.PortRange{First: first, Last: last}}
}

func TestMarkRules(t *testing.T) {
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	one, two, three := onPorts(1, 80, 80), onPorts(2, 80, 8080), onPorts(3, 0, 65535)
	want := func(rules ...lvs.MarkRule) {
		t.Helper()
		if got, err := b.MarkRules(ctx); err != nil || !slices.Equal(got, rules) {
			t.Errorf("got %v, %v, want %v", got, err, rules)
		}
	}
	b.must(t, b.AddMarkRule(ctx, three, 0), b.AddMarkRule(ctx, one, 1), b.AddMarkRule(ctx, two, 2))
	want(one, two, three)
	for _, test := range []struct {
		rule     lvs.MarkRule
		position int
		reason   error
	}{
		{two, 0, lvs.ErrMarkRuleExists},
		{onPorts(0, 80, 80), 0, lvs.ErrInvalid},
		{onPorts(4, 81, 80), 0, lvs.ErrInvalid},
		{onPorts(4, 80, 80), 5, lvs.ErrRange},
		{onPorts(4, 80, 80), -1, lvs.ErrRange},
	} {
		if err := b.AddMarkRule(ctx, test.rule, test.position); !errors.Is(err, test.reason) {
			t.Errorf("add %v at %d: got %v, want %v", test.rule, test.position, err, test.reason)
		}
	}
	if err := b.DeleteMarkRule(ctx, onPorts(1, 80, 81)); !errors.Is(err, lvs.ErrNoMarkRule) {
		t.Errorf("delete one that is not there: got %v", err)
	}
	b.plane.fail = errPlane
	if err := b.DeleteMarkRule(ctx, two); !errors.Is(err, errPlane) {
		t.Errorf("delete: got %v, want %v", err, errPlane)
	}
	b.plane.fail = nil
	want(one, two, three)
	b.must(t, b.DeleteMarkRule(ctx, two), b.AddMarkRule(ctx, two, 3))
	want(one, three, two)
}

// Of rules that two add at once, none is lost.
func TestMarkRulesOfTwoWriters(t *testing.T) {
	const each = 20
	b, ctx := newBench(t, newMemoryPlane()), t.Context()
	var writers sync.WaitGroup
	errs := make(chan error, 2*each)
	for writer := range uint32(2) {
		writers.Go(func() {
			for i := range uint32(each) {
				if err := b.AddMarkRule(ctx, onPorts(1+writer*each+i, 80, 80), 1); err != nil {
					errs <- fmt.Errorf("writer %d: %w", writer, err)
				}
			}
		})
	}
	writers.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if rules, err := b.MarkRules(ctx); err != nil || len(rules) != 2*each {
		t.Errorf("%d rules, %v, want %d", len(rules), err, 2*each)
	}
}
