/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * abi.h: every struct, enum and limit that the data plane shares with Go.
 *
 * bpf2go generates the Go side from the BTF of these types. So: no unions, no
 * bitfields, no anonymous structs, padding written out and zero. Who writes a
 * field is said beside it: "Go" is the control plane, "plane" the programs.
 */
#ifndef FAIRLEAD_ABI_H
#define FAIRLEAD_ABI_H

#include <linux/types.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "struct address and the flow word are laid out for little endian");

enum abi {
	/* Pinned maps of another version are not taken over. Raise it with
	 * every change of a struct or of what a field means. */
	ABI_VERSION = 4,
};

enum limit {
	/* Slots of a group: 8 x 64 bytes lie inside one page. */
	GROUP_SLOTS = 8,
	GROUP_SLOTS_SHIFT = 3,
	/* Groups that a flow may lie in. In a table two thirds full, one group
	 * in four has no room; sixteen in a row: one flow in 10^9. */
	PROBE_GROUPS = 16,
	PROBE_SLOTS = GROUP_SLOTS * PROBE_GROUPS,
	/* Per-CPU counters make this the dearest limit: 40 bytes x CPUs. */
	MAX_SERVERS = 16384,
	MAX_SERVICES = 4096,
	/* Places where services are looked for, and how many one may be looked for
	 * at. With at most one place in four taken, and a hash with secret keys, more
	 * than four are hardly ever needed. */
	SERVICE_PLACES_SHIFT = 14,
	SERVICE_PLACES = 1 << SERVICE_PLACES_SHIFT,
	SERVICE_PROBES = 64,
	/* Each service holds one; as many again wait until no packet can be
	 * at them any more. */
	MAX_EDITIONS = 2 * MAX_SERVICES,
	/* Slots for all server lists, old ones and new ones together. */
	MAX_LIST_SLOTS = 1 << 20,
	/* Slots of the tables of dh and sh, and of mh: the kernel's, as Debian and
	 * others build it (IP_VS_DH_TAB_BITS, IP_VS_SH_TAB_BITS, IP_VS_MH_TAB_INDEX;
	 * Kconfig's defaults). */
	HASH_TABLE_BITS = 8,
	HASH_TABLE_SLOTS = 1 << HASH_TABLE_BITS,
	MAGLEV_TABLE_SLOTS = 4093,
	TABLE_LINE_SLOTS = 32,
	/* Lines for all tables: 2048 of mh, or 32768 of dh and sh. */
	MAX_TABLE_LINES = 1 << 18,
	/* Servers that lblcr remembers for an address. */
	CACHE_SERVERS = 28,
	/* Addresses that lblc and lblcr remember, of all services. */
	MAX_CACHE_ENTRIES = 1 << 17,
	/* Servers of one service; bounds every walk of a list. */
	MAX_LIST = 4096,
	/* Other directors that were named. */
	MAX_PEERS = 256,
	/* What those are known by, and real servers beside a local one. */
	MAX_PEER_MACS = MAX_SERVERS + MAX_PEERS,
	/* Rules that mark packets. A packet without a connection is compared with
	 * them one after the other: a few nanoseconds each. */
	MAX_MARK_RULES = 256,
	/* Interfaces are found by index modulo this. */
	MAX_INTERFACES = 4096,
	/* IPv6 extension headers before the upper layer (RFC 8200 allows more,
	 * nobody sends them). */
	MAX_EXTENSION_HEADERS = 8,
	/* Groups that one run of the sweeper looks at: about a millisecond. The
	 * entries of one run fit in sixteen bits. */
	SWEEP_GROUPS = 4096,
	/* In a second, the defence looks at one group of so many. */
	DEFENCE_SHARE = 32,
	/* Entries with fewer packets than this may be given up in defence. */
	DEFENCE_PACKETS = 9,
	DEFENCE_IDLE_SECONDS = 60,
	/* In the protocol of a template: no packet's flow is ever a template's. */
	TEMPLATE_PROTOCOL = 0x80,
	/* How much longer a template lives that runs out before its connections. */
	TEMPLATE_RETRY_SECONDS = 60,
	/* Clients whose next hops are kept. */
	MAX_CLIENT_HOPS = 4096,
	/* One tick of a connection's clock is four jiffies: a 32-bit count of
	 * them reaches over the longest timeout, 31 days, on both sides of now
	 * with any HZ. */
	TICK_JIFFIES_SHIFT = 2,
};

