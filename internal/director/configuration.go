package director

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-lb/fairlead/internal/api"
	"github.com/fairlead-lb/fairlead/internal/config"
	"github.com/fairlead-lb/fairlead/internal/lvs"
	"github.com/fairlead-lb/fairlead/internal/reconcile"
)

// A configuration is what a director was told by files, apart from what it was told
// by hand. It belongs to Director.mu.
type configuration struct {
	// asked is what the file in force asks for, as the plane will have it. What is in
	// it and not in the state was deleted by hand.
	asked    lvs.Configuration
	inForce  api.Revision // Number is 0 if there is none
	revision revisions
}

// revisionsDir is within the run directory.
const revisionsDir = "revisions"

// inheritConfiguration takes over what a run directory has. Only where forwarding was
// taken over does the state come of the last revision; else nothing is left of it.
func (d *Director) inheritConfiguration(dir string, tookOver bool) error {
	d.config.revision, d.tookOver = revisions{dir: dir}, tookOver
	last, err := d.config.revision.last()
	if err != nil || last.Number == 0 || !tookOver {
		return err
	}
	file, err := config.Parse(last.Name, []byte(last.Text))
	if err != nil {
		// Another version wrote it. All that is there counts as made by hand.
		d.log.Warn("the configuration that was applied last can't be read", "revision", last.Number, "cause", err)
		return nil
	}
	state, err := d.checkState(file.State)
	if err != nil {
		d.log.Warn("the configuration that was applied last is not taken any more", "revision", last.Number, "cause", file.Where(err))
		return nil
	}
	d.config.asked = lvs.Configuration{State: state, Health: file.Health}
	d.config.inForce = last
	return nil
}

// Apply implements [api.Director].
func (d *Director) Apply(_ context.Context, request api.ApplyRequest) (api.Applied, error) {
	return d.apply(request, api.Revision{Name: request.Name, Text: string(request.Text)})
}

// apply applies a configuration that is to become a revision.
func (d *Director) apply(request api.ApplyRequest, revision api.Revision) (api.Applied, error) {
	file, err := config.Parse(request.Name, request.Text)
	if err != nil {
		return api.Applied{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	want, err := d.checkState(file.State)
	if err == nil {
		err = checkHealth(want, file.Health)
	}
	if err != nil {
		return api.Applied{}, file.Where(err)
	}
	have, err := d.state()
	if err != nil {
		return api.Applied{}, err
	}
	goal := want
	if !request.Prune {
		goal = reconcile.Merge(d.config.asked.State, have, want)
		if _, err := d.checkState(goal); err != nil {
			return api.Applied{}, fmt.Errorf("%w; that is of what was changed by hand, which prune takes back", withoutItem(err))
		}
	}
	steps := reconcile.Plan(have, goal)
	applied := api.Applied{
		Revision: d.config.inForce.Number, Changes: changesOf(steps), Drift: changesOf(reconcile.Plan(want, goal)),
	}
	if request.DryRun {
		return applied, nil
	}
	if d.config.inForce.Number != 0 && d.config.inForce.Text == revision.Text && revision.Of == 0 && len(steps) == 0 {
		return applied, d.setHealth(file.Health)
	}
	pending, err := d.config.revision.prepare(revision)
	if err != nil {
		return api.Applied{}, err
	}
	defer pending.discard()
	if err := d.configure(have, goal, steps, file.Health); err != nil {
		return api.Applied{}, err
	}
	d.config.asked = lvs.Configuration{State: want, Health: file.Health}
	if d.config.inForce, err = pending.keep(); err != nil {
		return api.Applied{}, fmt.Errorf("%w; the state is as asked for, but it can't be rolled back to", err)
	}
	applied.Revision = d.config.inForce.Number
	d.log.Info("configuration applied", "revision", applied.Revision, "file", request.Name,
		"changes", len(applied.Changes), "drift", len(applied.Drift))
	return applied, nil
}

// configure carries out the steps from one state to another, and has health looked
// after as is wanted: both or nothing.
func (d *Director) configure(have, goal lvs.State, steps []reconcile.Step, want []lvs.ServiceHealth) error {
	d.expectHealth(want)
	err := d.reach(have, goal, steps)
	if err == nil {
		if err = d.setHealth(want); err == nil {
			return nil
		}
		err = d.undo(have, err)
	}
	return errors.Join(err, d.setHealth(d.config.asked.Health))
}

// resumeHealth has what there is looked after as the configuration in force says: at
// the start, and after a change that passed it by. Without one, what checks of a former
// director have withheld comes back.
func (d *Director) resumeHealth() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.setHealth(d.config.asked.Health)
}

// withoutItem returns the refusal of an item of another state than the one that the
// caller gave.
func withoutItem(err error) error {
	var item *lvs.ItemError
	if errors.As(err, &item) {
		return item.Err
	}
	return err
}

func changesOf(steps []reconcile.Step) []api.Change {
	changes := make([]api.Change, 0, len(steps))
	for _, step := range steps {
		changes = append(changes, api.Change{Sign: string(step.Sign()), Text: step.String(), Detail: step.Detail()})
	}
	return changes
}

// Rollback implements [api.Director].
func (d *Director) Rollback(_ context.Context, to int, dryRun bool) (api.Applied, error) {
	all, err := d.Revisions(context.Background())
	if err != nil {
		return api.Applied{}, err
	}
	target, err := rollbackTarget(all, to)
	if err != nil {
		return api.Applied{}, err
	}
	request := api.ApplyRequest{Name: target.Name, Text: []byte(target.Text), DryRun: dryRun}
	return d.apply(request, api.Revision{Name: target.Name, Text: target.Text, Of: target.Of})
}

// rollbackTarget returns the revision of a number; for 0 that before the last one, or,
// where the last one is a rollback, before what that led to.
func rollbackTarget(all []api.Revision, to int) (api.Revision, error) {
	if len(all) == 0 {
		return api.Revision{}, fmt.Errorf("roll back: %w: no configuration was applied", lvs.ErrInvalid)
	}
	from := all[len(all)-1].Of
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Number == to || to == 0 && all[i].Number < from {
			return all[i], nil
		}
	}
	if to == 0 {
		return api.Revision{}, fmt.Errorf("roll back: %w: there is no revision before %d", lvs.ErrInvalid, from)
	}
	return api.Revision{}, fmt.Errorf("roll back to %d: %w: the revisions that are kept are %d to %d", to, lvs.ErrInvalid,
		all[0].Number, all[len(all)-1].Number)
}

// Drift implements [api.Director].
func (d *Director) Drift(context.Context) ([]api.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.config.inForce.Number == 0 {
		return nil, nil
	}
	have, err := d.state()
	if err != nil {
		return nil, err
	}
	return changesOf(reconcile.Plan(d.config.asked.State, have)), nil
}

// Export implements [api.Director].
func (d *Director) Export(context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state, err := d.state()
	if err != nil {
		return "", err
	}
	return config.Write(lvs.Configuration{State: state, Health: d.config.asked.Health}), nil
}

// Revisions implements [api.Director].
func (d *Director) Revisions(context.Context) ([]api.Revision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.revision.all()
}

// now is the time of a revision: what a file can hold of it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
