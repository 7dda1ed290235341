package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// What lines of keepalived.conf that begin with $ and ~ ask for: parameters, and lines that
// are repeated with other values.

type parameter struct {
	name  string
	lines []textLine
	multi bool
	used  bool
}

func (k *keepalivedReader) define(p *parameter) {
	k.defines = nil
	if before := k.params[p.name]; before != nil {
		p.used = before.used
	}
	k.params[p.name] = p
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
