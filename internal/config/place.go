package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-lb/fairlead/internal/lvs"
)

// An Error is what is wrong at one place of a file.
type Error struct {
	Name    string // of the file, as it was given
	Line    int    // from 1
	Column  int    // in characters, from 1
	Message string
}

// Error returns "NAME:LINE:COLUMN: MESSAGE".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Name, e.Line, e.Column, e.Message)
}

// Errors are all that is wrong with a file, in the order of their places; one at
// least.
type Errors []*Error

// Error returns the errors, a line each.
func (e Errors) Error() string {
	lines := make([]string, 0, len(e))
	for _, one := range e {
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns each of the errors.
func (e Errors) Unwrap() []error {
	all := make([]error, 0, len(e))
	for _, one := range e {
		all = append(all, one)
	}
	return all
}

// maxErrors is how many errors of one file are told.
const maxErrors = 20

// A source is a file that is read.
type source struct {
	name string
	text string
}

// errorAt returns an error at an offset into the text.
func (s *source) errorAt(offset int, format string, args ...any) *Error {
	before := s.text[:min(offset, len(s.text))]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return &Error{Name: s.name, Line: line, Column: column, Message: fmt.Sprintf(format, args...)}
}

// line returns the number of the line in which an offset is.
func (s *source) line(offset int) int { return 1 + strings.Count(s.text[:offset], "\n") }

// sortErrors puts errors into the order of their places, and leaves out those beyond
// the first few.
func sortErrors(errors Errors) Errors {
	slices.SortStableFunc(errors, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if len(errors) > maxErrors {
		last := errors[maxErrors-1]
		errors = append(errors[:maxErrors:maxErrors], &Error{
			Name: last.Name, Line: last.Line, Column: last.Column,
			Message: fmt.Sprintf("and %d errors more", len(errors)-maxErrors),
		})
	}
	return errors
}

// nearest returns the one of some names that word was most likely meant to be, "" if
// none is near.
func nearest(word string, names []string) string {
	best, least := "", 1+max(1, len(word)/3)
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is how many letters have to be put in, left out, replaced, or exchanged
// with their neighbour to make b of a. Words much longer than any name are far.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, last, row [65]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// Is reports whether target is lvs.ErrInvalid: a bad file is that.
func (e Errors) Is(target error) bool { return target == lvs.ErrInvalid }
