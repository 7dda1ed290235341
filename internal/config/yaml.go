package config

import (
	"strings"
	"unicode/utf8"
)

// A node is a value of a YAML file, and where it stands.
type node struct {
	kind   kindOf
	offset int
	text   string  // of a scalar
	quoted bool    // of a scalar: it is text, whatever it looks like
	items  []*node // of a sequence
	pairs  []pair  // of a mapping
}

type kindOf uint8

const (
	scalarNode kindOf = iota
	sequenceNode
	mappingNode
	nothingNode // a value that is left out
)

func (k kindOf) String() string {
	return [...]string{"a value", "a list", "a mapping", "nothing"}[k]
}

type pair struct{ key, value *node }

const (
	maxFile  = 64 << 20 // bytes
	maxDepth = 64       // of values in values
)

// parseYAML returns the value of a file, nil if it has none.
func parseYAML(src *source) (root *node, err *Error) {
	if len(src.text) > maxFile {
		return nil, src.errorAt(0, "it has %d bytes: want at most %d", len(src.text), maxFile)
	}
	for i, r := range src.text {
		if r >= ' ' && r < 0x7f {
			continue
		}
		if r == utf8.RuneError && !strings.HasPrefix(src.text[i:], "\uFFFD") {
			return nil, src.errorAt(i, "want UTF-8: this byte is not")
		}
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f {
			return nil, src.errorAt(i, "%q: a control character", r)
		}
	}
	p := &parser{src: src, text: src.text}
	defer func() {
		if thrown := recover(); thrown != nil {
			stop, ok := thrown.(stopped)
			if !ok {
				panic(thrown)
			}
			root, err = nil, stop.err
		}
	}()
	return p.document(), nil
}

// A parser reads a file from its beginning to its end. An error unwinds it by a panic
// with stopped, which never leaves parseYAML.
type parser struct {
	src   *source
	text  string
	at    int // of the next byte
	start int // of the line that at is in
	depth int
	nodes []node // room for more
}

// node returns a new one. There are many, and all are given back at once.
func (p *parser) node(kind kindOf, offset int) *node {
	const many = 256
	if len(p.nodes) == 0 {
		p.nodes = make([]node, many)
	}
	n := &p.nodes[0]
	p.nodes = p.nodes[1:]
	n.kind, n.offset = kind, offset
	return n
}

type stopped struct{ err *Error }

func (p *parser) stop(offset int, format string, args ...any) {
	panic(stopped{p.src.errorAt(offset, format, args...)})
}

