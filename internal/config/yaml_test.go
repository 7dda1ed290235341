package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// canonical writes a value in one way.
func (n *node) canonical() string {
	var parts []string
	switch n.kind {
	case scalarNode:
		return fmt.Sprintf("%q", n.text)
	case sequenceNode:
		for _, item := range n.items {
			parts = append(parts, item.canonical())
		}
		return "[" + strings.Join(parts, " ") + "]"
	case mappingNode:
		for _, p := range n.pairs {
			parts = append(parts, p.key.canonical()+":"+p.value.canonical())
		}
		return "{" + strings.Join(parts, " ") + "}"
	}
	return "nothing"
}

func TestYAML(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"a: 1", `{"a":"1"}`},
		{"---\na: 1\n...\n", `{"a":"1"}`},
		{"\uFEFF# x\n\n---  # y\na: 1 # z\n", `{"a":"1"}`},
		{"a:\r\n  - b\r\n  - c\r\n", `{"a":["b" "c"]}`},
		{"a:\n- b\n- c\nd: e", `{"a":["b" "c"] "d":"e"}`},
		{"- - a\n  - b\n- c: d\n  e: f\n-\n  g", `[["a" "b"] {"c":"d" "e":"f"} "g"]`},
		{"a: b#c #d\ne: 'it''s # f'\ng: \"\\u00e9\\x41\\n\\\\\\\"\\ud83d\\ude00\"", `{"a":"b#c" "e":"it's # f" "g":"éA\n\\\"😀"}`},
		{"a: {b: [c, {d: e}], \"f\":g, h: [],}\n", `{"a":{"b":["c" {"d":"e"}] "f":"g" "h":[]}}`},
		{"a: [\n  b, # c\n  d\n]\ne: {\n}\n", `{"a":["b" "d"] "e":{}}`},
		{"a: tcp:192.0.2.1:80\nb: 2001:db8::1\n\"c d\": x y", `{"a":"tcp:192.0.2.1:80" "b":"2001:db8::1" "c d":"x y"}`},
		{"a :  b", `{"a":"b"}`},
		{"[2001:db8::1, -1, a-b]", `["2001:db8::1" "-1" "a-b"]`},
		{"a:\nb:  # c\n  d:\n", `{"a":nothing "b":{"d":nothing}}`},
		{"  a: 1\n  b: 2\n", `{"a":"1" "b":"2"}`},
		{"just text", `"just text"`},
		{"a: tcp:[2001:db8::1]:80", `{"a":"tcp:[2001:db8::1]:80"}`},
	} {
		root, err := parseYAML(&source{name: "x", text: test.text})
		if err != nil || root.canonical() != test.want {
			t.Errorf("%q: got %v, %v, want %s", test.text, root, err, test.want)
		}
	}
	for _, text := range []string{"", "# x", "---", "\n\n...\n"} {
		if root, err := parseYAML(&source{text: text}); root != nil || err != nil {
			t.Errorf("%q: got %v, %v, want nothing", text, root, err)
		}
	}
}

