/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * state_table.h: the states of connections, by who is seen and what comes
 * (ip_vs_proto_tcp.c, ip_vs_proto_sctp.c). In direct routing the director sees only
 * what the client sends, and guesses the rest (INPUT-ONLY there); in masquerading it
 * sees both (INPUT, OUTPUT).
 */
#ifndef FAIRLEAD_STATE_TABLE_H
#define FAIRLEAD_STATE_TABLE_H

#include "packet.h"

/* Whose packets are seen, and from whom one comes. */
enum direction {
	CLIENT_ONLY,
	FROM_CLIENT,
	FROM_SERVER,
	DIRECTIONS = 4,		/* room to index by two bits */
};

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

/* All has been told by the first fragment. */
#define AS_BEFORE										\
	FROM_TCP(NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA), [STATE_UDP] = STATE_UDP,		\
	[STATE_SCTP_INIT1] = sI1, [STATE_SCTP_INIT] = sIN, [STATE_SCTP_COOKIE_SENT] = sCS,	\
	[STATE_SCTP_COOKIE_REPLIED] = sCR, [STATE_SCTP_COOKIE_WAIT] = sCW,			\
	[STATE_SCTP_COOKIE] = sCO, [STATE_SCTP_COOKIE_ECHOED] = sCE,				\
	[STATE_SCTP_ESTABLISHED] = sES, [STATE_SCTP_SHUTDOWN_SENT] = sSS,			\
	[STATE_SCTP_SHUTDOWN_RECEIVED] = sSR, [STATE_SCTP_SHUTDOWN_ACK_SENT] = sSA,		\
	[STATE_SCTP_REJECTED] = sRJ, [STATE_SCTP_CLOSED] = sCL

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

