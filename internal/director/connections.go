package director

import (
	"context"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// lookUpEvery is after how many entries of the table a walk asks whether anybody
// still waits for it.
const lookUpEvery = 4096

// FindConnections implements [api.Director].
func (d *Director) FindConnections(ctx context.Context, filter lvs.ConnectionFilter, visit func(lvs.Connection) error) error {
	matcher := filter.Matcher()
	walked, told := 0, 0
	for c := range d.plane.Connections() {
		if walked++; walked%lookUpEvery == 0 && ctx.Err() != nil {
			break
		}
		if !matcher.Matches(&c) {
			continue
		}
		if err := visit(c); err != nil {
			return err
		}
		if told++; told == filter.Limit {
			return nil
		}
	}
	return ctx.Err()
}

// CountConnections implements [api.Director].
func (d *Director) CountConnections(ctx context.Context, filter lvs.ConnectionFilter, by []lvs.ConnectionField) (lvs.ConnectionCount, error) {
	counter, err := lvs.NewConnectionCounter(by)
	if err != nil {
		return lvs.ConnectionCount{}, err
	}
	groups := filter.Limit
	filter.Limit = 0
	err = d.FindConnections(ctx, filter, func(c lvs.Connection) error { return counter.Add(&c) })
	if err != nil {
		return lvs.ConnectionCount{}, err
	}
	return counter.Count(groups), nil
}
