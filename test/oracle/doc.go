// Package oracle holds the data plane against the kernel's IPVS: what that did
// with tens of thousands of scripted packets is recorded in vectors, and its
// tests play the same packets through the director's program. README.md tells
// where the recordings come from and what they look like.
package oracle
