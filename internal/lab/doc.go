// Package lab builds a whole LVS-DR network on one machine: a switch, a client, a
// director and real servers, each in a network namespace of its own, with real
// ARP, real neighbour discovery and real kernel TCP. The director is the daemon
// itself, the real servers run a small server that answers with its own name.
//
// A lab lives in a directory of its own: the namespaces as bind mounts, the
// director's run directory, logs, and one JSON file that names the processes. It
// can so be used and taken down by another process than the one that built it.
//
// A [Lab] is the network; [Lab.Demonstrate] plays LVS-DR on it and checks what
// it promises.
package lab
