package scenario

import (
	"slices"
	"strings"
	"time"
)

// A Scenario begins on a director without services, with default settings.
type Scenario struct {
	Name    string
	Comment []string // lines
	Steps   []Step
}

// A Step is one line of a scenario, with what belongs to it.
type Step struct {
	Comment []string // lines before it
	Verb    Verb
	Words   []string // of the line, after the verb; names of lists stand for what is in them
	Input   []string // lines handed to the step, from those that begin with <
	Answer  []string // lines, each with its mark: "| ", "! " or "= "
	List    string   // the list that Words came from, if any
}

// A Verb is the first word of a step.
type Verb string

// The verbs. ../README.md tells what they do.
const (
	To          Verb = "to"
	Ipvsadm     Verb = "ipvsadm"
	Sysctl      Verb = "sysctl"
	Mark        Verb = "mark"
	MTU         Verb = "mtu"
	Sleep       Verb = "sleep"
	Send        Verb = "send"
	Walk        Verb = "walk"
	Frame       Verb = "frame"
	Servers     Verb = "servers"
	Connections Verb = "connections"
	Keepalived  Verb = "keepalived"
)

// words tells how many words follow a verb: at least, and at most or -1.
var words = map[Verb][2]int{
	To:          {2, 2},
	Ipvsadm:     {0, -1},
	Sysctl:      {1, 1},
	Mark:        {1, 1},
	MTU:         {2, 2},
	Sleep:       {1, 1},
	Send:        {1, -1},
	Walk:        {1, -1},
	Frame:       {1, -1},
	Servers:     {0, 0},
	Connections: {0, 0},
	Keepalived:  {0, 1},
}

// Marks of lines.
const (
	printed  = "| " // an answer: a line on standard output
	warned   = "! " // an answer: a line on standard error
	answered = "= " // an answer of another kind
	input    = "< "
)

// New returns a step without answer.
func New(verb Verb, words ...string) Step { return Step{Verb: verb, Words: words} }

// Command returns the step of an ipvsadm command line.
func Command(line string) Step { return New(Ipvsadm, strings.Fields(line)...) }

// Wait returns a step in which time passes.
func Wait(t time.Duration) Step { return New(Sleep, seconds(t)) }

// Clone returns a copy that shares nothing with s that Play changes.
func (s *Scenario) Clone() *Scenario {
	clone := *s
	clone.Steps = slices.Clone(s.Steps)
	return &clone
}

// Packets returns how many packets have an outcome in the answers.
func (s *Step) Packets() int {
	if s.Verb != Send || len(s.Answer) != 1 {
		return 0
	}
	return len(s.Answer[0]) - len(answered)
}

// Reads reports whether the step has an answer to compare: everything else is
// only done.
func (s *Step) Reads() bool {
	switch s.Verb {
	case Send, Walk, Frame, Servers, Connections, Ipvsadm:
		return true
	}
	return false
}
