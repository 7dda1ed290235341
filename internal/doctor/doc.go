// Package doctor examines, from the director, the path that direct routing and
// masquerading take: who else answers for a VIP, which real servers accept its packets, keep
// them, and answer clients, which sizes pass, which neighbours have learnt a wrong
// MAC address, and what on the director itself is in the way. What is wrong it names
// with the host, the reason and the commands that mend it.
//
// It sends what a neighbour, or the director, would send: ARP requests and neighbour
// solicitations, single SYNs that it ends with a RST, empty datagrams, echo requests,
// some with no hops left as traceroute has them. They come from the director's own
// addresses, but for two: one SYN a real server and VIP from an address of the
// segment that nobody has, as only an unknown client makes a real server ask for a
// MAC address; and, if clients are seen to wait for a real server's answer, SYNs in
// the name of up to three of them, as the director would forward them, and stray
// answers to them, which they refuse. It never sends two frames within a millisecond.
package doctor