func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.stop(p.at, "values lie in values more than %d deep", maxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

// peek returns the byte that is n further, 0 behind the end.
func (p *parser) peek(n int) byte {
	if p.at+n >= len(p.text) {
		return 0
	}
	return p.text[p.at+n]
}

func (p *parser) ended() bool { return p.at >= len(p.text) }

// column is how far the next byte is indented.
func (p *parser) column() int { return p.at - p.start }

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isBreak reports whether a line, or the file, ends at c.
func isBreak(c byte) bool { return c == '\n' || c == '\r' || c == 0 }

func (p *parser) skipBlanks() {
	for isBlank(p.peek(0)) {
		p.at++
	}
}

// endLine goes behind the end of the line; nothing but a comment may be left in it.
func (p *parser) endLine() {
	p.skipBlanks()
	if p.peek(0) == '#' && (p.at == p.start || isBlank(p.text[p.at-1])) {
		for !isBreak(p.peek(0)) {
			p.at++
		}
	}
	if p.peek(0) == '\r' && p.peek(1) == '\n' {
		p.at++
	}
	switch {
	case p.ended():
	case p.text[p.at] == '\n':
		p.at++
		p.start = p.at
	default:
		p.stop(p.at, "%s: want the end of the line here; a value with such characters goes into quotes", p.rest())
	}
}

// rest returns what is left of the line, shortened, in quotes.
func (p *parser) rest() string {
	end := p.at
	for end < len(p.text) && !isBreak(p.text[end]) {
		end++
	}
	return quoteShort(p.text[p.at:end])
}

func quoteShort(text string) string {
	runes := []rune(text)
	if len(runes) > 30 {
		return `"` + string(runes[:30]) + `..."`
	}
	return `"` + text + `"`
}

// next goes to the first byte of the next value or key, over empty lines and comments.
// It reports whether there is one before the end of the document.
func (p *parser) next() bool {
	for !p.ended() {
		for p.peek(0) == ' ' {
			p.at++
		}
		if p.peek(0) == '\t' {
			tab := p.at
			if p.skipBlanks(); !isBreak(p.peek(0)) && p.peek(0) != '#' {
				p.stop(tab, "a tab: indent with spaces")
			}
		}
		switch {
		case isBreak(p.peek(0)) || p.peek(0) == '#':
			p.endLine()
		case p.column() == 0 && p.marker("..."):
			return false
		case p.column() == 0 && p.marker("---"):
			p.stop(p.at, "a second document: want one in a file")
		default:
			return true
		}
	}
	return false
}

// marker reports whether the line is a marker of the document's begin or end.
func (p *parser) marker(text string) bool {
	if !strings.HasPrefix(p.text[p.at:], text) {
		return false
	}
	c := p.peek(len(text))
	return isBlank(c) || isBreak(c)
}

func (p *parser) document() *node {
	if strings.HasPrefix(p.text, "\uFEFF") {
		p.at = len("\uFEFF")
		p.start = p.at
	}
	p.begin()
	if !p.next() {
		return p.finish(nil)
	}
	return p.finish(p.block(-1))
}

// begin goes behind "---", if the document begins with one.
func (p *parser) begin() {
	for !p.ended() {
		for p.peek(0) == ' ' {
			p.at++
		}
		switch {
		case p.peek(0) == '%' && p.column() == 0:
			p.stop(p.at, "%s: directives are not read: leave them out", p.rest())
		case p.column() == 0 && p.marker("---"):
			p.at += len("---")
			if p.skipBlanks(); !isBreak(p.peek(0)) && p.peek(0) != '#' {
				p.stop(p.at, "%s: want the end of the line behind ---", p.rest())
			}
			p.endLine()
			return
		case !isBreak(p.peek(0)) && p.peek(0) != '#':
			p.at = p.start
			return
		}
		p.endLine()
	}
}

// finish sees that nothing comes behind the document.
func (p *parser) finish(root *node) *node {
	if p.next() {
		p.stop(p.at, "%s: it belongs to nothing above: look at how far the lines are indented", p.rest())
	}
	if !p.ended() { // at "..."
		p.at += len("...")
		for p.endLine(); !p.ended(); p.endLine() {
			if p.skipBlanks(); !isBreak(p.peek(0)) && p.peek(0) != '#' {
				p.stop(p.at, "%s: it is behind the end of the document", p.rest())
			}
			p.at = p.start
		}
	}
	return root
}

// block reads the value that begins here, at the column by which it is indented.
func (p *parser) block(parent int) *node {
	p.enter()
	defer p.leave()
	column := p.column()
	if column <= parent {
		p.stop(p.at, "it is indented too little")
	}
	switch {
	case p.peek(0) == '-' && (isBlank(p.peek(1)) || isBreak(p.peek(1))):
		return p.sequence(column)
	case p.peek(0) == '?' && (isBlank(p.peek(1)) || isBreak(p.peek(1))):
		p.stop(p.at, "?: want a key with a colon behind it")
	}
	first := p.inline()
	if !p.atColon() {
		p.endLine()
		return first
	}
	return p.mapping(column, first)
}

// atColon reports whether what was read is a key: a colon follows, with a blank or the
// end of the line behind it.
func (p *parser) atColon() bool {
	n := 0
	for isBlank(p.peek(n)) {
		n++
	}
	return p.peek(n) == ':' && (isBlank(p.peek(n+1)) || isBreak(p.peek(n+1)))
}

func (p *parser) sequence(column int) *node {
	list := p.node(sequenceNode, p.at)
	for {
		item := p.at
		p.at++ // the dash
		blanks := p.at
		for p.peek(0) == ' ' {
			p.at++
		}
		switch {
		case p.peek(0) == '\t':
			p.stop(p.at, "a tab: indent with spaces")
		case isBreak(p.peek(0)) || p.peek(0) == '#' && p.at > blanks:
			p.endLine()
			if p.next() && p.column() > column {
				list.items = append(list.items, p.block(column))
			} else {
				list.items = append(list.items, p.node(nothingNode, item))
			}
		default:
			list.items = append(list.items, p.block(column))
		}
		if !p.next() || p.column() < column {
			return list
		}
		if p.column() > column {
			p.stop(p.at, "%s: it is indented further than the list above it", p.rest())
		}
		if p.peek(0) != '-' || !isBlank(p.peek(1)) && !isBreak(p.peek(1)) {
			return list // a key of the mapping that the list is in
		}
	}
}

// mapping reads a mapping whose first key was read.
func (p *parser) mapping(column int, key *node) *node {
	all := p.node(mappingNode, key.offset)
	var seen keys
	for {
		p.key(all, &seen, key)
		p.skipBlanks()
		p.at++ // the colon
		all.pairs = append(all.pairs, pair{key, p.value(column, key)})
		if !p.next() || p.column() < column {
			return all
		}
		if p.column() > column {
			p.stop(p.at, "%s: it is indented further than the keys above it", p.rest())
		}
		if p.peek(0) == '-' && (isBlank(p.peek(1)) || isBreak(p.peek(1))) {
			p.stop(p.at, "an item of a list among keys: indent it further than the key that it is of")
		}
		if key = p.inline(); !p.atColon() {
			p.stop(key.offset, "%s: want a key with a colon behind it", quoteShort(key.text))
		}
	}
}

// keys are those of a mapping: few, as a rule, are compared with each other.
type keys struct{ many map[string]*node }

// find returns the key of a mapping with a text, nil if there is none.
func (k *keys) find(of *node, text string) *node {
	const few = 16
	if len(of.pairs) < few {
		for _, p := range of.pairs {
			if p.key.text == text {
				return p.key
			}
		}
		return nil
	}
	if k.many == nil {
		k.many = map[string]*node{}
	}
	for _, p := range of.pairs[len(k.many):] {
		k.many[p.key.text] = p.key
	}
	return k.many[text]
}

// key sees that a key is one, and new.
func (p *parser) key(all *node, seen *keys, key *node) {
	if key.kind != scalarNode {
		p.stop(key.offset, "%s is no key: want a word; an address in brackets goes into quotes", key.kind)
	}
	if key.text == "<<" && !key.quoted {
		p.stop(key.offset, "<<: merge keys are not read: use defaults, groups and named checks")
	}
	if before := seen.find(all, key.text); before != nil {
		p.stop(key.offset, "key %q is given twice: first in line %d", key.text, p.src.line(before.offset))
	}
}

// value reads what stands behind the colon of a key.
func (p *parser) value(column int, key *node) *node {
	from := p.at
	p.skipBlanks()
	if !isBreak(p.peek(0)) && (p.peek(0) != '#' || p.at == from) {
		if p.peek(0) == '-' && (isBlank(p.peek(1)) || isBreak(p.peek(1))) {
			p.stop(p.at, "a list begins in a line of its own")
		}
		value := p.inline()
		if p.atColon() {
			p.stop(p.at, "a colon: a second key in one line; a value with a colon and a blank goes into quotes")
		}
		p.endLine()
		return value
	}
	p.endLine()
	if !p.next() {
		return p.node(nothingNode, key.offset)
	}
	switch {
	case p.column() > column:
		return p.block(column)
	case p.column() == column && p.peek(0) == '-' && (isBlank(p.peek(1)) || isBreak(p.peek(1))):
		p.enter()
		defer p.leave()
		return p.sequence(column)
	}
	return p.node(nothingNode, key.offset)
}
