/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule_at_once.h: the choices that most new connections come to, of the schedulers that
 * look at one server or a few: without a call, each of which costs as much as a choice
 * where returns are guarded against speculation. Whoever finds nobody here asks choose().
 */
#ifndef FAIRLEAD_SCHEDULE_AT_ONCE_H
#define FAIRLEAD_SCHEDULE_AT_ONCE_H

#include "schedule.h"

enum {
	NEXT_SERVERS = 4,	/* that wrr looks at, once round or more */
};

/* Moves the cursor on from where it was read; false: another CPU was first. */
static __always_inline bool move_cursor(struct edition *edition, __u64 from, __u64 to)
{
	return __sync_bool_compare_and_swap(&edition->cursor, from, to);
}

static __always_inline int next_rr(struct edition *edition)
{
	__u64 cursor = *(volatile __u64 *)&edition->cursor;
	__u32 position = (__u32)cursor < edition->servers ? (__u32)cursor : 0;
	__u32 index;

	return usable_at(edition, NO_SERVER, position, &index) &&
	       move_cursor(edition, cursor, position + 1) ? (int)index : NO_SERVER;
}

static __always_inline int next_wrr(struct edition *edition)
{
	__u64 cursor = *(volatile __u64 *)&edition->cursor;
	__u32 position = cursor, weight = cursor >> 32;

	for (int i = 0; i < NEXT_SERVERS; i++) {
		const struct real_server *server;
		__u32 index;

		if (position >= edition->servers) {
			position = 0;
			weight = next_weight(edition, weight);
		}
		server = usable_at(edition, NO_SERVER, position++, &index);
		if (server && server->weight >= weight)
			return move_cursor(edition, cursor, wrr_cursor(position, weight)) ?
			       (int)index : NO_SERVER;
	}
	return NO_SERVER;
}

/* The choice, or NO_SERVER if it takes more. */
static __always_inline int choose_at_once(struct edition *edition, const struct flow *flow)
{
	switch (edition->scheduler) {
	case SCHEDULER_RR:
		return edition->servers ? next_rr(edition) : NO_SERVER;
	case SCHEDULER_WRR:
		return edition->wrr_top ? next_wrr(edition) : NO_SERVER;
	case SCHEDULER_DH:
		return server_in(edition, slot_dh(flow), NO_SERVER);
	case SCHEDULER_SH:
		return server_in(edition, slot_sh(edition, flow), NO_SERVER);
	case SCHEDULER_MH:
		return server_in(edition, slot_mh(edition, flow), NO_SERVER);
	default:
		return NO_SERVER;
	}
}

#endif
