// Package scheduler computes what the data plane's schedulers need beforehand:
// the steps of wrr, and where a walk goes on after the list of servers changed.
// It is pure; one file an algorithm.
package scheduler
