// Package director is the daemon on a director: it joins the data plane, the
// next hops and the API.
//
// A [Director] carries out what the API asks for: it checks, changes the plane
// and keeps the next hop of every real server watched. [Run] is the daemon
// around it: lock, bpffs, start, sweeps, rates, stop. [Unload] takes away what a
// daemon leaves behind on purpose, so that forwarding goes on without it.
package director
