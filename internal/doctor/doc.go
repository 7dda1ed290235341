// Package doctor examines, from the director, the path that direct routing
// takes: who else answers for a VIP, which real servers accept its packets, which
// neighbours have learnt a wrong MAC address. What is wrong it names with the
// host, the reason and the commands that mend it.
//
// It sends what a neighbour would send: ARP requests and neighbour solicitations,
// single SYNs that it ends with a RST, single echo requests. They come from the
// director's own addresses, but for one SYN a real server, which comes from an
// address of the segment that nobody has: only an unknown client makes a real
// server ask for a MAC address. It never sends two frames within a millisecond.
package doctor
