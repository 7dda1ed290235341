// Package e2e holds the end-to-end tests: the built program, on real kernel
// network stacks, in the laboratory's namespaces.
//
// Tests that wait most of their time, for what does not come or for intervals to pass,
// are parallel. Those that count what is lost, or put a machine's whole power to use,
// are not.
package e2e
