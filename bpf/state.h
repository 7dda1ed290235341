/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * state.h: the state of a connection, its timer and its counts.
 */
#ifndef FAIRLEAD_STATE_H
#define FAIRLEAD_STATE_H

#include "conn.h"
#include "state_table.h"

/* UDP connections count as inactive all their life, as in IPVS. */
static const __u32 ACTIVE_STATES = 1u << STATE_ESTABLISHED | 1u << STATE_SYN_SENT |
				   1u << STATE_SYN_RECV | 1u << STATE_SYN_ACK |
				   1u << STATE_SCTP_ESTABLISHED;

static __always_inline bool is_active(__u8 state)
{
	return ACTIVE_STATES >> (state & (STATES - 1)) & 1;
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
	if (flags & CONNECTION_CONTROLLED && is_established(state))
		assure_template(slot_of(conn));
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

/* The state that a packet moves a connection to. */
static __always_inline __u8 state_after(enum direction direction, const struct packet *pkt,
					const struct policy *policy, __u8 state)
{
	__u8 event = pkt->event;

	if (policy->secure && event <= EVENT_RST)
		event += EVENT_SYN_SECURE;
	return next_state(direction, event, state) & (STATES - 1);
}

/* Whose packets the director sees of connections to a real server. */
static __always_inline enum direction client_of(__u32 server)
{
	const struct real_server *rs = get_server(server);

	return rs && translates(rs) ? FROM_CLIENT : CLIENT_ONLY;
}

/* What a connection that begins with a packet begins with. */
static __always_inline void begin_with(struct birth *birth, const struct packet *pkt,
				       const struct policy *policy)
{
	__u8 state = state_after(client_of(birth->server), pkt, policy, STATE_NONE);

	birth->state = state;
	birth->flags = is_active(state) ? 0 : CONNECTION_INACTIVE;
	if (birth->template != NO_PLACE)
		birth->flags |= CONNECTION_CONTROLLED;
	birth->timeout = policy->timeouts[state];
	birth->bytes = pkt->length;
}

/* What a packet does to the state and the timer of its connection. */
static __always_inline void update_state(struct connection *conn, enum direction direction,
					 const struct packet *pkt, const struct policy *policy,
					 __u32 now)
{
	__u8 state = state_after(direction, pkt, policy, conn->state);

	if (unlikely(state != conn->state))
		change_state(conn, state);
	conn->expires = now + policy->timeouts[state];
}

/* What a client's packet does to its connection: state, timer, counts. */
static __always_inline void update_connection(struct connection *conn, enum direction direction,
					      const struct packet *pkt,
					      const struct policy *policy, __u32 now)
{
	update_state(conn, direction, pkt, policy, now);
	conn->packets++;
	conn->bytes += pkt->length;
}

/* Of a connection, from either end. */
static __always_inline bool is_abort(const struct packet *pkt)
{
	return pkt->event == EVENT_RST || pkt->event == EVENT_SCTP_ABORT;
}

/* Whether nobody has answered the first packet of a connection yet, as far as the
 * director sees. */
static __always_inline bool is_begun(__u8 state)
{
	return state == STATE_SYN_RECV || state == STATE_SCTP_INIT1 || state == STATE_SCTP_INIT;
}

/* Whether a client's first packet comes again, before anybody has answered it. */
static __always_inline bool is_unanswered(const struct packet *pkt, __u8 state)
{
	return pkt->syn && is_begun(state);
}

/* Whether a real server ends a connection at once that was not at its end. */
static __always_inline bool is_refusal(const struct packet *pkt, __u8 state)
{
	return is_abort(pkt) && (is_active(state) || is_begun(state));
}

/* Whether a packet without a connection may begin one, whatever else there is to
 * say against it. */
static __always_inline bool may_begin(const struct packet *pkt, const struct policy *policy)
{
	switch (flow_protocol(&pkt->flow)) {
	case IPPROTO_TCP:
		return !is_abort(pkt) && (pkt->syn || policy->sysctls[SYSCTL_SLOPPY_TCP]);
	case IPPROTO_SCTP:
		return !is_abort(pkt) && (pkt->syn || policy->sysctls[SYSCTL_SLOPPY_SCTP]);
	}
	return true;
}

enum {
	REUSE_FIN_WAIT = 2,	/* bit of conn_reuse_mode */
};

/* Whether a connection is over as far as the client can tell, so that it may use
 * its port for another one (ip_vs_core.c, is_new_conn_expected). */
static __always_inline bool may_be_reused(const struct connection *conn, __s32 reuse_mode)
{
	__u8 state = conn->state;

	return state == STATE_TIME_WAIT || state == STATE_CLOSE || state == STATE_SCTP_CLOSED ||
	       (state == STATE_FIN_WAIT && reuse_mode & REUSE_FIN_WAIT && !is_masqueraded(conn));
}

/* Whether a connection ends because its real server was removed. */
static __always_inline bool is_abandoned(const struct real_server *server,
					 const struct policy *policy)
{
	return server->state != SERVER_LISTED && policy->sysctls[SYSCTL_EXPIRE_NODEST_CONN];
}

/*
 * Whether a connection ends before a packet of it, which then may begin another
 * (ip_vs_core.c, ip_vs_in_hook): a first packet on ports that may be used anew, or
 * while the real server is quiesced or gone, if those are not to be waited for.
 */
static __always_inline bool gives_way(const struct connection *conn, const struct packet *pkt,
				      struct settings *set)
{
	__u32 index = *(const volatile __u32 *)&conn->server;
	struct real_server *server = get_server(index);
	const struct policy *policy;
	__s32 reuse_mode;

	if (!server)
		return false;
	policy = get_policy(server->policy, set);
	if (is_abandoned(server, policy))
		return true;
	if (!pkt->syn)
		return false;
	if (policy->sysctls[SYSCTL_EXPIRE_NODEST_CONN] && !server->weight)
		return true;
	if (conn->flags & CONNECTION_CONTROLLED)
		return false; /* its client is to stay with the server anyway */
	reuse_mode = policy->sysctls[SYSCTL_CONN_REUSE_MODE];
	return reuse_mode && may_be_reused(conn, reuse_mode);
}

#endif
