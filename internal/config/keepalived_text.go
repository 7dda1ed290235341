package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Listed is a line of another program's configuration that is not carried over, or
// not as a whole.
type Listed struct {
	File   string
	Line   int
	Text   string
	Reason string
}

// String returns "FILE:LINE: TEXT: REASON".
func (l Listed) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", l.File, l.Line, l.Text, l.Reason)
}

// A textLine is a line without its comment, and where it stands.
type textLine struct {
	text string
	file string
	line int
}

// A linePlace is where a line stands.
type linePlace struct {
	file string
	line int
}

func (l textLine) place() linePlace { return linePlace{l.file, l.line} }

// A statement is a keyword with its arguments and its block.
type statement struct {
	words   []string
	at      textLine
	block   []*statement
	braced  bool
	carried bool
	listed  bool
}

func (s *statement) arg(i int) string {
	if i+1 < len(s.words) {
		return s.words[i+1]
	}
	return ""
}

const (
	maxIncludes   = 16      // of files in files
	maxStatements = 1 << 18 // of a configuration, after what repeats lines
	maxExpansions = 100     // of parameters in parameters
)

// A keepalivedReader turns the files of a configuration into statements: it follows
// includes, and does what lines that begin with @, $ and ~ ask for.
type keepalivedReader struct {
	id      string // the configuration id, for lines that begin with @
	listed  []Listed
	carried map[linePlace]bool // lines that have done what they are for
	params  map[string]*parameter
	depth   int
	root    *statement
	open    []*statement // the blocks that are open; the first is root
	last    *statement   // may have its block in the next line
	count   int
	defines *parameter // whose definition goes on in the next line
}

func newKeepalivedReader(id string) *keepalivedReader {
	root := &statement{}
	return &keepalivedReader{
		id: id, carried: map[linePlace]bool{}, params: map[string]*parameter{}, root: root, open: []*statement{root},
	}
}

func (k *keepalivedReader) list(at textLine, format string, args ...any) {
	l := Listed{at.file, at.line, at.text, fmt.Sprintf(format, args...)}
	if !slices.Contains(k.listed, l) {
		k.listed = append(k.listed, l)
	}
}

// file reads one file.
func (k *keepalivedReader) file(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read keepalived's configuration: %w", err)
	}
	k.text(path, string(data))
	return nil
}

func (k *keepalivedReader) text(path, data string) {
	for i, raw := range strings.Split(data, "\n") {
		line := textLine{strings.TrimSpace(withoutComment(raw)), path, i + 1}
		if line.text != "" {
			k.physical(line)
		}
	}
	if k.defines != nil {
		k.define(k.defines)
	}
}

// withoutComment returns a line up to # or !, which have no meaning in quotes.
func withoutComment(line string) string {
	quoted := false
	for i, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == '#' || r == '!'):
			return line[:i]
		}
	}
	return line
}

// physical takes a line as it stands in a file.
func (k *keepalivedReader) physical(line textLine) {
	if k.defines != nil {
		body, more := strings.CutSuffix(line.text, `\`)
		k.carried[line.place()] = true
		k.defines.lines = append(k.defines.lines, textLine{strings.TrimSpace(body), line.file, line.line})
		if !more {
			k.define(k.defines)
		}
		return
	}
	word, rest, _ := strings.Cut(line.text, " ")
	if tab := strings.IndexByte(line.text, '\t'); tab >= 0 && tab < len(word) {
		word, rest = line.text[:tab], line.text[tab:]
	}
	if slices.Contains([]string{"include", "includer", "includem", "includew", "includeb", "includea"}, word) {
		k.include(line, strings.Trim(strings.TrimSpace(rest), `"`))
		return
	}
	k.logical(line, line.text, 0)
}

func (k *keepalivedReader) include(at textLine, pattern string) {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(at.file), pattern)
	}
	paths, err := filepath.Glob(pattern)
	switch {
	case err != nil:
		k.list(at, "%v", err)
		return
	case len(paths) == 0:
		k.list(at, "there is no such file")
		return
	case k.depth == maxIncludes:
		k.list(at, "files include files more than %d deep", maxIncludes)
		return
	}
	k.depth++
	defer func() { k.depth-- }()
	k.carried[at.place()] = true
	for _, path := range paths {
		if err := k.file(path); err != nil {
			k.list(at, "%v", err)
		}
	}
}

// logical takes what is left of a line when something before it was done.
func (k *keepalivedReader) logical(at textLine, text string, depth int) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
	case depth > maxExpansions:
		k.list(at, "parameters in parameters more than %d deep", maxExpansions)
	case text[0] == '@':
		id, rest := cutWord(text[1:])
		not := strings.HasPrefix(id, "^")
		if (strings.TrimPrefix(id, "^") == k.id) == not {
			k.list(at, "it is not for the configuration id %s", k.id)
			return
		}
		k.carried[at.place()] = true
		k.logical(at, rest, depth+1)
	case text[0] == '~':
		k.repeat(at, text, depth)
	case text[0] == '$' && k.definition(at, text):
	default:
		k.expand(at, text, depth)
	}
}

func cutWord(text string) (word, rest string) {
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(text[i:])
}

// tokens takes the words and braces of a line.
func (k *keepalivedReader) tokens(at textLine, text string) {
	if k.count++; k.count > maxStatements {
		k.list(at, "more than %d lines", maxStatements)
		return
	}
	var current *statement
	for _, token := range splitWords(text) {
		switch token {
		case "{":
			of := current
			if of == nil {
				of = k.last
			}
			if of == nil || of.braced {
				k.list(at, "a brace with nothing that it is of")
				of = &statement{at: at, listed: true}
			}
			of.braced = true
			k.open = append(k.open, of)
			current, k.last = nil, nil
		case "}":
			if len(k.open) == 1 {
				k.list(at, "a brace that was not opened")
			} else {
				k.open = k.open[:len(k.open)-1]
			}
			current, k.last = nil, nil
		default:
			if current == nil {
				current = &statement{at: at}
				parent := k.open[len(k.open)-1]
				parent.block = append(parent.block, current)
				k.last = current
			}
			current.words = append(current.words, strings.TrimPrefix(token, "\x00"))
		}
	}
}

// splitWords splits a line at blanks and around braces; what is in quotes is one word,
// with a zero byte before it so that it is no brace.
func splitWords(text string) []string {
	var words []string
	var word strings.Builder
	has := false
	flush := func() {
		if has {
			words = append(words, word.String())
		}
		word.Reset()
		has = false
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			end := strings.IndexByte(text[i+1:], '"')
			if end < 0 {
				end = len(text) - i - 1
			}
			if !has {
				word.WriteByte(0)
			}
			word.WriteString(text[i+1 : i+1+end])
			has = true
			i += end + 1
		case c == ' ' || c == '\t' || c == '\r':
			flush()
		case c == '$' && i+1 < len(text) && text[i+1] == '{' && strings.IndexByte(text[i:], '}') > 0:
			end := strings.IndexByte(text[i:], '}')
			word.WriteString(text[i : i+end+1])
			has = true
			i += end
		case c == '{' || c == '}':
			flush()
			words = append(words, string(c))
		default:
			word.WriteByte(c)
			has = true
		}
	}
	flush()
	return words
}

// finish lists what was left open, and parameters that nothing uses.
func (k *keepalivedReader) finish() {
	for _, s := range k.open[1:] {
		k.list(s.at, "its brace is never closed")
	}
	for _, p := range k.params {
		for _, line := range p.lines {
			if !p.used {
				k.list(line, "parameter $%s is used nowhere", p.name)
			}
		}
	}
}
