// Package oracle holds the data plane against the kernel's IPVS: scenarios with
// the kernel's answers, which its tests play on the director's program. README.md
// is the manual.
package oracle
