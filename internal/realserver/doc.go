// Package realserver makes a host a real server of LVS direct routing: it sets
// the host up, proves it, keeps it so, and undoes it to the byte.
//
// A real server accepts packets for the VIP without anyone learning from it where
// the VIP is. It needs, in this order:
//
//  1. arp_ignore=1: ARP is answered for addresses of the interface that was asked,
//     and the VIP is not one of them;
//  2. arp_announce=2: ARP requests name an address of the interface as the sender,
//     not the VIP that the packet to be sent comes from;
//  3. rp_filter other than strict, on an interface that packets of clients come in
//     on while the default route leaves by another;
//  4. the VIP on lo, with the local route that the kernel makes for it.
//
// The sysctls come before the VIP: in between, the host would answer for it, and
// whoever asked would keep the wrong MAC address for minutes or hours.
//
// accept_local is left alone. Direct routing changes no IP address, so that a packet
// with the source of a local address could only be one that the host sent itself,
// and such packets never reach the wire. Policy that other forwarding methods need
// is not this package's.
//
// IPv4: the VIP has the scope host. The kernel never takes an address of that scope
// as the source of a packet to another host, nor as the sender of an ARP request
// (inet_select_addr in net/ipv4/devinet.c); one of scope global on lo it takes as
// soon as the outgoing interface has no address of its own. Replies are not touched
// by it: their source is the destination of what they answer.
//
// IPv6: the kernel answers neighbour solicitations only for addresses of the
// interface that they come in on, joins the VIP's solicited-node group on lo alone,
// and takes the source of its own solicitations from the outgoing interface
// (ndisc_recv_ns and ndisc_solicit in net/ipv6/ndisc.c). So there is no ARP problem
// to solve, unless someone has made a proxy entry for the VIP, which is refused. The
// VIP is added without duplicate address detection, and deprecated (a preferred
// lifetime of 0): never the source of what the host begins itself while it has
// another address. Replies come from it all the same.
//
//	spec        what the host is to be; pure
//	snapshot    what the host is, read through netlink and /proc/sys
//	point       spec against snapshot: what is right and wrong, and why; pure
//	change      one step, its command in the shell, and the way back
//	state       what the host was before, in the run directory
//	persist     the files that make it survive a reboot
//	RealServer  up, check, down, run
//
// Everything works in the network namespace of the calling thread.
package realserver
