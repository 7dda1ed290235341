package director

import (
	"context"
	"fmt"
	"slices"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// MarkRules implements [api.Director].
func (d *Director) MarkRules(context.Context) ([]lvs.MarkRule, error) {
	return d.plane.MarkRules(), nil
}

// AddMarkRule implements [api.Director].
func (d *Director) AddMarkRule(_ context.Context, rule lvs.MarkRule, position int) error {
	if err := rule.Check(); err != nil {
		return fmt.Errorf("add mark rule: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	rules := d.plane.MarkRules()
	if i := slices.Index(rules, rule); i >= 0 {
		return fmt.Errorf("add mark rule: %w: it is at position %d", lvs.ErrMarkRuleExists, i+1)
	}
	if position == 0 {
		position = len(rules) + 1
	}
	if position < 1 || position > len(rules)+1 {
		return fmt.Errorf("add mark rule: position %d: %w: want 1 to %d", position, lvs.ErrRange, len(rules)+1)
	}
	if err := d.plane.SetMarkRules(slices.Insert(slices.Clone(rules), position-1, rule)); err != nil {
		return fmt.Errorf("add mark rule: %w", err)
	}
	d.log.Info("mark rule added", "mark", rule.Mark, "position", position)
	return nil
}

// DeleteMarkRule implements [api.Director].
func (d *Director) DeleteMarkRule(_ context.Context, rule lvs.MarkRule) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	rules := d.plane.MarkRules()
	i := slices.Index(rules, rule)
	if i < 0 {
		return fmt.Errorf("delete mark rule: %w: fairlead mark list shows those there are", lvs.ErrNoMarkRule)
	}
	if err := d.plane.SetMarkRules(slices.Delete(slices.Clone(rules), i, i+1)); err != nil {
		return fmt.Errorf("delete mark rule: %w", err)
	}
	d.log.Info("mark rule deleted", "mark", rule.Mark, "position", i+1)
	return nil
}
