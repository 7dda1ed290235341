/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * packet_event.h: what a packet of TCP or SCTP means to the state of its connection, by its
 * flags or its chunks.
 */
#ifndef FAIRLEAD_PACKET_EVENT_H
#define FAIRLEAD_PACKET_EVENT_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include "verifier.h"

enum {
	TCP_FLAGS_OFFSET = 13,
	/* Behind a longer chunk nothing is looked for. A bound for the verifier. */
	MAX_SCTP_CHUNK = 0x3ffc,
};

/* What a packet means to the state of its connection. Of several TCP flags one
 * counts: RST, SYN, FIN, ACK, in this order (ip_vs_proto_tcp.c). */
enum event {
	EVENT_SYN,
	EVENT_FIN,
	EVENT_ACK,
	EVENT_RST,
	EVENT_NONE,		/* TCP with none of these flags */
	EVENT_UDP,
	EVENT_SYN_SECURE,	/* the first four in the tables of secure_tcp */
	EVENT_FIN_SECURE,
	EVENT_ACK_SECURE,
	EVENT_RST_SECURE,
	EVENT_SCTP_DATA,	/* and all chunks that have no event of their own */
	EVENT_SCTP_INIT,
	EVENT_SCTP_INIT_ACK,
	EVENT_SCTP_COOKIE_ECHO,
	EVENT_SCTP_COOKIE_ACK,
	EVENT_SCTP_SHUTDOWN,
	EVENT_SCTP_SHUTDOWN_ACK,
	EVENT_SCTP_SHUTDOWN_COMPLETE,
	EVENT_SCTP_ERROR,
	EVENT_SCTP_ABORT,
	EVENT_QUOTED,		/* of ICMP: there was a packet */
	EVENT_FRAGMENT,		/* not the first of a datagram: tells nothing of its own */
	EVENTS = 32,		/* room to index by five bits */
};

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

/* By the lower five flags of a segment: one load in place of four branches. */
static const __u8 tcp_events[32] = {
#define ACK_OR(flags, without) [flags] = without, [(flags) | 8] = without, \
	[(flags) | TCP_ACK] = (without) == EVENT_NONE ? EVENT_ACK : (without), \
	[(flags) | TCP_ACK | 8] = (without) == EVENT_NONE ? EVENT_ACK : (without)
	ACK_OR(0, EVENT_NONE),
	ACK_OR(TCP_FIN, EVENT_FIN),
	ACK_OR(TCP_SYN, EVENT_SYN),
	ACK_OR(TCP_SYN | TCP_FIN, EVENT_SYN),
	ACK_OR(TCP_RST, EVENT_RST),
	ACK_OR(TCP_RST | TCP_FIN, EVENT_RST),
	ACK_OR(TCP_RST | TCP_SYN, EVENT_RST),
	ACK_OR(TCP_RST | TCP_SYN | TCP_FIN, EVENT_RST),
#undef ACK_OR
};

/* Types of SCTP chunks (RFC 9260, 3.2). */
enum sctp_chunk_type {
	CHUNK_DATA,
	CHUNK_INIT,
	CHUNK_INIT_ACK,
	CHUNK_SACK,
	CHUNK_HEARTBEAT,
	CHUNK_HEARTBEAT_ACK,
	CHUNK_ABORT,
	CHUNK_SHUTDOWN,
	CHUNK_SHUTDOWN_ACK,
	CHUNK_ERROR,
	CHUNK_COOKIE_ECHO,
	CHUNK_COOKIE_ACK,
	CHUNK_ECNE,
	CHUNK_CWR,
	CHUNK_SHUTDOWN_COMPLETE,
	CHUNK_TYPES,
};

static const __u8 sctp_events[CHUNK_TYPES] = {
	[CHUNK_DATA] = EVENT_SCTP_DATA,
	[CHUNK_SACK ... CHUNK_HEARTBEAT_ACK] = EVENT_SCTP_DATA,
	[CHUNK_ECNE ... CHUNK_CWR] = EVENT_SCTP_DATA,
	[CHUNK_INIT] = EVENT_SCTP_INIT,
	[CHUNK_INIT_ACK] = EVENT_SCTP_INIT_ACK,
	[CHUNK_ABORT] = EVENT_SCTP_ABORT,
	[CHUNK_SHUTDOWN] = EVENT_SCTP_SHUTDOWN,
	[CHUNK_SHUTDOWN_ACK] = EVENT_SCTP_SHUTDOWN_ACK,
	[CHUNK_ERROR] = EVENT_SCTP_ERROR,
	[CHUNK_COOKIE_ECHO] = EVENT_SCTP_COOKIE_ECHO,
	[CHUNK_COOKIE_ACK] = EVENT_SCTP_COOKIE_ACK,
	[CHUNK_SHUTDOWN_COMPLETE] = EVENT_SCTP_SHUTDOWN_COMPLETE,
};

struct sctp_chunk {
	__u8 type;
	__u8 flags;
	__be16 length;		/* of the chunk with this header, without padding */
};

/* An SCTP packet up to its first chunk, without which it is none. */
struct sctp_header {
	__be16 source;
	__be16 dest;
	__be32 tag;
	__le32 checksum;
	struct sctp_chunk first;
};

/* The chunk that counts is the first; but a cookie may be followed by ABORT
 * (ip_vs_proto_sctp.c, set_sctp_state). */
static __always_inline __u8 sctp_event(const struct sctp_header *sctp, const void *end, __u32 room)
{
	__u8 type = sctp->first.type;
	const struct sctp_chunk *next;
	__u32 length;

	if (type == CHUNK_COOKIE_ECHO || type == CHUNK_COOKIE_ACK) {
		length = wire16(sctp->first.length);
		if (length < sizeof(*next) || length > MAX_SCTP_CHUNK)
			return sctp_events[type];
		length = (length + 3) & ~3;
		next = (const void *)&sctp->first + length;
		if ((const void *)(next + 1) <= end && sizeof(*sctp) + length <= room &&
		    next->type == CHUNK_ABORT)
			return EVENT_SCTP_ABORT;
	}
	return type < CHUNK_TYPES ? sctp_events[type] : EVENT_SCTP_DATA;
}

#endif