/* How a packet leaves the data plane. verdict.go tells each one's kind and
 * meaning to people, in this order. */
enum verdict {
	CONTINUE,		/* not a way out: the next stage goes on */

	/* to the host, untouched */
	PASS_NO_SERVICES,	/* no virtual service is configured */
	PASS_OTHER_HOST,	/* MAC address is not this interface's */
	PASS_NOT_IP,
	PASS_PROTOCOL,		/* neither TCP, UDP, SCTP nor ICMP */
	PASS_ICMP,		/* about no connection */
	PASS_FRAGMENT,
	PASS_MALFORMED,
	PASS_NO_SERVICE,
	PASS_NO_CONNECTION,	/* TCP without SYN, SCTP without INIT, nothing known of it */
	PASS_FTP,		/* IPVS leaves it to the host */
	PASS_PEER,		/* another director forwarded it to this host */
	PASS_LOCAL,		/* its real server is this host */

	/* to a real server */
	FORWARD,
	FORWARD_NO_ENTRY,	/* the table had no room: by hash */
	FORWARD_ICMP,		/* an error about a connection */

	/* from a real server to its client */
	FORWARD_REPLY,		/* masquerading: with the virtual address again */

	/* answered with ICMP */
	ANSWER_NO_SERVER,	/* port unreachable */
	ANSWER_TTL,		/* time exceeded */
	ANSWER_TOO_BIG,		/* fragmentation needed, packet too big */

	/* dropped */
	DROP_RATE_LIMIT,	/* would have been an ICMP answer */
	DROP_TOO_BIG,		/* IPv4 that may be fragmented */
	DROP_SERVER_REMOVED,	/* as IPVS: until the server is back */
	DROP_NO_NEXT_HOP,
	DROP_DEFENCE,		/* drop_packet: would have been a new connection */
	DROP_ICMP_CHECKSUM,	/* of an error about a connection; IPv4 */
	DROP_ICMP_ERROR,	/* nobody is told what is wrong with an error */
	DROP_NO_ROOM,		/* masquerading needs an entry for the way back */
	DROP_NO_WAY_BACK,	/* of a reply: no route to the client */

	BUG_MAP,		/* a look-up that cannot miss missed */
	BUG_ADJUST,		/* the kernel refused to move the frame's ends */
	VERDICTS,
};

enum scheduler {
	SCHEDULER_NONE,
	SCHEDULER_RR,
	SCHEDULER_WRR,
	SCHEDULER_LC,
	SCHEDULER_WLC,
	SCHEDULER_SED,
	SCHEDULER_NQ,
	SCHEDULER_FO,
	SCHEDULER_OVF,
	SCHEDULER_TWOS,
	SCHEDULER_DH,
	SCHEDULER_SH,
	SCHEDULER_MH,
	SCHEDULER_LBLC,
	SCHEDULER_LBLCR,
};

/* What sh and mh make of the flags of a service (lvs.SchedulerFlags). */
enum scheduler_flag {
	FLAG_FALLBACK = 1,	/* another server in place of one that is not usable */
	FLAG_PORT = 2,		/* the client's port counts */
	FLAG_STABLE = 4,	/* mh: the order of the list does not count; for Go */
	/* Not the scheduler's: each datagram is scheduled by itself. */
	FLAG_ONE_PACKET = 0x100,
	/* Nor is this: connections may need a second entry, for the way back. */
	FLAG_MASQUERADING = 0x200,
};

/* The TCP states are the kernel's (include/net/ip_vs.h), and so is the order of
 * SCTP's; NONE is common to all protocols. */
