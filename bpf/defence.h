/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * defence.h: what IPVS gives up when memory runs short, or when it is told to:
 * new connections (drop_packet), and entries that look like those of an attack
 * (drop_entry). Go decides when, once a second.
 */
#ifndef FAIRLEAD_DEFENCE_H
#define FAIRLEAD_DEFENCE_H

#include "state.h"

/* drop_packet: one in drop_rate new connections (ip_vs.h, ip_vs_todrop). */
static __always_inline bool drops_new(struct policy *policy)
{
	__s32 rate = policy->drop_rate;

	if (!rate || __sync_fetch_and_sub(&policy->drop_counter, 1) > 1)
		return false;
	policy->drop_counter = rate;
	return true;
}

/* Of entries with n packets that were idle for long, every n-th goes
 * (ip_vs_conn.c, todrop_entry). */
static __always_inline bool has_its_turn(const struct connection *conn, const struct policy *policy,
					 struct settings *set, __u32 now)
{
	__u32 idle = now + policy->timeouts[conn->state & (STATES - 1)] - conn->expires;
	__u32 packets = conn->packets;
	__u8 *turns;

	if ((__s32)idle < (__s32)(DEFENCE_IDLE_SECONDS * set->hz >> TICK_JIFFIES_SHIFT))
		return false;
	if (!packets || packets >= DEFENCE_PACKETS)
		return false;
	turns = &set->defence_turns[packets];
	if (*turns > 1) {
		--*turns;
		return false;
	}
	*turns = packets;
	return true;
}

/* drop_entry: whether an entry is given up (ip_vs_conn.c, ip_vs_random_dropentry). */
static __always_inline bool is_given_up(const struct connection *conn, const struct policy *policy,
					struct settings *set, __u32 now)
{
	if (!policy->drop_entries)
		return false;
	if (is_template(conn))
		return !conn->state; /* not assured */
	switch (conn->state) {
	case STATE_SYN_RECV:
	case STATE_SYN_ACK:
	case STATE_SCTP_INIT1:
	case STATE_SCTP_INIT:
		return true;
	case STATE_ESTABLISHED:
	case STATE_SCTP_ESTABLISHED:
	case STATE_UDP:
		return has_its_turn(conn, policy, set, now);
	}
	return false;
}

#endif
