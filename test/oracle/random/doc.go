// Package random makes scenarios for the oracle out of seeds, and makes one that
// two machines answer differently short.
package random
