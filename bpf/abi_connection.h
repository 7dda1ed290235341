/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* abi_connection.h: the entries of the connection table, and what sweeps them. A part of abi.h. */
#ifndef FAIRLEAD_ABI_CONNECTION_H
#define FAIRLEAD_ABI_CONNECTION_H

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

enum connection_flag {
	CONNECTION_INACTIVE = 1,	/* counted as inactive at its server */
	CONNECTION_ENDED = 2,		/* counted no more */
	CONNECTION_TEMPLATE = 4,	/* no connection but a template */
	CONNECTION_VOID = 8,		/* template: nobody finds it any more */
	CONNECTION_CONTROLLED = 16,	/* a template made it: see bond.h */
	CONNECTION_MASQUERADED = 32,	/* it has an entry for its replies: see reply.h */
	CONNECTION_REPLY = 64,		/* no connection but that entry */
	CONNECTION_FULLNAT = 128,	/* either: the client has a local address there */
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

/* What a template of a service with the engine sip is named by beside its client. */
struct call_id {
	__u8 length;
	__u8 text[CALL_ID_BYTES];	/* and zeros */
};
_Static_assert(sizeof(struct call_id) % sizeof(__u64) == 0, "compared in words");

struct connection_group {
	struct connection slots[GROUP_SLOTS];
};

/* Of the entries of a group: how they hang together; see bond.h. */
struct bond_group {
	__u64 bonds[GROUP_SLOTS];
};
_Static_assert(sizeof(struct bond_group) == 64, "one cache line");

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

#endif
