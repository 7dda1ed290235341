// Package reconcile finds the way from what a director has to what is wanted of it:
// desired against loaded, and out come ordered steps. It changes nothing itself.
package reconcile
