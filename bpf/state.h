/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * state.h: the state of a connection, its timer and its counts.
 *
 * In direct routing the director sees only what the client sends, so TCP
 * follows IPVS's table for that (ip_vs_proto_tcp.c, INPUT-ONLY).
 */
#ifndef FAIRLEAD_STATE_H
#define FAIRLEAD_STATE_H

#include "conn.h"

/* By event, then by the state before. */
static const __u8 input_only[EVENTS][STATES] = {
	[EVENT_SYN] = {
		[STATE_NONE] = STATE_SYN_RECV,
		[STATE_ESTABLISHED] = STATE_ESTABLISHED,
		[STATE_SYN_SENT] = STATE_ESTABLISHED,
		[STATE_SYN_RECV] = STATE_SYN_RECV,
		[STATE_FIN_WAIT] = STATE_SYN_RECV,
		[STATE_TIME_WAIT] = STATE_SYN_RECV,
		[STATE_CLOSE] = STATE_SYN_RECV,
		[STATE_CLOSE_WAIT] = STATE_SYN_RECV,
		[STATE_LAST_ACK] = STATE_SYN_RECV,
		[STATE_LISTEN] = STATE_SYN_RECV,
		[STATE_SYN_ACK] = STATE_SYN_RECV,
	},
	[EVENT_FIN] = {
		[STATE_NONE] = STATE_CLOSE,
		[STATE_ESTABLISHED] = STATE_FIN_WAIT,
		[STATE_SYN_SENT] = STATE_SYN_SENT,
		[STATE_SYN_RECV] = STATE_TIME_WAIT,
		[STATE_FIN_WAIT] = STATE_FIN_WAIT,
		[STATE_TIME_WAIT] = STATE_TIME_WAIT,
		[STATE_CLOSE] = STATE_CLOSE,
		[STATE_CLOSE_WAIT] = STATE_CLOSE_WAIT,
		[STATE_LAST_ACK] = STATE_LAST_ACK,
		[STATE_LISTEN] = STATE_LISTEN,
		[STATE_SYN_ACK] = STATE_TIME_WAIT,
	},
	[EVENT_ACK] = {
		[STATE_NONE] = STATE_ESTABLISHED,
		[STATE_ESTABLISHED] = STATE_ESTABLISHED,
		[STATE_SYN_SENT] = STATE_SYN_SENT,
		[STATE_SYN_RECV] = STATE_ESTABLISHED,
		[STATE_FIN_WAIT] = STATE_FIN_WAIT,
		[STATE_TIME_WAIT] = STATE_TIME_WAIT,
		[STATE_CLOSE] = STATE_CLOSE,
		[STATE_CLOSE_WAIT] = STATE_CLOSE_WAIT,
		[STATE_LAST_ACK] = STATE_CLOSE,
		[STATE_LISTEN] = STATE_LISTEN,
		[STATE_SYN_ACK] = STATE_ESTABLISHED,
	},
	[EVENT_RST] = {
		[STATE_NONE] = STATE_CLOSE,
		[STATE_ESTABLISHED] = STATE_CLOSE,
		[STATE_SYN_SENT] = STATE_CLOSE,
		[STATE_SYN_RECV] = STATE_SYN_RECV,
		[STATE_FIN_WAIT] = STATE_CLOSE,
		[STATE_TIME_WAIT] = STATE_CLOSE,
		[STATE_CLOSE] = STATE_CLOSE,
		[STATE_CLOSE_WAIT] = STATE_CLOSE,
		[STATE_LAST_ACK] = STATE_LAST_ACK,
		[STATE_LISTEN] = STATE_LISTEN,
		[STATE_SYN_ACK] = STATE_CLOSE,
	},
	/* A segment with none of the four flags ends the connection soon. */
	[EVENT_NONE] = { [0 ... STATES - 1] = STATE_CLOSE },
	[EVENT_UDP] = { [0 ... STATES - 1] = STATE_UDP },
};

/* UDP connections count as inactive all their life, as in IPVS. */
static __always_inline bool is_active(__u8 state)
{
	return state == STATE_ESTABLISHED || state == STATE_SYN_SENT ||
	       state == STATE_SYN_RECV || state == STATE_SYN_ACK;
}

static __always_inline __u8 next_state(const struct packet *pkt, __u8 state)
{
	__u32 cell = (pkt->event * STATES + state) & (8 * STATES - 1);

	/* For the verifier; the table ends there. */
	if (unlikely(cell >= EVENTS * STATES))
		return STATE_CLOSE;
	return ((const __u8 *)input_only)[cell];
}

/*
 * Enters a new state, and moves the connection between the server's active and
 * inactive ones where that changes. State and flags share a 32-bit word with
 * the protocol and the distance; who wins the swap of it does the counting.
 */
static __noinline int change_state(struct connection *conn, enum connection_state state)
{
	__u32 *word = state_word(conn);
	__u32 was = *(volatile __u32 *)word;
	/* Of the entry that the word is of, if the swap succeeds. */
	__u32 index = *(volatile __u32 *)&conn->server;
	__u8 flags = was >> 16 & ~CONNECTION_INACTIVE;
	struct real_server *server;
	__u32 is;

	if (!is_active(state))
		flags |= CONNECTION_INACTIVE;
	if (flags & CONNECTION_ENDED)
		return 0;
	is = (was & 0xff0000ff) | (__u32)state << 8 | (__u32)flags << 16;
	if (__sync_val_compare_and_swap(word, was, is) != was)
		return 0;
	if (!((was ^ is) >> 16 & CONNECTION_INACTIVE))
		return 0;
	server = get_server(index);
	if (!server)
		return 0;
	if (flags & CONNECTION_INACTIVE) {
		__sync_fetch_and_sub(&server->active, 1);
		__sync_fetch_and_add(&server->inactive, 1);
	} else {
		__sync_fetch_and_sub(&server->inactive, 1);
		__sync_fetch_and_add(&server->active, 1);
	}
	return 0;
}

/* What a packet does to its connection: state, timer, counts. */
static __always_inline void update_connection(struct connection *conn, const struct packet *pkt,
					      const struct settings *set, __u32 now)
{
	__u8 state = next_state(pkt, conn->state) & (STATES - 1);

	if (unlikely(state != conn->state))
		change_state(conn, state);
	conn->expires = now + set->timeouts[state];
	conn->packets++;
	conn->bytes += pkt->length;
}

/*
 * A SYN on the ports of a connection that is over for sure starts a new one
 * (conn_reuse_mode 1, ip_vs_core.c is_new_conn_expected).
 */
static __always_inline bool is_reused(const struct connection *conn, const struct packet *pkt)
{
	return unlikely(pkt->syn) && (conn->state == STATE_TIME_WAIT || conn->state == STATE_CLOSE);
}

#endif
