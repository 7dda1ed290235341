/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* abi_server.h: real servers, and next hops to them and to clients. A part of abi.h. */
#ifndef FAIRLEAD_ABI_SERVER_H
#define FAIRLEAD_ABI_SERVER_H

struct next_hop {
	__u32 ifindex;		/* 0: there is none */
	__u16 vlan;		/* 0: untagged */
	__u16 mtu;		/* largest IP packet; plane lowers it for a tunnel (path_mtu.h) */
	__u32 destination_source[3]; /* both MAC addresses, as in a frame */
	__u32 local;		/* 1: none, for it is this host */
};
_Static_assert(sizeof(struct next_hop) == 24, "no hidden padding");

/* What the data plane knows of lvs.ForwardingMethod, with its values. */
enum forwarding_method {
	METHOD_MASQUERADING = 0,
	METHOD_DIRECT_ROUTING = 3,
	METHOD_FULLNAT = 5,	/* not in IPVS */
};

/* Of what a slot of real_servers holds; Go. */
enum server_state {
	SERVER_FREE,
	SERVER_LISTED,		/* a real server of its service */
	SERVER_REMOVED,		/* its connections wait for its return */
};

/* Bits of real_server.hop. */
enum server_hop {
	HOP_SECOND = 1,		/* which of the two holds */
	/* The server is listed, its method is direct routing, it has a next hop without a tag, and its service's
	 * timeouts are the director's: what the short way asks for (steady.h), in
	 * one bit. */
	HOP_STEADY = 2,
	HOP_TUNNEL = 4,		/* packets get an outer header, of struct tunnel */
	/* The same as HOP_STEADY, of such a server whose outer header has no
	 * checksum (steady_tunnel.h). */
	HOP_STEADY_TUNNEL = 8,
	/* The same as HOP_STEADY, of a server that is masqueraded, with FullNAT or without. */
	HOP_STEADY_MASQUERADING = 16,
};

enum tunnel_type {
	TUNNEL_IPIP,
	TUNNEL_GUE,
	TUNNEL_GRE,
};

/*
 * What goes around the packets of a tunnelled real server. As with next hops, of
 * two one holds, by the same bit of real_server.hop. It is filled for every
 * server; HOP_TUNNEL says whether it is used.
 */
struct tunnel {
	struct address source;	/* of the outer packet: the director's own; 0: none; Go */
	struct address destination; /* the real server's; Go */
	enum tunnel_type type;	/* lvs.TunnelType; Go */
	__be16 port;		/* gue: of the real server; Go */
	__u8 checksum;		/* lvs.TunnelChecksum; Go */
	__u8 overhead;		/* bytes before the inner packet; Go */
	__u16 sum;		/* of both addresses, one's complement; Go */
	__be16 ethertype;	/* of the outer packet; Go */
	__u32 padding[5];
};
_Static_assert(sizeof(struct tunnel) == 64, "one cache line");

struct tunnel_pair {
	struct tunnel tunnels[2];
};

/* What a real server that is drained is spared. Its weight is 0 as well. */
enum server_drain {
	DRAIN_NONE,
	DRAIN_TEMPLATES,	/* templates send it no connections either */
	DRAIN_EXPIRE,		/* and the sweep ends what it has */
};

struct real_server {
	/* first line: what forwarding reads */
	struct next_hop hops[2];	/* Go */
	enum server_hop hop;	/* Go */
	enum server_state state; /* Go */
	/* Of a tunnel that adds an IPv4 header and nothing else: that header's addresses; else
	 * the first is 0. Go */
	__be32 outer_source;
	__be32 outer_destination;
	/* second line: what scheduling reads */
	__u32 weight;		/* Go */
	__u32 active;		/* connections; plane */
	__u32 inactive;		/* connections; plane */
	__u32 overloaded;	/* 0 or 1; plane, and Go when thresholds change */
	__u32 upper;		/* threshold; Go */
	__u32 lower;		/* threshold; Go */
	__u32 last_weight;	/* the last one that was not 0, for mh; Go */
	__u32 slow_start_since;	/* tick; Go */
	__u32 slow_start_ticks;	/* 0: it has its full share; Go */
	__u32 incarnation;	/* which server this slot holds: goes up, 16 bits; Go */
	enum server_drain drain; /* Go */
	/* what other ways than the short ones ask for */
	__u32 method;		/* enum forwarding_method; Go */
	__u32 policy;		/* its service's; Go */
	__u32 scheduling_padding[3];
	/* third line: whose it is; Go */
	struct service_key service;
	struct address raddr;
	__be16 rport;
	__u16 toa;		/* FullNAT: 1: the client's address goes with a TCP option; Go */
	__u16 identity_padding[2];
	__u32 idle_since;	/* of a removed one, tick; 0: not idle yet */
	__u32 persistent;	/* templates; plane */
	/* What speaks against it, modulo 2^32; plane: see is_unanswered, is_refusal */
	__u32 retries;
	__u32 resets;
};
_Static_assert(sizeof(struct real_server) == 192, "three cache lines");

/* Of one real server; each CPU has its own. Services are the sum of theirs. */
struct counters {
	__u64 connections;
	__u64 in_packets;
	__u64 out_packets;
	__u64 in_bytes;
	__u64 out_bytes;
};

/* Where replies to a client leave: as the kernel's routes and neighbours said a
 * short time ago. Each CPU has its own. */
struct client_hop {
	struct address caddr;
	struct address vaddr;	/* their source: rules of routing may ask */
	struct next_hop hop;
	__u32 until;		/* tick */
	__u32 verdict;		/* FORWARD_REPLY: the hop holds; else why there is none */
};
_Static_assert(sizeof(struct client_hop) == 64, "one cache line");

#endif
