package ipvsadm

import (
	"errors"
	"strings"
)

// What popt says of an option that it can't take.
var (
	errMissingArgument  = errors.New("missing argument")
	errUnknownOption    = errors.New("unknown option")
	errUnwantedArgument = errors.New("option does not take an argument")
)

// A scanner takes a command line apart as popt 1.19 does: short options can be
// joined ("-Ln", "-w4", "-w=4"), long ones are never abbreviated, arguments may
// stand between the options, and all that follows "--" is an argument.
type scanner struct {
	args    []string
	next    int      // index of the first of args that was not looked at
	joined  string   // what is left of joined short options
	ended   bool     // "--" was seen
	left    []string // arguments that belong to no option
	current *option
	value   string // the argument of current
	given   bool   // whether it has one
}

// scan advances to the next option. It returns false at the end.
func (s *scanner) scan() (bool, error) {
	for {
		if s.joined != "" {
			return true, s.scanShort()
		}
		if s.next == len(s.args) {
			return false, nil
		}
		word := s.args[s.next]
		s.next++
		switch {
		case s.ended || len(word) < 2 || word[0] != '-':
			s.left = append(s.left, word)
		case word == "--":
			s.ended = true
		case word[1] == '-':
			return true, s.scanLong(word[2:])
		default:
			s.joined = word[1:]
		}
	}
}

func (s *scanner) scanLong(word string) error {
	name, value, given := strings.Cut(word, "=")
	s.current = findLong(name)
	switch {
	case s.current == nil:
		return errUnknownOption
	case given && s.current.argument == noArgument:
		return errUnwantedArgument
	case given:
		s.value, s.given = value, true
		return nil
	}
	return s.takeArgument()
}

func (s *scanner) scanShort() error {
	rest := s.joined
	s.joined = ""
	s.current = findShort(rest[0])
	if s.current == nil {
		return errUnknownOption
	}
	rest = rest[1:]
	switch {
	case rest == "":
		return s.takeArgument()
	case s.current.argument != noArgument:
		s.value, s.given = strings.TrimPrefix(rest, "="), true
	case rest[0] == '=':
		return errUnwantedArgument
	default:
		s.joined, s.value, s.given = rest, "", false
	}
	return nil
}

// takeArgument takes the next word as the argument of the current option, if
// that wants one.
func (s *scanner) takeArgument() error {
	s.value, s.given = "", false
	if s.current.argument == noArgument {
		return nil
	}
	if s.next == len(s.args) {
		if s.current.argument == needsArgument {
			return errMissingArgument
		}
		return nil
	}
	if word := s.args[s.next]; s.current.argument == needsArgument || !strings.HasPrefix(word, "-") {
		s.value, s.given = word, true
		s.next++
	}
	return nil
}

// word returns the last word that was looked at: what a complaint names.
func (s *scanner) word() string { return s.args[s.next-1] }

// argument removes the first argument that belongs to no option; all options
// must have been scanned.
func (s *scanner) argument() (string, bool) {
	if len(s.left) == 0 {
		return "", false
	}
	word := s.left[0]
	s.left = s.left[1:]
	return word, true
}
