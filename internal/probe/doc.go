// Package probe has a network namespace whose connections reach one chosen real server
// each, by the way that clients' packets take: health checks of virtual addresses are
// made from it. In the host's own namespace they could not be made, for there the
// virtual address may be the host's own.
package probe