func TestMalformedYAML(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\n b: 2":               `x:2:2: "b: 2": it is indented further than the keys above it`,
		"a:\n  b: 1\n c: 2":         `x:3:2: "c: 2": it is indented further than the keys above it`,
		"  a: 1\nb: 2":              `x:2:1: "b: 2": it belongs to nothing above`,
		"a:\n\tb: 1":                `x:2:1: a tab: indent with spaces`,
		"-\ta":                      `x:1:2: a tab: indent with spaces`,
		"a: b: c":                   `x:1:5: a colon: a second key in one line`,
		"a: - b":                    `x:1:4: a list begins in a line of its own`,
		"a: 1\n- b":                 `x:2:1: an item of a list among keys`,
		"a: 1\nb":                   `x:2:1: "b": want a key with a colon behind it`,
		"a: b\n  c":                 `x:2:3: "c": it is indented further than the keys above it`,
		"- a\n  b":                  `x:2:3: "b": it is indented further than the list above it`,
		"a: [b":                     `x:1:4: [ is never closed`,
		"a: [b\nc: d":               `x:2:1: "c: d": want , or ] here`,
		"a: {b: c":                  `x:1:4: { is never closed`,
		"a: {b}":                    `x:1:5: key "b": want a colon and a value behind it`,
		"a: [b]]":                   `x:1:7: "]": want the end of the line here`,
		"a: [b: c]":                 `x:1:6: a key in a list`,
		"a: [,]":                    `x:1:5: ',': want a value`,
		`a: "b`:                     `x:1:4: a quote that is not closed in its line`,
		"a: 'b\n'":                  `x:1:4: a quote that is not closed in its line`,
		`a: "\q"`:                   `x:1:5: a backslash with nothing that it stands before`,
		`a: "\x4"`:                  `x:1:5: want 2 hexadecimal digits here`,
		`a: "\ud83d"`:               `x:1:5: half a surrogate pair`,
		`a: "\UFFFFFFFF"`:           `x:1:5: want 8 hexadecimal digits here`,
		"a: &b c":                   `x:1:4: &: anchors and aliases are not read`,
		"a: *b":                     `x:1:4: *: anchors and aliases are not read`,
		"a: !!str b":                `x:1:4: !: tags are not read`,
		"a: |\n  b":                 `x:1:4: |: values of several lines are not read`,
		"<<: {a: b}":                `x:1:1: <<: merge keys are not read`,
		"? a\n: b":                  `x:1:1: ?: want a key with a colon behind it`,
		"%YAML 1.2\n---\na: 1":      `x:1:1: "%YAML 1.2": directives are not read`,
		"a: 1\n---\nb: 1":           `x:2:1: a second document: want one in a file`,
		"a: 1\n...\nb: 1":           `x:3:1: "b: 1": it is behind the end of the document`,
		"--- a":                     `x:1:5: "a": want the end of the line behind ---`,
		"a: \xff":                   `x:1:4: want UTF-8: this byte is not`,
		"a: \x00":                   `x:1:4: '\x00': a control character`,
		"[a]: b":                    `x:1:1: a list is no key`,
		"a: b\rc":                   `x:1:5: "": want the end of the line here`,
		"a: 1\na: 2":                `x:2:1: key "a" is given twice: first in line 1`,
		"{a: 1, a: 2}":              `x:1:8: key "a" is given twice: first in line 1`,
		strings.Repeat("[", 100):    `x:1:64: values lie in values more than 64 deep`,
		strings.Repeat("- ", 100):   `x:1:129: values lie in values more than 64 deep`,
		strings.Repeat("{a: ", 100): `x:1:253: values lie in values more than 64 deep`,
	} {
		root, err := parseYAML(&source{name: "x", text: text})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q:\n got %v, %v\nwant %s", text, root, err, want)
		}
	}
}

