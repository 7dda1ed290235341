// Package vm runs the data plane's tests on the oldest kernel that is
// supported, in a virtual machine: what one kernel's verifier takes, another's
// may refuse.
package vm
