// Package neighbor finds the next hop of each real server, the interface and
// the MAC addresses that carry a packet to it, and keeps it true.
//
// A [Watcher] asks the kernel for the route to every watched address, makes the
// kernel keep the neighbour on that route resolved, and follows routes, rules,
// links, addresses and neighbours through netlink. What it finds is an
// [lvs.NextHop]; what it tells is an [Update].
//
//	outbox       what is to be told: the newest next hop of each address
//	target       a watched address, its path and its hop
//	path         a route and the link it leads over; pure
//	hop          a neighbour that targets need, and its entry in the kernel
//	conn         the netlink sockets, in the namespace of New
//
// The kernel's neighbour entries are marked with [Protocol], so that a Watcher
// knows those of an earlier one again.
package neighbor