enum connection_state {
	STATE_NONE,
	STATE_ESTABLISHED,
	STATE_SYN_SENT,
	STATE_SYN_RECV,
	STATE_FIN_WAIT,
	STATE_TIME_WAIT,
	STATE_CLOSE,
	STATE_CLOSE_WAIT,
	STATE_LAST_ACK,
	STATE_LISTEN,
	STATE_SYN_ACK,
	STATE_UDP,
	STATE_SCTP_INIT1 = 16,
	STATE_SCTP_INIT,
	STATE_SCTP_COOKIE_SENT,
	STATE_SCTP_COOKIE_REPLIED,
	STATE_SCTP_COOKIE_WAIT,
	STATE_SCTP_COOKIE,
	STATE_SCTP_COOKIE_ECHOED,
	STATE_SCTP_ESTABLISHED,
	STATE_SCTP_SHUTDOWN_SENT,
	STATE_SCTP_SHUTDOWN_RECEIVED,
	STATE_SCTP_SHUTDOWN_ACK_SENT,
	STATE_SCTP_REJECTED,
	STATE_SCTP_CLOSED,
	STATES = 32,		/* room to index by five bits */
};

/* Values under net.ipv4.vs; nothing else has these names. */
enum sysctl {
	SYSCTL_CONN_REUSE_MODE,
	SYSCTL_EXPIRE_NODEST_CONN,
	SYSCTL_EXPIRE_QUIESCENT_TEMPLATE,
	SYSCTL_SLOPPY_TCP,
	SYSCTL_SLOPPY_SCTP,
	SYSCTL_DROP_ENTRY,
	SYSCTL_DROP_PACKET,
	SYSCTL_AM_DROPRATE,
	SYSCTL_SECURE_TCP,
	SYSCTL_AMEMTHRESH,
	SYSCTL_LBLC_EXPIRATION,
	SYSCTL_LBLCR_EXPIRATION,
	SYSCTL_SLOW_START,
	SYSCTL_SCHEDULE_ICMP,
	SYSCTL_MSS_CLAMP,
	SYSCTLS = 16,		/* room for more in the same layout */
};

/*
 * How connections behave: those of the whole director (in `settings`), or of one
 * service that has values of its own (in `policies`, with the director's in place
 * of those that it has not).
 */
struct policy {
	__u32 timeouts[STATES];	/* ticks, by enum connection_state; Go */
	__s32 sysctls[SYSCTLS];	/* by enum sysctl, as they were set; Go */
	/* What the modes of defence come to at the moment; Go. */
	__u32 secure;		/* secure_tcp */
	__u32 drop_entries;	/* drop_entry */
	__s32 drop_rate;	/* drop_packet: one of so many; 0: none */
	__s32 drop_counter;	/* until the next one is dropped; plane */
	/* Which values are the service's own, one bit each; Go. */
	__u32 own_timeouts;
	__u32 own_sysctls;
	__u32 reserved[10];
};
_Static_assert(sizeof(struct policy) == 256, "four cache lines");

/* An IPv6 address as in the header; IPv4 is mapped (::ffff:a.b.c.d). */
struct address {
	__u64 high;
	__u64 low;
};

enum connection_flag {
	CONNECTION_INACTIVE = 1,	/* counted as inactive at its server */
	CONNECTION_ENDED = 2,		/* counted no more */
	CONNECTION_TEMPLATE = 4,	/* no connection but a template */
	CONNECTION_VOID = 8,		/* template: nobody finds it any more */
	CONNECTION_CONTROLLED = 16,	/* a template made it: see bond.h */
	CONNECTION_MASQUERADED = 32,	/* it has an entry for its replies: see reply.h */
	CONNECTION_REPLY = 64,		/* no connection but that entry */
};

/*
 * Low bits of connection.control: what the slot is. Only who moved it to
 * CLAIMED may move it on. Above them a generation, which tells a reader that
 * the entry that it looked at is no longer the same; above that the number of
 * entries that lie further along because this slot was taken (see conn.h).
 */
enum control {
	CONTROL_FREE = 0,
	CONTROL_CLAIMED = 1,
	CONTROL_LIVE = 2,
	CONTROL_STATUS = 3,
	CONTROL_GENERATION_ONE = 1 << 2,
	CONTROL_GENERATION = 0x3fff << 2,
	CONTROL_PASSED_ONE = 1 << 16,
	CONTROL_PASSED_SHIFT = 16,
};

/* One entry of the connection table: one cache line. */
struct connection {
	struct address caddr;
	struct address vaddr;
	__be16 cport;
	__be16 vport;
	__u8 protocol;
	__u8 state;		/* enum connection_state */
	__u8 flags;		/* enum connection_flag */
	__u8 distance;		/* slots between its home and where it lies */
	enum control control;
	__u32 expires;		/* tick */
	__u32 server;		/* index into real_servers */
	__u32 packets;		/* from the client, modulo 2^32 */
	__u64 bytes;		/* of IP, from the client */
};
_Static_assert(sizeof(struct connection) == 64, "one cache line");

