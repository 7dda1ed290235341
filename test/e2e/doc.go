// Package e2e holds the end-to-end tests: the built program, on real kernel
// network stacks, in the laboratory's namespaces.
package e2e
