package scenario

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Difference is a step to which two machines gave different answers.
type Difference struct {
	Scenario  *Scenario // as it was played
	Index     int       // of the step
	Want, Got []string
	// WantOf and GotOf say whose answers they are.
	WantOf, GotOf string
}

// Differ returns a *Difference for the first step of two played copies of a
// scenario whose answers differ, or nil. wantOf and gotOf say who played them.
func Differ(want, got *Scenario, wantOf, gotOf string) error {
	for i := range want.Steps {
		if err := DifferAt(want, got, i, wantOf, gotOf); err != nil {
			return err
		}
	}
	return nil
}

// DifferAt returns a *Difference if the answers to one step differ, or nil.
func DifferAt(want, got *Scenario, index int, wantOf, gotOf string) error {
	w, g := &want.Steps[index], &got.Steps[index]
	if sameAnswer(w, w.Answer, g.Answer) {
		return nil
	}
	return &Difference{Scenario: want, Index: index, Want: w.Answer, Got: g.Answer, WantOf: wantOf, GotOf: gotOf}
}

// Error returns the step and the lines of the answers, those marked that are on
// one side only.
func (d *Difference) Error() string {
	var b strings.Builder
	step := d.Scenario.Steps[d.Index]
	step.Answer, step.Comment = nil, nil
	fmt.Fprintf(&b, "%s: step %d:\n%s", d.Scenario.Name, d.Index+1, &step)
	if step.Verb == Send && len(d.Want) == 1 && len(d.Got) == 1 {
		for i, word := range step.Words {
			if want, got := d.Want[0][len(answered)+i], d.Got[0][len(answered)+i]; want != got {
				fmt.Fprintf(&b, "first at packet %d, %s: %s %c, %s %c\n", i+1, word, d.WantOf, want, d.GotOf, got)
				break
			}
		}
	}
	for _, line := range d.mergeLines() {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// mergeLines returns the lines of both, in order, with what says whose they are.
func (d *Difference) mergeLines() []string {
	want, got := d.Want, d.Got
	format := fmt.Sprintf("%%-%ds  %%s", max(len(d.WantOf), len(d.GotOf)))
	longest := make([][]int, len(want)+1) // common lines from here on
	for i := range longest {
		longest[i] = make([]int, len(got)+1)
	}
	for i := len(want) - 1; i >= 0; i-- {
		for j := len(got) - 1; j >= 0; j-- {
			longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			if want[i] == got[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			}
		}
	}
	var lines []string
	for len(want) > 0 || len(got) > 0 {
		i, j := len(longest)-1-len(want), len(longest[0])-1-len(got)
		switch {
		case len(want) > 0 && len(got) > 0 && want[0] == got[0]:
			lines = append(lines, fmt.Sprintf(format, "", want[0]))
			want, got = want[1:], got[1:]
		case len(got) == 0 || len(want) > 0 && longest[i+1][j] >= longest[i][j+1]:
			lines = append(lines, fmt.Sprintf(format, d.WantOf, want[0]))
			want = want[1:]
		default:
			lines = append(lines, fmt.Sprintf(format, d.GotOf, got[0]))
			got = got[1:]
		}
	}
	return lines
}

// JoinFragments moves what was sent for a fragment to the next one, where nothing
// was recorded for the first: IPVS puts a datagram together before it sends it on,
// in fragments again, and fairlead sends each fragment as it comes.
func JoinFragments(want, got *Scenario) {
	var sent []string
	for i := range got.Steps {
		step := &got.Steps[i]
		if !isFragment(step) {
			continue
		}
		step.Answer = append(sent, step.Answer...)
		sent = nil
		if len(want.Steps[i].Answer) == 0 && len(step.Answer) > 0 && step.Answer[0] != passedOn {
			sent, step.Answer = step.Answer, nil
		}
	}
}

func isFragment(step *Step) bool {
	if step.Verb != Frame {
		return false
	}
	frame, err := hex.DecodeString(step.Input[0])
	return err == nil && decode(frame).fragment
}

func sameAnswer(step *Step, want, got []string) bool {
	if step.Verb == Frame && len(got) == 1 && got[0] == passedOn {
		return hostWouldAnswer(step, want)
	}
	return slices.EqualFunc(want, got, sameLine)
}

// hostWouldAnswer reports whether the frames of a recorded answer are what the
// director's own stack sent because of a frame that IPVS let pass.
func hostWouldAnswer(step *Step, answer []string) bool {
	frame, err := hex.DecodeString(step.Input[0])
	if err != nil {
		return false
	}
	in := decode(frame)
	isICMP := in.icmpError || in.echoRequest
	if in.fragment || in.other && !isICMP {
		return false
	}
	if len(answer) == 0 {
		return in.icmpError || in.tcp != nil && in.tcp.RST
	}
	fields := strings.Fields(answer[0])
	if len(answer) != 1 || len(fields) != 3 {
		return false
	}
	if frame, err = hex.DecodeString(fields[2]); err != nil {
		return false
	}
	out := decode(frame)
	if fields[1] != step.Words[0] {
		return out.from == in.from && out.to == in.to && out.ttl == in.ttl-1
	}
	isAnswer := out.from == in.to && out.to == in.from && out.destination == in.source
	return isAnswer && (in.tcp != nil && out.tcp != nil && out.tcp.RST || in.udp != nil && out.unreachablePort ||
		in.echoRequest && out.echoReply)
}

// templateSlack is how many seconds a persistence template's time may be off, once
// it was kept beyond its time: the kernel's timer wheel runs out up to 1/8 late,
// and each time it does, the template's next minute begins that much later.
const templateSlack = 8

// sameLine reports whether two lines are the same, but for a template's seconds.
func sameLine(want, got string) bool {
	if want == got {
		return true
	}
	w, g := strings.Fields(want), strings.Fields(got)
	if len(w) != len(g) || !isTemplate(w) {
		return false
	}
	differs := 0
	for i := range w {
		if w[i] == g[i] {
			continue
		}
		a, okA := parseSeconds(w[i])
		b, okB := parseSeconds(g[i])
		if !okA || !okB || a-b > templateSlack || b-a > templateSlack {
			return false
		}
		differs++
	}
	return differs <= 1
}

// isTemplate reports whether a row of the connection table is one of a template,
// whose client has no port. The client is the first that looks like one.
func isTemplate(fields []string) bool {
	i := slices.IndexFunc(fields, func(f string) bool {
		return strings.Contains(f, ".") && strings.Contains(f, ":") || strings.HasPrefix(f, "[")
	})
	return i >= 0 && strings.HasSuffix(fields[i], ":0")
}

// parseSeconds reads seconds, or minutes and seconds.
func parseSeconds(text string) (int, bool) {
	minutes, seconds, ok := strings.Cut(text, ":")
	if !ok {
		minutes, seconds = "0", text
	}
	m, err := strconv.Atoi(minutes)
	if err != nil {
		return 0, false
	}
	s, err := strconv.Atoi(seconds)
	return m*60 + s, err == nil
}
