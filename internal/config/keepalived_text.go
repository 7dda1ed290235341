package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

type parameter struct {
	name  string
	lines []textLine
	multi bool
	used  bool
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

func (k *keepalivedReader) define(p *parameter) {
	k.defines = nil
	if before := k.params[p.name]; before != nil {
		p.used = before.used
	}
	k.params[p.name] = p
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

// definition reports whether text is "$NAME=VALUE", which it then takes.
func (k *keepalivedReader) definition(at textLine, text string) bool {
	name, value, found := strings.Cut(text[1:], "=")
	if !found || !isParameterName(name) {
		return false
	}
	k.carried[at.place()] = true
	p := &parameter{name: name}
	value, more := strings.CutSuffix(strings.TrimSpace(value), `\`)
	if more {
		p.multi = true
		k.defines = p
		return true
	}
	p.lines = []textLine{{strings.TrimSpace(value), at.file, at.line}}
	k.define(p)
	return true
}

func isParameterName(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// expand replaces parameters. One of several lines stands for itself.
func (k *keepalivedReader) expand(at textLine, text string, depth int) {
	alone := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(text, "$"), "{"), "}")
	if p := k.params[alone]; text[0] == '$' && p != nil && p.multi {
		k.carried[at.place()], p.used = true, true
		for _, line := range p.lines {
			k.logical(line, line.text, depth+1)
		}
		return
	}
	replaced := k.replace(at, text)
	if replaced != text {
		k.logical(at, replaced, depth+1)
		return
	}
	k.tokens(at, text)
}

// replace replaces each parameter once. Those that are not defined stay.
func (k *keepalivedReader) replace(at textLine, text string) string {
	var result strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' {
			result.WriteByte(text[i])
			continue
		}
		name, _ := cutWord(text[i+1:])
		end := i + 1 + len(name)
		if strings.HasPrefix(text[i+1:], "{") {
			closing := strings.IndexByte(text[i:], '}')
			if closing < 0 {
				result.WriteByte('$')
				continue
			}
			name, end = text[i+2:i+closing], i+closing+1
		}
		value, ok := k.value(at, name)
		if !ok {
			result.WriteByte('$')
			continue
		}
		result.WriteString(value)
		i = end - 1
	}
	return result.String()
}

func (k *keepalivedReader) value(at textLine, name string) (string, bool) {
	switch name {
	case "_PWD":
		dir, err := filepath.Abs(filepath.Dir(at.file))
		return dir, err == nil
	case "_INSTANCE":
		return k.id, true
	case "_HASH":
		return "#", true
	case "_BANG":
		return "!", true
	}
	p := k.params[name]
	if p == nil {
		return "", false
	}
	p.used = true
	parts := make([]string, 0, len(p.lines))
	for _, line := range p.lines {
		parts = append(parts, line.text)
	}
	return strings.Join(parts, " "), true
}

// repeat does what ~SEQ, ~SEQx and ~LST ask for: the rest of the line, for each value.
func (k *keepalivedReader) repeat(at textLine, text string, depth int) {
	head, rest, ok := strings.Cut(text, ")")
	kind, list, opened := strings.Cut(head, "(")
	if strings.HasPrefix(strings.TrimSpace(list), "{") {
		// ~LST({A, B}, {1, 2}): braces hold what belongs together.
		if end := strings.LastIndex(text, "})"); end >= 0 {
			list, rest, ok = text[len(kind)+1:end+1], text[end+2:], true
		}
	}
	if !ok || !opened {
		k.list(at, "want ~SEQ(variable, start, step, end) or ~LST(variable, value, ...)")
		return
	}
	var rounds []map[string]string
	var err error
	switch list = k.replace(at, list); kind {
	case "~SEQ", "~SEQx":
		rounds, err = sequence(list, kind == "~SEQx")
	case "~LST":
		rounds, err = choices(list)
	default:
		err = fmt.Errorf("%s: want ~SEQ, ~SEQx or ~LST", kind)
	}
	if err != nil {
		k.list(at, "%v", err)
		return
	}
	k.carried[at.place()] = true
	for _, round := range rounds {
		for name, value := range round {
			k.params[name] = &parameter{name: name, used: true, lines: []textLine{{value, at.file, at.line}}}
		}
		k.logical(at, rest, depth+1)
	}
	for _, round := range rounds {
		for name := range round {
			delete(k.params, name)
		}
	}
}

func sequence(list string, hexadecimal bool) ([]map[string]string, error) {
	parts := strings.Split(list, ",")
	name := strings.TrimSpace(parts[0])
	var numbers []int64
	for _, part := range parts[1:] {
		n, err := strconv.ParseInt(strings.TrimSpace(part), 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", strings.TrimSpace(part))
		}
		numbers = append(numbers, n)
	}
	var start, step, end int64
	switch len(numbers) {
	case 1:
		end = numbers[0]
		if start = 1; end < 0 {
			start = -1
		}
	case 2:
		start, end = numbers[0], numbers[1]
	case 3:
		start, step, end = numbers[0], numbers[1], numbers[2]
	default:
		return nil, fmt.Errorf("want ~SEQ(variable, start, step, end)")
	}
	if step == 0 {
		if step = 1; end < start {
			step = -1
		}
	}
	if (end-start)/step > maxStatements || !isParameterName(name) {
		return nil, fmt.Errorf("want ~SEQ(variable, start, step, end) with at most %d values", maxStatements)
	}
	var rounds []map[string]string
	for n := start; step > 0 && n <= end || step < 0 && n >= end; n += step {
		value := strconv.FormatInt(n, 10)
		if hexadecimal {
			value = strconv.FormatInt(n, 16)
		}
		rounds = append(rounds, map[string]string{name: value})
	}
	return rounds, nil
}

func choices(list string) ([]map[string]string, error) {
	var groups [][]string
	for rest := strings.TrimSpace(list); rest != ""; {
		var group string
		if strings.HasPrefix(rest, "{") {
			inner, after, ok := strings.Cut(rest[1:], "}")
			if !ok {
				return nil, fmt.Errorf("a brace that is not closed")
			}
			group, rest = inner, strings.TrimPrefix(strings.TrimSpace(after), ",")
			groups = append(groups, splitTrimmed(group))
		} else {
			group, rest, _ = strings.Cut(rest, ",")
			groups = append(groups, []string{strings.TrimSpace(group)})
		}
		rest = strings.TrimSpace(rest)
	}
	if len(groups) < 2 {
		return nil, fmt.Errorf("want ~LST(variable, value, ...)")
	}
	var rounds []map[string]string
	for _, values := range groups[1:] {
		if len(values) != len(groups[0]) {
			return nil, fmt.Errorf("want as many values as variables, %d", len(groups[0]))
		}
		round := map[string]string{}
		for i, name := range groups[0] {
			if !isParameterName(name) {
				return nil, fmt.Errorf("%q is no name of a variable", name)
			}
			round[name] = values[i]
		}
		rounds = append(rounds, round)
	}
	return rounds, nil
}

func splitTrimmed(list string) []string {
	parts := strings.Split(list, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
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
