// Package dataplane loads, attaches, pins, fills and reads the XDP program of a
// director. It is the only package that imports cilium/ebpf, and holds no policy:
// what is allowed is decided by its callers.
package dataplane
