// Package scenario is the language of the oracle: what is done to a director, what
// is sent through it, what is read out of it, and the answers. ../README.md is its
// manual. Play plays a scenario on anything that is a Machine, and notes the
// answers; two machines that are alike give the same.
package scenario