struct connection_group {
	struct connection slots[GROUP_SLOTS];
};

/* Of the entries of a group: how they hang together; see bond.h. */
struct bond_group {
	__u64 bonds[GROUP_SLOTS];
};
_Static_assert(sizeof(struct bond_group) == 64, "one cache line");

/* The service of a firewall mark has protocol 0, port 0, and the mark as its
 * address: ::ffff:0.0.0.7 for IPv4, 0:7:: for IPv6 (as IPVS's templates). */
struct service_key {
	struct address vaddr;
	__be16 vport;
	__u8 protocol;
	__u8 padding[5];
};
_Static_assert(sizeof(struct service_key) == 24, "no hidden padding in a hash key");

/* Where a service is found: at the place that the hash of its key tells, or at one
 * after that if others are there. A place that nobody ever was at ends the search. */
struct service_place {
	__u32 service;		/* index into service_table + 1; 0: nobody; Go */
	__u32 padding;
};

enum {
	/* In place of a service: one went, and the search goes on. */
	SERVICE_WENT = 0xffffffff,
};

/* One position of a server list. The kernel rounds the elements of an array up
 * to eight bytes, so this is as small as they get. */
struct list_slot {
	__u32 server;		/* index into real_servers */
	__u32 padding;
};

/* A piece of the table of dh, sh or mh: one cache line. */
struct table_line {
	__u16 servers[TABLE_LINE_SLOTS]; /* indexes into real_servers */
};
_Static_assert(sizeof(struct table_line) == 64, "one cache line");

/* What lblc and lblcr know of a virtual address. */
struct cache_key {
	struct address vaddr;
	__u32 cache;		/* edition.cache */
	__u32 padding;
};

struct cache_entry {
	__u32 last_used;	/* tick; plane */
	__u32 last_changed;	/* tick: when a server came or went; plane */
	__u32 busy;		/* 1: a CPU changes the servers; plane */
	__u32 size;		/* lblcr: how many they are; plane */
	__u32 servers[CACHE_SERVERS]; /* oldest first: incarnation << 16 | index
				 * into real_servers; lblc has the first alone; plane */
};
_Static_assert(sizeof(struct cache_entry) == 128, "no hidden padding");

/*
 * What the data plane needs of a service, as one whole. Go never changes the
 * one that holds: it fills another and turns service.edition to it, so that no
 * packet meets half a change.
 */
struct edition {
	__u32 list;		/* first slot of the server list in `lists` */
	__u32 servers;		/* its length */
	enum scheduler scheduler;
	__u32 wrr_step;		/* greatest common divisor of the weights */
	__u32 wrr_top;		/* where the current weight starts anew */
	enum scheduler_flag flags;
	__u64 cursor;		/* plane: rr, wrr: low half, the position where
				 * the walk goes on; high half, current weight */
	__u32 table;		/* dh, sh, mh: first line in `tables` */
	__u32 table_lines;	/* 0: nobody can be chosen */
	__u32 cache;		/* lblc, lblcr: whose entries of `caches` are its */
	__u32 persistence;	/* ticks that a template lives; 0: there are none; Go */
	struct address client_mask; /* what of a client's address names a template; Go */
};
_Static_assert(sizeof(struct edition) == 64, "one cache line");

struct service {
	__u32 edition;		/* which one holds: index into editions; Go */
	__u32 used;		/* 0: this slot is free; Go */
	__u64 sequence;		/* order in which services were added; Go */
	struct service_key key;	/* Go */
	__u32 overflow_until;	/* tick; plane: until then, a packet without an
				 * entry may be of a connection that found no
				 * room, and is forwarded by hash */
	__u32 policy;		/* index into policies; 0: the director's; Go */
	__u32 padding[4];
};
_Static_assert(sizeof(struct service) == 64, "one cache line");

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
	__u32 padding[6];
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
	__u32 method;		/* enum forwarding_method; Go */
	__u32 policy;		/* its service's; Go */
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
	__u32 scheduling_padding[5];
	/* third line: whose it is; Go */
	struct service_key service;
	struct address raddr;
	__be16 rport;
	__u16 identity_padding[3];
	__u32 idle_since;	/* of a removed one, tick; 0: not idle yet */
	__u32 persistent;	/* templates; plane */
	__u64 reserved;
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

