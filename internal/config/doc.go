// Package config reads the configuration file of a director into checked values of
// the domain, and writes it; and it reads what other programs' configurations ask for.
//
// The file is YAML, as far as it is needed: mappings, sequences and scalars, in block
// and in flow style, with comments; and so it may be JSON. Anchors, tags, merge keys
// and values of several lines are refused. The reader is the package's own: each value
// knows its place for a refusal, nothing that is read can make it fail in another way,
// and a file of ten thousand real servers is read in a hundredth of a second.
//
// What keys there are is said once, in tables (schema.go): by them files are read, and
// the JSON Schema for editors is made from them.
package config

//go:generate sh -c "go run ../../cmd/fairlead config schema >../../examples/fairlead.schema.json"
