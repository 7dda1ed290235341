package random

import (
	"slices"

	"github.com/fairlead-lb/fairlead/test/oracle/scenario"
)

// Shrink makes a scenario that differs shorter, and returns the shortest that it
// found. differ is asked about some at a time, whose answers are certain; it says
// which differ. It is asked not much more than a dozen times: to boot a kernel
// takes longer than to play a scenario on it.
func Shrink(s *scenario.Scenario, differ func([]*scenario.Scenario) ([]bool, error)) (*scenario.Scenario, error) {
	for size := (len(atomsOf(s)) + 1) / 2; size >= 1; size /= 2 {
		atoms := atomsOf(s)
		var chunks [][]atom
		for chunk := range slices.Chunk(atoms, min(size, max(len(atoms), 1))) {
			chunks = append(chunks, chunk)
		}
		chunks, err := droppable(s, chunks, differ)
		if err != nil {
			return s, err
		}
		if s, err = dropMost(s, chunks, differ); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Tidy returns a scenario that does the same with less: without words about where
// packets go that none follow, and with times that pass one after the other in one
// step.
func Tidy(s *scenario.Scenario) *scenario.Scenario {
	tidy := &scenario.Scenario{Name: s.Name}
	for _, step := range s.Steps {
		last := len(tidy.Steps) - 1
		switch {
		case step.Verb == scenario.To && last >= 0 && tidy.Steps[last].Verb == scenario.To:
			tidy.Steps[last] = step
		case step.Verb == scenario.Sleep && last >= 0 && tidy.Steps[last].Verb == scenario.Sleep:
			before, _ := tidy.Steps[last].Slept() // both were made by the generator
			now, _ := step.Slept()
			tidy.Steps[last] = scenario.Wait(before + now)
		case step.Verb == scenario.Sleep && last >= 1 && tidy.Steps[last].Verb == scenario.To:
			tidy.Steps = append(tidy.Steps[:last], step, tidy.Steps[last])
		default:
			tidy.Steps = append(tidy.Steps, step)
		}
	}
	if len(tidy.Steps) < len(s.Steps) {
		return Tidy(tidy)
	}
	return tidy
}

// An atom is what can be left out of a scenario: a word of a step that has many, a
// line of its input, or all of a step.
type atom struct {
	step int
	part int // of words or input; -1: all of the step
}

func atomsOf(s *scenario.Scenario) (atoms []atom) {
	for i := range s.Steps {
		for part := range parts(&s.Steps[i]) {
			atoms = append(atoms, atom{i, part})
		}
		atoms = append(atoms, atom{i, -1})
	}
	return atoms
}

// parts returns what of a step can be left out, if that is more than one.
func parts(step *scenario.Step) []string {
	of := step.Input
	if step.Verb == scenario.Send {
		of = step.Words
	}
	if len(of) < 2 {
		return nil
	}
	return of
}

// without returns a scenario without some atoms. A step of whose parts all are left
// out is left out itself.
func without(s *scenario.Scenario, atoms []atom) *scenario.Scenario {
	shorter := &scenario.Scenario{Name: s.Name}
	for i, step := range s.Steps {
		if slices.Contains(atoms, atom{i, -1}) {
			continue
		}
		var left []string
		all := parts(&step)
		for part, text := range all {
			if !slices.Contains(atoms, atom{i, part}) {
				left = append(left, text)
			}
		}
		switch {
		case len(all) == 0:
		case len(left) == 0:
			continue
		case step.Verb == scenario.Send:
			step.Words = left
		default:
			step.Input = left
		}
		shorter.Steps = append(shorter.Steps, step)
	}
	return shorter
}

// droppable returns the chunks without each of which a scenario still differs.
func droppable(s *scenario.Scenario, chunks [][]atom, differ func([]*scenario.Scenario) ([]bool, error)) ([][]atom, error) {
	var candidates []*scenario.Scenario
	var certain [][]atom
	for _, chunk := range chunks {
		if shorter := without(s, chunk); isCertain(shorter) {
			candidates, certain = append(candidates, shorter), append(certain, chunk)
		}
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	differs, err := differ(candidates)
	if err != nil {
		return nil, err
	}
	var drop [][]atom
	for i, chunk := range certain {
		if differs[i] {
			drop = append(drop, chunk)
		}
	}
	return drop, nil
}

// dropMost leaves out as many of the chunks together as it can, the last ones
// first.
func dropMost(s *scenario.Scenario, chunks [][]atom, differ func([]*scenario.Scenario) ([]bool, error)) (*scenario.Scenario, error) {
	var candidates []*scenario.Scenario
	for i := range chunks {
		if shorter := without(s, slices.Concat(chunks[i:]...)); isCertain(shorter) {
			candidates = append(candidates, shorter)
		}
	}
	if len(candidates) == 0 {
		return s, nil
	}
	differs, err := differ(candidates)
	if err != nil {
		return s, err
	}
	if i := slices.Index(differs, true); i >= 0 {
		return candidates[i], nil
	}
	return s, nil
}
