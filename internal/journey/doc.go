// Package journey turns frames that were captured on the wires of several hosts
// into the told journey of one connection: every hop in order, with its MAC and
// IP addresses, ARP and neighbour discovery included.
//
// [Capture] is the only part that touches the system. All the others are
// functions of a slice of [Frame].
package journey