/* By direction, by event, then by the state before; what is left out cannot be. */
static const __u8 state_table[DIRECTIONS][EVENTS][STATES] = {
	[CLIENT_ONLY] = {
	/*                      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
	[EVENT_SYN] = { FROM_TCP(SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR) },
	[EVENT_FIN] = { FROM_TCP(CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW) },
	[EVENT_ACK] = { FROM_TCP(ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES) },
	[EVENT_RST] = { FROM_TCP(CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL) },
	[EVENT_SYN_SECURE] = { FROM_TCP(SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA) },
	[EVENT_FIN_SECURE] = { FROM_TCP(CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW) },
	[EVENT_ACK_SECURE] = { FROM_TCP(ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES) },
	[EVENT_RST_SECURE] = { FROM_TCP(CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL) },
	/* A segment with none of the four flags ends the connection soon. */
	[EVENT_NONE] = { [0 ... STATES - 1] = CL },
	[EVENT_UDP] = { [0 ... STATES - 1] = STATE_UDP },
	[EVENT_FRAGMENT] = { AS_BEFORE },

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
	},
	[FROM_CLIENT] = {
	/*                      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
	[EVENT_SYN] = { FROM_TCP(SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR) },
	[EVENT_FIN] = { FROM_TCP(CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW) },
	[EVENT_ACK] = { FROM_TCP(ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES) },
	[EVENT_RST] = { FROM_TCP(CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR) },
	[EVENT_SYN_SECURE] = { FROM_TCP(SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA) },
	[EVENT_FIN_SECURE] = { FROM_TCP(CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA) },
	[EVENT_ACK_SECURE] = { FROM_TCP(ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA) },
	[EVENT_RST_SECURE] = { FROM_TCP(CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL) },
	[EVENT_NONE] = { [0 ... STATES - 1] = CL },
	[EVENT_UDP] = { [0 ... STATES - 1] = STATE_UDP },
	[EVENT_FRAGMENT] = { AS_BEFORE },

	/*                NO   I1   IN   CS   CR   CW   CO   CE   ES   SS   SR   SA   RJ   CL */
	[EVENT_SCTP_DATA] = {
		FROM_SCTP(sES, sI1, sIN, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_INIT] = {
		FROM_SCTP(sI1, sIN, sIN, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sIN, sIN) },
	[EVENT_SCTP_INIT_ACK] = {
		FROM_SCTP(sCW, sCW, sCW, sCS, sCR, sCO, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_COOKIE_ECHO] = {
		FROM_SCTP(sCR, sIN, sIN, sCR, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_COOKIE_ACK] = {
		FROM_SCTP(sES, sI1, sIN, sCS, sCR, sCW, sCO, sES, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN] = {
		FROM_SCTP(sSR, sI1, sIN, sCS, sCR, sCW, sCO, sCE, sSR, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN_ACK] = {
		FROM_SCTP(sCL, sIN, sIN, sCS, sCR, sCW, sCO, sCE, sES, sCL, sSR, sCL, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN_COMPLETE] = {
		FROM_SCTP(sCL, sCL, sCL, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sCL, sRJ, sCL) },
	[EVENT_SCTP_ERROR] = {
		FROM_SCTP(sCL, sI1, sIN, sCS, sCR, sCW, sCO, sCL, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_ABORT] = {
		FROM_SCTP(sCL, sCL, sCL, sCL, sCL, sRJ, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL) },
	},
	[FROM_SERVER] = {
	/*                      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
	[EVENT_SYN] = { FROM_TCP(SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR) },
	[EVENT_FIN] = { FROM_TCP(TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW) },
	[EVENT_ACK] = { FROM_TCP(ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES) },
	[EVENT_RST] = { FROM_TCP(CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL) },
	[EVENT_SYN_SECURE] = { FROM_TCP(SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA) },
	[EVENT_FIN_SECURE] = { FROM_TCP(TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW) },
	[EVENT_ACK_SECURE] = { FROM_TCP(ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES) },
	[EVENT_RST_SECURE] = { FROM_TCP(CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL) },
	[EVENT_NONE] = { [0 ... STATES - 1] = CL },
	[EVENT_UDP] = { [0 ... STATES - 1] = STATE_UDP },
	[EVENT_FRAGMENT] = { AS_BEFORE },

	/*                NO   I1   IN   CS   CR   CW   CO   CE   ES   SS   SR   SA   RJ   CL */
	[EVENT_SCTP_DATA] = {
		FROM_SCTP(sES, sI1, sIN, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_INIT] = {
		FROM_SCTP(sCW, sCW, sCW, sCW, sCW, sCW, sCW, sCW, sES, sCW, sCW, sCW, sCW, sCW) },
	[EVENT_SCTP_INIT_ACK] = {
		FROM_SCTP(sCS, sCS, sCS, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_COOKIE_ECHO] = {
		FROM_SCTP(sCE, sCE, sCE, sCE, sCE, sCE, sCE, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_COOKIE_ACK] = {
		FROM_SCTP(sES, sES, sES, sES, sES, sES, sES, sES, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN] = {
		FROM_SCTP(sSS, sSS, sSS, sSS, sSS, sSS, sSS, sSS, sSS, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN_ACK] = {
		FROM_SCTP(sSA, sSA, sSA, sSA, sSA, sCW, sCO, sCE, sES, sSA, sSA, sSA, sRJ, sCL) },
	[EVENT_SCTP_SHUTDOWN_COMPLETE] = {
		FROM_SCTP(sCL, sI1, sIN, sCS, sCR, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_ERROR] = {
		FROM_SCTP(sCL, sCL, sCL, sCL, sCL, sCW, sCO, sCE, sES, sSS, sSR, sSA, sRJ, sCL) },
	[EVENT_SCTP_ABORT] = {
		FROM_SCTP(sCL, sRJ, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL) },
	},
};

static __always_inline __u8 next_state(enum direction direction, __u8 event, __u8 state)
{
	return state_table[direction & (DIRECTIONS - 1)][event & (EVENTS - 1)][state & (STATES - 1)];
}

#endif
