package scenario

import (
	"strconv"
	"strings"
	"time"
)

// lineLength is where lines of many words are broken.
const lineLength = 110

// String returns the file as Parse reads it.
func (f *File) String() string {
	var b strings.Builder
	writeComment(&b, f.Comment)
	for _, s := range f.Scenarios {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(s.String())
	}
	return b.String()
}

// String returns the scenario as Parse reads it.
func (s *Scenario) String() string {
	var b strings.Builder
	b.WriteString("scenario " + s.Name + "\n")
	writeComment(&b, s.Comment)
	b.WriteByte('\n')
	for i := range s.Steps {
		s.Steps[i].write(&b)
	}
	return b.String()
}

// String returns the step as Parse reads it.
func (s *Step) String() string {
	var b strings.Builder
	s.write(&b)
	return b.String()
}

func (s *Step) write(b *strings.Builder) {
	writeComment(b, s.Comment)
	words := s.Words
	if s.List != "" {
		words = []string{"@" + s.List}
	}
	column, _ := b.WriteString(string(s.Verb))
	for i, word := range words {
		if i > 0 && s.mayBreak() && column+1+len(word) > lineLength {
			column, _ = b.WriteString("\n ")
			column--
		}
		b.WriteString(" " + word)
		column += 1 + len(word)
	}
	b.WriteByte('\n')
	for _, line := range s.Input {
		b.WriteString(strings.TrimRight(input+line, " ") + "\n")
	}
	for _, line := range s.Answer {
		b.WriteString(line + "\n")
	}
}

func (s *Step) mayBreak() bool { return s.Verb == Send || s.Verb == Walk }

func writeComment(b *strings.Builder, lines []string) {
	for _, line := range lines {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
}

// seconds writes a time as Wait does.
func seconds(t time.Duration) string {
	return strconv.FormatFloat(t.Seconds(), 'f', -1, 64)
}