enum xdp_mode {
	XDP_MODE_NATIVE = 1,
	XDP_MODE_GENERIC = 2,
	XDP_MODE_TC = 3,	/* not XDP: struct interface says how the program came there */
};

/* One interface that the program is attached to, at its index modulo
 * MAX_INTERFACES; Go. */
struct interface {
	__u32 ifindex;		/* 0: none here */
	__u8 mac[6];
	__u16 padding;
	__u32 redirect;		/* 1: XDP_TX does not reach the wire (veth) */
	struct address address6; /* source of ICMPv6 time exceeded; or zero */
	enum xdp_mode mode;	/* for people */
	__be32 address4;	/* source of ICMP about a reply; or 0 */
	__u32 mtu;
	__u32 tail_padding[5];
};
_Static_assert(sizeof(struct interface) == 64 && __builtin_offsetof(struct interface, mode) == 32,
	       "one cache line, no hidden padding");

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

/* What of the table a sweep ends. A template's end is known when those that it
 * controlled have ended. */
enum sweep_part {
	SWEEP_CONNECTIONS,
	SWEEP_TEMPLATES,
};

/* What the sweeper is given. */
struct sweep_range {
	__u32 first;		/* group */
	/* How many of DEFENCE_SHARE groups are looked through for entries to
	 * give up (drop_entry). */
	__u32 defended;
	/* 1: connections of removed servers end where expire_nodest_conn says so. */
	__u32 abandoned;
	enum sweep_part part;
};

/* Which packets carry a firewall mark: those of which all that is said holds.
 * Addresses are compared where the mask has ones; Go. */
struct mark_rule {
	struct address caddr;
	struct address caddr_mask;
	struct address vaddr;
	struct address vaddr_mask;
	__u16 cport_first;	/* both ends belong to the range */
	__u16 cport_last;
	__u16 vport_first;
	__u16 vport_last;
	__u32 mark;
	__u8 protocol;		/* 0: any */
	__u8 padding[3];
};
_Static_assert(sizeof(struct mark_rule) == 80, "no hidden padding");

/* What the clock program tells. */
struct clock_reading {
	__u64 jiffies;
	__u64 ns;		/* CLOCK_MONOTONIC at the same moment */
};

struct settings {
	__u64 hash_keys[5];	/* random, odd; Go, once */
	__u32 group_mask;	/* groups of the connection table - 1; Go, once */
	__u32 group_shift;	/* 64 - binary logarithm of the groups; Go, once */
	__u32 services;		/* how many; 0 passes everything; Go */
	__u32 ftp_services;	/* of these, TCP with port 21; Go */
	__u32 any_port_services; /* of these, with port 0; Go */
	__u32 clock_offset;	/* ticks, added to the clock; Go, for tests */
	__u32 hz;		/* jiffies in a second; Go, once */
	enum abi abi;		/* of who made the maps; Go, once */
	enum limit probe_slots;	/* the same */
	__u32 icmp_interval;	/* ns between answers in the long run; 0: no limit; Go */
	__u32 icmp_burst;	/* answers at once; Go */
	__u32 first_unprivileged_port; /* IPVS looks for FTP from here on; Go */
	__u64 icmp_debt;	/* ns of the coarse clock until which answers are
				 * spent; plane */
	__u32 peer_filter;	/* bit n: the MAC address of a peer has n in the
				 * lower bits of its last byte; 0: no peers; Go */
	__u8 defence_turns[DEFENCE_PACKETS]; /* drop_entry: by the packets of an entry, how
				 * many such ones stay until one goes; plane */
	__u8 defence_padding[3];
	__u32 mark_rules;	/* upper half: the first one that holds, in mark_rules;
				 * lower half: how many; Go */
	__u32 reserved[3];
	struct policy policy;	/* of the whole director */
};
_Static_assert(sizeof(struct settings) == 384 && __builtin_offsetof(struct settings, policy) == 128,
	       "no hidden padding, timeouts begin a cache line");

#endif
