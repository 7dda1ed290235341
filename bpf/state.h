/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * state.h: the state of a connection, its timer and its counts.
 *
 * In direct routing the director sees only what the client sends, so TCP and
 * SCTP follow IPVS's tables for that (ip_vs_proto_tcp.c, ip_vs_proto_sctp.c,
 * INPUT-ONLY).
 */
#ifndef FAIRLEAD_STATE_H
#define FAIRLEAD_STATE_H

#include "conn.h"

/* The states before, in the order of both tables. */
#define FROM_TCP(no, es, ss, sr, fw, tw, cl, cw, la, li, sa)					\
	[STATE_NONE] = no, [STATE_ESTABLISHED] = es, [STATE_SYN_SENT] = ss,			\
	[STATE_SYN_RECV] = sr, [STATE_FIN_WAIT] = fw, [STATE_TIME_WAIT] = tw,			\
	[STATE_CLOSE] = cl, [STATE_CLOSE_WAIT] = cw, [STATE_LAST_ACK] = la,			\
	[STATE_LISTEN] = li, [STATE_SYN_ACK] = sa
#define FROM_SCTP(no, i1, in, cs, cr, cw, co, ce, es, ss, sr, sa, rj, cl)			\
	[STATE_NONE] = no, [STATE_SCTP_INIT1] = i1, [STATE_SCTP_INIT] = in,			\
	[STATE_SCTP_COOKIE_SENT] = cs, [STATE_SCTP_COOKIE_REPLIED] = cr,			\
	[STATE_SCTP_COOKIE_WAIT] = cw, [STATE_SCTP_COOKIE] = co,				\
	[STATE_SCTP_COOKIE_ECHOED] = ce, [STATE_SCTP_ESTABLISHED] = es,				\
	[STATE_SCTP_SHUTDOWN_SENT] = ss, [STATE_SCTP_SHUTDOWN_RECEIVED] = sr,			\
	[STATE_SCTP_SHUTDOWN_ACK_SENT] = sa, [STATE_SCTP_REJECTED] = rj,			\
	[STATE_SCTP_CLOSED] = cl

/* The states after, as the tables write them. */
enum {
	NO = STATE_NONE, ES = STATE_ESTABLISHED, SS = STATE_SYN_SENT, SR = STATE_SYN_RECV,
	FW = STATE_FIN_WAIT, TW = STATE_TIME_WAIT, CL = STATE_CLOSE, CW = STATE_CLOSE_WAIT,
	LA = STATE_LAST_ACK, LI = STATE_LISTEN, SA = STATE_SYN_ACK,

	sI1 = STATE_SCTP_INIT1, sIN = STATE_SCTP_INIT, sCS = STATE_SCTP_COOKIE_SENT,
	sCR = STATE_SCTP_COOKIE_REPLIED, sCW = STATE_SCTP_COOKIE_WAIT, sCO = STATE_SCTP_COOKIE,
	sCE = STATE_SCTP_COOKIE_ECHOED, sES = STATE_SCTP_ESTABLISHED,
	sSS = STATE_SCTP_SHUTDOWN_SENT, sSR = STATE_SCTP_SHUTDOWN_RECEIVED,
	sSA = STATE_SCTP_SHUTDOWN_ACK_SENT, sRJ = STATE_SCTP_REJECTED, sCL = STATE_SCTP_CLOSED,
};

