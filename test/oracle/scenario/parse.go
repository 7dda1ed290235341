package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Lists are packets, or sequences of them, under a name.
type Lists map[string][]string

// A File is what one scenario file holds.
type File struct {
	Comment   []string // before the first scenario
	Scenarios []*Scenario
}

// listsFile is a folder's file of lists; every file of scenarios in that folder
// may name them.
const listsFile = "lists"

// ReadFolder reads all scenario files of a folder, in the order of their names.
func ReadFolder(fsys fs.FS, folder string) ([]*Scenario, error) {
	names, err := fs.Glob(fsys, path.Join(folder, "*.scenario"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read scenarios of %s: %w", folder, fs.ErrNotExist)
	}
	var all []*Scenario
	for _, name := range names {
		file, err := ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		all = append(all, file.Scenarios...)
	}
	return all, nil
}

// ReadFile reads one file of scenarios, with the lists of its folder.
func ReadFile(fsys fs.FS, name string) (*File, error) {
	lists := Lists{}
	text, err := fs.ReadFile(fsys, path.Join(path.Dir(name), listsFile))
	if err == nil {
		lists, err = ParseLists(string(text))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read lists of %s: %w", name, err)
	}
	text, err = fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	file, err := Parse(string(text), lists)
	if err != nil {
		return nil, fmt.Errorf("read scenarios of %s: %w", name, err)
	}
	return file, nil
}

// ParseLists reads a file of lists: a name and a colon, then words on lines that
// begin with a blank.
func ParseLists(text string) (Lists, error) {
	lists := Lists{}
	name := ""
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == ' ' && name != "":
			lists[name] = append(lists[name], strings.Fields(line)...)
		case strings.HasSuffix(line, ":") && !strings.ContainsAny(line, " @"):
			name = strings.TrimSuffix(line, ":")
		default:
			return nil, fmt.Errorf("line %d: want NAME: or a blank and words: %q", number, line)
		}
	}
	return lists, nil
}

// Parse reads scenarios.
func Parse(text string, lists Lists) (*File, error) {
	p := parser{lists: lists}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if err := p.line(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := p.endStep(); err != nil {
		return nil, fmt.Errorf("line %d: %w", number, err)
	}
	return &p.file, nil
}

type parser struct {
	lists   Lists
	file    File
	comment []string // not yet given to anything
	open    bool     // the last step may go on
}

func (p *parser) line(line string) error {
	switch {
	case line == "":
		return p.endParagraph()
	case line[0] == '#':
		p.comment = append(p.comment, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
		return nil
	case line[0] == ' ':
		step, err := p.step()
		if err == nil {
			step.Words = append(step.Words, strings.Fields(line)...)
		}
		return err
	case strings.HasPrefix(line+" ", printed), strings.HasPrefix(line+" ", warned), strings.HasPrefix(line+" ", answered):
		step, err := p.step()
		if err == nil {
			step.Answer = append(step.Answer, line)
		}
		return err
	case strings.HasPrefix(line+" ", input):
		step, err := p.step()
		if err == nil {
			step.Input = append(step.Input, strings.TrimPrefix(line[1:], " "))
		}
		return err
	}
	if err := p.endStep(); err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(line, "scenario "); ok {
		p.file.Scenarios = append(p.file.Scenarios, &Scenario{Name: name})
		return nil
	}
	return p.begin(line)
}

// endParagraph gives the comment that stands right below a scenario's name to the
// scenario, and the one before all scenarios to the file.
func (p *parser) endParagraph() error {
	if err := p.endStep(); err != nil {
		return err
	}
	switch s := p.scenario(); {
	case s == nil:
		p.file.Comment = append(p.file.Comment, p.comment...)
		p.comment = nil
	case len(s.Steps) == 0:
		s.Comment = append(s.Comment, p.comment...)
		p.comment = nil
	}
	return nil
}

func (p *parser) begin(line string) error {
	s := p.scenario()
	if s == nil {
		return fmt.Errorf("%q: before it, a line must say scenario NAME", line)
	}
	fields := strings.Fields(line)
	verb := Verb(fields[0])
	if _, ok := words[verb]; !ok {
		return fmt.Errorf("%q is none of the verbs", verb)
	}
	s.Steps = append(s.Steps, Step{Comment: p.comment, Verb: verb, Words: fields[1:]})
	p.comment, p.open = nil, true
	return nil
}

func (p *parser) scenario() *Scenario {
	if len(p.file.Scenarios) == 0 {
		return nil
	}
	return p.file.Scenarios[len(p.file.Scenarios)-1]
}

// step returns the one that a line goes on with.
func (p *parser) step() (*Step, error) {
	if !p.open {
		return nil, errors.New("the line goes on with nothing")
	}
	steps := p.scenario().Steps
	return &steps[len(steps)-1], nil
}

// endStep checks the last step and puts lists in.
func (p *parser) endStep() error {
	if !p.open {
		return nil
	}
	step, err := p.step()
	if err != nil {
		return err
	}
	p.open = false
	if limits := words[step.Verb]; len(step.Words) < limits[0] || limits[1] >= 0 && len(step.Words) > limits[1] {
		return fmt.Errorf("%s: %d words are too few or too many", step.Verb, len(step.Words))
	}
	if name, ok := strings.CutPrefix(slices.Concat(step.Words, []string{""})[0], "@"); ok && step.Verb == Send {
		list, ok := p.lists[name]
		if !ok || len(step.Words) > 1 {
			return fmt.Errorf("%s: %v: want the name of one list", step.Verb, step.Words)
		}
		step.List, step.Words = name, list
	}
	if n := step.Packets(); n != 0 && n != len(step.Words) {
		return fmt.Errorf("%d packets have %d outcomes", len(step.Words), n)
	}
	return nil
}
