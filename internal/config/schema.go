package config

import (
	"fmt"
	"slices"
	"strings"
)

// A kind is a sort of value: how it is read, and what it is in JSON Schema.
type kind[V any] struct {
	schema any
	read   func(r *reader, n *node, into *V)
}

// A field is a key of a mapping that is read into a T.
type field[T any] struct {
	name   string
	about  string // for editors, and for a person to read
	schema any
	read   func(r *reader, n *node, into *T)
}

// of makes a field of a kind; part says which part of a T it is read into.
func of[T, V any](name, about string, k kind[V], part func(*T) *V) field[T] {
	return field[T]{name, about, k.schema, func(r *reader, n *node, into *T) { k.read(r, n, part(into)) }}
}

// An object is a mapping that is read into a T. The keys are read in the order of the
// fields, whatever theirs in the file is.
type object[T any] struct {
	name     string // of the definition in JSON Schema
	about    string
	fields   []field[T]
	required []string
	// oneOf: one of these keys is required.
	oneOf []string
	// done looks at the whole.
	done func(r *reader, n *node, into *T)
}

func (o *object[T]) names() []string {
	names := make([]string, 0, len(o.fields))
	for _, f := range o.fields {
		names = append(names, f.name)
	}
	return names
}

func (o *object[T]) has(name string) bool {
	for i := range o.fields {
		if o.fields[i].name == name {
			return true
		}
	}
	return false
}

func (o *object[T]) read(r *reader, n *node, into *T) {
	if n.kind != mappingNode {
		r.refuse(n, "%s: want a mapping with keys of: %s", describe(n), strings.Join(o.names(), ", "))
		return
	}
	before := len(r.errors)
	for _, p := range n.pairs {
		switch {
		case !o.has(p.key.text):
			r.unknown(p.key, "key", o.names())
		case p.value.kind == nothingNode:
			r.refuse(p.key, "%s: a value is missing behind it", p.key.text)
		}
	}
	for _, name := range o.required {
		if n.find(name) == nil && len(r.errors) == before {
			r.refuse(n, "key %s is missing", name)
		}
	}
	if len(o.oneOf) > 0 && len(r.errors) == before &&
		!slices.ContainsFunc(o.oneOf, func(name string) bool { return n.find(name) != nil }) {
		r.refuse(n, "want one of the keys %s", strings.Join(o.oneOf, ", "))
	}
	for i := range o.fields {
		if value := n.find(o.fields[i].name); value != nil && value.kind != nothingNode {
			o.fields[i].read(r, value, into)
		}
	}
	if o.done != nil && len(r.errors) == before {
		o.done(r, n, into)
	}
}

// find returns the value of a key, nil if the mapping has none.
func (n *node) find(key string) *node {
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

// at returns the value of a key, or the mapping itself if it has none.
func (n *node) at(key string) *node {
	if value := n.find(key); value != nil {
		return value
	}
	return n
}

// kind makes a kind of the object; each value begins as what is there already.
func (o *object[T]) kind() kind[T] {
	return kind[T]{map[string]any{"$ref": "#/$defs/" + o.name}, o.read}
}

// afresh is a kind whose values begin as the zero value, whatever was there.
func afresh[V any](k kind[V]) kind[V] {
	return kind[V]{k.schema, func(r *reader, n *node, into *V) {
		*into = *new(V)
		k.read(r, n, into)
	}}
}

// listOf is a sequence of values, each of which begins as the zero value. It replaces
// what was there.
func listOf[V any](k kind[V], about string) kind[[]V] {
	schema := map[string]any{"type": "array", "items": k.schema}
	return kind[[]V]{schema, func(r *reader, n *node, into *[]V) { readList(r, n, into, about, k.read) }}
}

func readList[V any](r *reader, n *node, into *[]V, about string, read func(*reader, *node, *V)) {
	if n.kind != sequenceNode {
		r.refuse(n, "%s: want a list of %s", describe(n), about)
		return
	}
	list := make([]V, len(n.items))
	for i, item := range n.items {
		if item.kind == nothingNode {
			r.refuse(item, "an item of the list is empty: want %s", about)
			continue
		}
		read(r, item, &list[i])
	}
	*into = list
}

// oneOrMore is a value, or a sequence of them.
func oneOrMore[V any](k kind[V], about string) kind[[]V] {
	list := listOf(k, about)
	return kind[[]V]{anyOf(k.schema, list.schema), func(r *reader, n *node, into *[]V) {
		if n.kind == sequenceNode {
			list.read(r, n, into)
			return
		}
		*into = make([]V, 1)
		k.read(r, n, &(*into)[0])
	}}
}

// scalar is a kind whose values parse reads from text; what it wants is said in its
// errors.
func scalar[V any](schema any, parse func(text string) (V, error)) kind[V] {
	return kind[V]{schema, func(r *reader, n *node, into *V) {
		if n.kind != scalarNode {
			r.refuse(n, "%s: want a value", describe(n))
			return
		}
		value, err := parse(n.text)
		if err != nil {
			r.refuse(n, "%s", shortReason(err))
			return
		}
		*into = value
	}}
}

func anyOf(schemas ...any) map[string]any { return map[string]any{"anyOf": schemas} }

func text(pattern string) map[string]any {
	schema := map[string]any{"type": "string"}
	if pattern != "" {
		schema["pattern"] = pattern
	}
	return schema
}

// describe names what was found where something else is wanted.
func describe(n *node) string {
	if n.kind == scalarNode {
		return quoteShort(n.text)
	}
	return n.kind.String()
}

// A reader reads a file's values.
type reader struct {
	src    *source
	errors Errors
	// What the file defines for its own use, which is read before what uses it.
	groups map[string][]place
	checks map[string]checkDeclaration
	// base is what the service that is read begins with.
	defaults serviceDeclaration
}

func (r *reader) refuse(n *node, format string, args ...any) {
	r.errors = append(r.errors, r.src.errorAt(n.offset, format, args...))
}

// unknown refuses a word for which some others could stand.
func (r *reader) unknown(n *node, what string, known []string) {
	if near := nearest(n.text, known); near != "" {
		r.refuse(n, "unknown %s %s: did you mean %s?", what, quoteShort(n.text), near)
		return
	}
	r.refuse(n, "unknown %s %s: want one of: %s", what, quoteShort(n.text), strings.Join(known, ", "))
}

// definition returns the object in JSON Schema.
func (o *object[T]) definition() map[string]any {
	properties := map[string]any{}
	for _, f := range o.fields {
		if f.schema != nil {
			properties[f.name] = described(f.schema, f.about)
		}
	}
	schema := map[string]any{
		"type": "object", "description": o.about, "properties": properties, "additionalProperties": false,
	}
	if len(o.required) > 0 {
		schema["required"] = o.required
	}
	var choices []any
	for _, name := range o.oneOf {
		choices = append(choices, map[string]any{"required": []string{name}})
	}
	if len(choices) > 0 {
		schema["anyOf"] = choices
	}
	return schema
}

func described(schema any, about string) any {
	with := map[string]any{"description": about}
	given, ok := schema.(map[string]any)
	if !ok {
		panic(fmt.Sprintf("schema %v: want a map", schema))
	}
	for name, value := range given {
		with[name] = value
	}
	return with
}