/* By event, then by the state before; what is left out cannot be. */
static const __u8 input_only[EVENTS][STATES] = {
	/*                      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
	[EVENT_SYN] = { FROM_TCP(SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR) },
	[EVENT_FIN] = { FROM_TCP(CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW) },
	[EVENT_ACK] = { FROM_TCP(ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES) },
	[EVENT_RST] = { FROM_TCP(CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL) },
	/* secure_tcp differs in this row only. */
	[EVENT_SYN_SECURE] = { FROM_TCP(SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA) },
	/* A segment with none of the four flags ends the connection soon. */
	[EVENT_NONE] = { [0 ... STATES - 1] = CL },
	[EVENT_UDP] = { [0 ... STATES - 1] = STATE_UDP },

	/*                NO   I1   IN   CS   CR   CW   CO   CE   ES   SS   SR   SA   RJ   CL */
	[EVENT_SCTP_DATA] = {
		FROM_SCTP(sES, sI1, sIN, sCS, sCR, sES, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_INIT] = {
		FROM_SCTP(sI1, sIN, sIN, sIN, sIN, sIN, sCO, sCE, sES, sSS, sSR, sSA, sIN, sIN) },
	[EVENT_SCTP_INIT_ACK] = {
		FROM_SCTP(sCE, sCE, sCE, sCE, sCE, sCE, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_COOKIE_ECHO] = {
		FROM_SCTP(sES, sES, sES, sES, sES, sES, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_COOKIE_ACK] = {
		FROM_SCTP(sES, sI1, sIN, sES, sES, sCW, sES, sES, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN] = {
		FROM_SCTP(sSR, sI1, sIN, sCS, sCR, sCW, sCO, sCE, sSR, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN_ACK] = {
		FROM_SCTP(sCL, sIN, sIN, sCS, sCR, sCW, sCO, sCE, sCL, sCL, sSR, sCL, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN_COMPLETE] = {
		FROM_SCTP(sCL, sCL, sCL, sCL, sCL, sCW, sCO, sCE, sES, sSS, sCL, sCL, sRJ, sCL) },
	[EVENT_SCTP_ERROR] = {
		FROM_SCTP(sCL, sI1, sIN, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_ABORT] = {
		FROM_SCTP(sCL, sCL, sCL, sCL, sCL, sRJ, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL) },
};

/* UDP connections count as inactive all their life, as in IPVS. */
static const __u32 ACTIVE_STATES = 1u << STATE_ESTABLISHED | 1u << STATE_SYN_SENT |
				   1u << STATE_SYN_RECV | 1u << STATE_SYN_ACK |
				   1u << STATE_SCTP_ESTABLISHED;

static __always_inline bool is_active(__u8 state)
{
	return ACTIVE_STATES >> (state & (STATES - 1)) & 1;
}

static __always_inline __u8 next_state(__u8 event, __u8 state)
{
	return input_only[event & (EVENTS - 1)][state & (STATES - 1)];
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
static __always_inline __u8 state_after(const struct packet *pkt, const struct policy *policy,
					__u8 state)
{
	__u8 event = pkt->event;

	if (event == EVENT_SYN && policy->secure)
		event = EVENT_SYN_SECURE;
	return next_state(event, state) & (STATES - 1);
}

/* What a connection that begins with a packet begins with. */
static __always_inline void begin_with(struct birth *birth, const struct packet *pkt,
				       const struct policy *policy)
{
	__u8 state = state_after(pkt, policy, STATE_NONE);

	birth->state = state;
	birth->flags = is_active(state) ? 0 : CONNECTION_INACTIVE;
	if (birth->template != NO_PLACE)
		birth->flags |= CONNECTION_CONTROLLED;
	birth->timeout = policy->timeouts[state];
	birth->bytes = pkt->length;
}

/* What a packet does to its connection: state, timer, counts. */
static __always_inline void update_connection(struct connection *conn, const struct packet *pkt,
					      const struct policy *policy, __u32 now)
{
	__u8 state = state_after(pkt, policy, conn->state);

	if (unlikely(state != conn->state))
		change_state(conn, state);
	conn->expires = now + policy->timeouts[state];
	conn->packets++;
	conn->bytes += pkt->length;
}

/* Of a connection, from either end. */
static __always_inline bool is_abort(const struct packet *pkt)
{
	return pkt->event == EVENT_RST || pkt->event == EVENT_SCTP_ABORT;
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
static __always_inline bool may_be_reused(__u8 state, __s32 reuse_mode)
{
	return state == STATE_TIME_WAIT || state == STATE_CLOSE || state == STATE_SCTP_CLOSED ||
	       (state == STATE_FIN_WAIT && reuse_mode & REUSE_FIN_WAIT);
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
	return reuse_mode && may_be_reused(conn->state, reuse_mode);
}

#endif