// canonicalOf writes what another reader of YAML read, as canonical does.
func canonicalOf(n *yaml.Node) string {
	var parts []string
	switch n.Kind {
	case yaml.DocumentNode:
		return canonicalOf(n.Content[0])
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			parts = append(parts, canonicalOf(n.Content[i])+":"+canonicalOf(n.Content[i+1]))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case yaml.SequenceNode:
		for _, v := range n.Content {
			parts = append(parts, canonicalOf(v))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprintf("%q", n.Value)
}

// A document writes random values in random styles.
type document struct {
	*rand.Rand
	text strings.Builder
}

func (d *document) comment() {
	if d.IntN(5) == 0 {
		d.text.WriteString(" # a: [comment")
	}
	d.text.WriteByte('\n')
	if d.IntN(8) == 0 {
		d.text.WriteString(strings.Repeat(" ", d.IntN(4)) + "# more\n\n")
	}
}

func (d *document) scalar() string {
	all := []string{"a", "b c", "tcp:192.0.2.1:80", "2001:db8::1", "x#y", "-1", "1.5s", "it's", `"q\u00e9\"d"`, `'it''s: {a}'`, `"# [x"`, "true", "a-b/c"}
	return all[d.IntN(len(all))]
}

func (d *document) flow(depth int) string {
	var parts []string
	switch d.IntN(4 + depth) {
	case 0:
		for range d.IntN(4) {
			parts = append(parts, d.flow(depth+1))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case 1:
		for i := range d.IntN(4) {
			parts = append(parts, fmt.Sprintf("k%d: %s", i, d.flow(depth+1)))
		}
		return "{ " + strings.Join(parts, " , ") + " }"
	}
	return d.scalar()
}

// value writes a value behind a key or a dash, to the end of its last line.
func (d *document) value(indent, depth int, dash bool) {
	switch choice := d.IntN(5 + 2*depth); {
	case choice < 2:
		d.comment()
		d.mapping(indent+1+d.IntN(3), depth+1)
	case choice < 4 && (dash || d.IntN(2) == 0):
		d.comment()
		d.sequence(indent+1+d.IntN(3), depth+1)
	case choice < 4:
		d.comment()
		d.sequence(indent, depth+1) // as far in as its key
	default:
		d.text.WriteString(" " + d.flow(depth))
		d.comment()
	}
}

func (d *document) mapping(indent, depth int) {
	for i := range 1 + d.IntN(3) {
		fmt.Fprintf(&d.text, "%s%s:", strings.Repeat(" ", indent), []string{"a", `"b c"`, "'d'"}[i])
		d.value(indent, depth, false)
	}
}

func (d *document) sequence(indent, depth int) {
	for range 1 + d.IntN(3) {
		d.text.WriteString(strings.Repeat(" ", indent) + "-")
		d.value(indent, depth, true)
	}
}

// What is read is what another reader of YAML reads.
func TestYAMLAgainstAnother(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	d := &document{Rand: rand.New(rand.NewPCG(seed, 0))}
	for range 2000 {
		d.text.Reset()
		d.mapping(0, 0)
		text := d.text.String()
		root, failed := parseYAML(&source{name: "x", text: text})
		if failed != nil {
			t.Fatalf("seed %d: %v\n%s", seed, failed, text)
		}
		var other yaml.Node
		if err := yaml.Unmarshal([]byte(text), &other); err != nil {
			t.Fatalf("seed %d: the other reader: %v\n%s", seed, err, text)
		}
		if diff := cmp.Diff(canonicalOf(&other), root.canonical()); diff != "" {
			t.Fatalf("seed %d, -other +ours:\n%s\n%s", seed, diff, text)
		}
	}
}

// Whatever is read, what is wrong with it has a place, and what is not is written back
// as the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "services:\n  - address: tcp:192.0.2.100:80\n    servers: [192.0.2.11]\n", "groups: {a: tcp:192.0.2.0/28:80-90}\nservices: [{group: a}]",
		"checks: {a: {type: http, http: {status: [200-299]}}}\nservices: [{address: fwmark:7, checks: [a, tcp], servers: [192.0.2.1]}]",
		"marks: [{mark: 1, source: 192.0.2.0/24}]\nsysctls: {timeout_udp: 5m}\npeers: [2001:db8::1]", `{"version": 1, "defaults": {"scheduler": "mh"}}`,
		"a: \"\\ud83d\\ude00", "- - ? &", "services: [{address: udp:[2001:db8::1]:5",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("x", data)
		var all Errors
		if err != nil {
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("an error without a place: %v", err)
			}
			lines := 1 + strings.Count(string(data), "\n")
			for _, e := range all {
				if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Message == "" {
					t.Fatalf("there is no such place: %v", e)
				}
			}
			return
		}
		written := Write(file.Configuration)
		again, err := Parse("x", []byte(written))
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		sortServices(&file.Configuration)
		sortServices(&again.Configuration)
		if diff := cmp.Diff(file.Configuration, again.Configuration, compareAddresses); diff != "" {
			t.Fatalf("-read +written and read:\n%s\n%s", diff, written)
		}
	})
}
