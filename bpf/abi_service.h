/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* abi_service.h: virtual services, and what their packets are scheduled with. A part of abi.h. */
#ifndef FAIRLEAD_ABI_SERVICE_H
#define FAIRLEAD_ABI_SERVICE_H

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
	/* Nor this: templates are named by a Call-ID, too (persistence engine sip). */
	FLAG_CALL_ID = 0x400,
};

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

/* Where clients of FullNAT connections come from, for their real servers; Go. */
struct local_address {
	struct address addr;
	__u16 first_port;
	__u16 ports;		/* how many; not 0 */
	__u32 prefix;		/* bits of the prefix that it was told with; for Go */
};
_Static_assert(sizeof(struct local_address) == 24, "no hidden padding");

#endif
