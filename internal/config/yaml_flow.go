package config

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// inline reads a scalar or a flow collection, which begins here.
func (p *parser) inline() *node { return p.flowValue(false) }

// flowValue reads a value; inside says whether it is within brackets, where commas
// and brackets end a plain scalar.
func (p *parser) flowValue(inside bool) *node {
	switch c := p.peek(0); c {
	case '[':
		return p.flowSequence()
	case '{':
		return p.flowMapping()
	case '"', '\'':
		return p.quoted()
	case '&', '*':
		p.stop(p.at, "%c: anchors and aliases are not read: use defaults, groups and named checks; text that begins so goes into quotes", c)
	case '!':
		p.stop(p.at, "!: tags are not read; text that begins so goes into quotes")
	case '|', '>':
		p.stop(p.at, `%c: values of several lines are not read: write "\n" in double quotes`, c)
	case ',', ']', '}', '%', '@', '`', '#':
		p.stop(p.at, "%q: want a value; text that begins so goes into quotes", c)
	}
	return p.plain(inside)
}

// plain reads a scalar without quotes, to the end of its line at most.
func (p *parser) plain(inside bool) *node {
	from := p.at
	if c := p.peek(0); (c == '-' || c == '?' || c == ':') && endsPlain(p.peek(1), inside) {
		p.stop(p.at, "%q: want a value", c)
	}
	for ; !isBreak(p.peek(0)); p.at++ {
		c := p.text[p.at]
		if c == ':' && endsPlain(p.peek(1), inside) || c == '#' && isBlank(p.text[max(p.at-1, 0)]) || inside && isFlowMark(c) {
			break
		}
	}
	for p.at > from && isBlank(p.text[p.at-1]) {
		p.at--
	}
	n := p.node(scalarNode, from)
	n.text = p.text[from:p.at]
	return n
}

// isFlowMark reports whether c separates values within brackets.
func isFlowMark(c byte) bool { return c == ',' || c == '[' || c == ']' || c == '{' || c == '}' }

// endsPlain reports whether a scalar without quotes ends before a colon with c behind it.
func endsPlain(c byte, inside bool) bool { return isBlank(c) || isBreak(c) || inside && isFlowMark(c) }

// skipFlow goes over blanks, ends of lines and comments inside brackets that opened at
// an offset.
func (p *parser) skipFlow(opened int) {
	for {
		p.skipBlanks()
		switch {
		case p.ended():
			p.stop(opened, "%c is never closed", p.text[opened])
		case isBreak(p.peek(0)) || p.peek(0) == '#' && (p.column() == 0 || isBlank(p.text[p.at-1])):
			p.endLine()
		case p.column() == 0 && (p.marker("---") || p.marker("...")):
			p.stop(opened, "%c is not closed in its document", p.text[opened])
		default:
			return
		}
	}
}

func (p *parser) flowSequence() *node {
	p.enter()
	defer p.leave()
	list := p.node(sequenceNode, p.at)
	p.at++
	for {
		p.skipFlow(list.offset)
		if p.peek(0) == ']' {
			p.at++
			return list
		}
		list.items = append(list.items, p.flowValue(true))
		p.skipFlow(list.offset)
		switch p.peek(0) {
		case ',':
			p.at++
		case ']':
		case ':':
			p.stop(p.at, "a key in a list: put it into braces; an address with a colon behind it goes into quotes")
		default:
			p.stop(p.at, "%s: want , or ] here; a value with brackets goes into quotes", p.rest())
		}
	}
}

func (p *parser) flowMapping() *node {
	p.enter()
	defer p.leave()
	all := p.node(mappingNode, p.at)
	all.pairs = make([]pair, 0, 4) // as many as most have
	var seen keys
	p.at++
	for {
		p.skipFlow(all.offset)
		if p.peek(0) == '}' {
			p.at++
			return all
		}
		key := p.flowValue(true)
		p.key(all, &seen, key)
		p.skipFlow(all.offset)
		if p.peek(0) != ':' {
			p.stop(key.offset, "key %q: want a colon and a value behind it", key.text)
		}
		p.at++
		p.skipFlow(all.offset)
		if c := p.peek(0); c == ',' || c == '}' {
			all.pairs = append(all.pairs, pair{key, p.node(nothingNode, key.offset)})
		} else {
			all.pairs = append(all.pairs, pair{key, p.flowValue(true)})
		}
		p.skipFlow(all.offset)
		switch p.peek(0) {
		case ',':
			p.at++
		case '}':
		default:
			p.stop(p.at, "%s: want , or } here; a value with brackets goes into quotes", p.rest())
		}
	}
}

// quoted reads a text in quotes of its first kind: single ones, where a quote is told by
// two (YAML 1.2, 7.3.2), or double ones, with escapes (7.3.1).
func (p *parser) quoted() *node {
	quote, from := p.peek(0), p.at
	p.at++
	var text strings.Builder
	for {
		switch c := p.peek(0); {
		case isBreak(c):
			p.stop(from, "a quote that is not closed in its line")
		case c == '\\' && quote == '"':
			text.WriteRune(p.escape())
		case c == '\'' && quote == '\'' && p.peek(1) == quote:
			text.WriteByte(quote)
			p.at += 2
		case c == quote:
			p.at++
			n := p.node(scalarNode, from)
			n.text, n.quoted = text.String(), true
			return n
		default:
			text.WriteByte(c)
			p.at++
		}
	}
}

// escapes are what one letter behind a backslash stands for (YAML 1.2, 5.7).
var escapes = map[byte]rune{
	'0': 0, 'a': '\a', 'b': '\b', 't': '\t', '\t': '\t', 'n': '\n', 'v': '\v', 'f': '\f', 'r': '\r', 'e': 0x1b,
	' ': ' ', '"': '"', '/': '/', '\\': '\\', 'N': 0x85, '_': 0xa0, 'L': 0x2028, 'P': 0x2029,
}

// escapeDigits are how many hexadecimal digits follow.
var escapeDigits = map[byte]int{'x': 2, 'u': 4, 'U': 8}

func (p *parser) escape() rune {
	from := p.at
	c := p.peek(1)
	if r, ok := escapes[c]; ok {
		p.at += 2
		return r
	}
	digits, ok := escapeDigits[c]
	if !ok {
		p.stop(from, `a backslash with nothing that it stands before: want \\ for the character itself`)
	}
	r := p.hexadecimal(from, digits)
	if utf16.IsSurrogate(r) { // JSON writes characters beyond 16 bits as two
		if p.peek(0) != '\\' || p.peek(1) != 'u' {
			p.stop(from, "half a surrogate pair")
		}
		if r = utf16.DecodeRune(r, p.hexadecimal(p.at, 4)); r == utf8.RuneError {
			p.stop(from, "half a surrogate pair")
		}
	}
	return r
}

// hexadecimal reads the digits behind the two bytes of an escape.
func (p *parser) hexadecimal(from, digits int) rune {
	if p.at+2+digits > len(p.text) {
		p.stop(from, "want %d hexadecimal digits here", digits)
	}
	n, err := strconv.ParseUint(p.text[p.at+2:p.at+2+digits], 16, 32)
	if err != nil || n > utf8.MaxRune {
		p.stop(from, "want %d hexadecimal digits here, of a character", digits)
	}
	p.at += 2 + digits
	return rune(n)
}
