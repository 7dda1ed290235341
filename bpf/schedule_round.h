/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule_round.h: rr and wrr, which take turns. A cursor tells where the walk
 * goes on (ip_vs_rr.c, ip_vs_wrr.c).
 */
#ifndef FAIRLEAD_SCHEDULE_ROUND_H
#define FAIRLEAD_SCHEDULE_ROUND_H

#include "schedule_walk.h"

enum {
	CURSOR_TRIES = 4,	/* packets of other CPUs may move the cursor first */
};

/* --- rr ----------------------------------------------------------------- */

/* From the last choice on, once round. */
__noinline int choose_rr(struct edition *edition, int excluded)
{
	if (!edition || !edition->servers)
		return NO_SERVER;
	unrolled_for (int i = 0; i < CURSOR_TRIES; i++) {
		__u64 cursor = *(volatile __u64 *)&edition->cursor;
		struct walk walk = new_walk(edition, excluded);

		walk.first = (__u32)cursor < edition->servers ? (__u32)cursor : 0;
		if (!visit_usable(0, &walk))	/* nearly always the next one will do */
			walk_servers(&walk, edition->servers, visit_usable);
		if (walk.server == NO_SERVER)
			return NO_SERVER;
		if (i == CURSOR_TRIES - 1 ||
		    __sync_bool_compare_and_swap(&edition->cursor, cursor, walk.found + 1))
			return walk.server;
	}
	return NO_SERVER;
}

/* --- wrr ---------------------------------------------------------------- */

static int visit_weight(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	struct real_server *server;
	__u32 index;

	server = usable_at(walk->edition, walk->excluded, walk->first + i, &index);
	if (!server)
		return 0;
	if (server->weight > walk->highest)
		walk->highest = server->weight;
	if (server->weight < walk->least_weight)
		return 0;
	walk->server = index;
	walk->found = walk->first + i;
	return 1;
}

static __always_inline __u64 wrr_cursor(__u32 position, __u32 weight)
{
	return (__u64)weight << 32 | position;
}

/*
 * Where the kernel's cursor rests when nothing is usable: at the head of the
 * list with the weight at its top, unless the walk began in the last round,
 * that of weights up to one step, behind the head: then it goes round once
 * more and stops where it began.
 */
static __always_inline __u64 wrr_exhausted(const struct edition *edition, __u32 position,
					   __u32 weight)
{
	if (!position || weight > edition->wrr_step)
		return wrr_cursor(0, edition->wrr_top);
	if (edition->wrr_top <= edition->wrr_step)
		return wrr_cursor(position, edition->wrr_top);
	return wrr_cursor(position, 1);
}

/* The weight of the next round. */
static __always_inline __u32 next_weight(const struct edition *edition, __u32 weight)
{
	return weight > edition->wrr_step ? weight - edition->wrr_step : edition->wrr_top;
}

/*
 * Goes round the list, taking servers whose weight reaches the current weight;
 * each round lowers that by one step, from the top down to 1 and again. Rounds
 * that can't find anyone are not walked but counted: the first full one tells
 * the highest usable weight.
 */
static __always_inline int step_wrr(const struct edition *edition, int excluded, __u64 *cursor)
{
	__u32 position = *cursor, weight = *cursor >> 32;
	struct walk walk = new_walk(edition, excluded);
	__u32 next;

	walk.first = position;
	walk.least_weight = weight;
	if (position < edition->servers && !visit_weight(0, &walk))
		walk_servers(&walk, edition->servers - position, visit_weight);
	if (walk.server != NO_SERVER) {
		*cursor = wrr_cursor(walk.found + 1, weight);
		return walk.server;
	}

	next = next_weight(edition, weight);
	walk.first = 0;
	walk.highest = 0;
	walk.least_weight = next;
	walk_servers(&walk, edition->servers, visit_weight);
	if (walk.server == NO_SERVER && walk.highest && edition->wrr_step) {
		__u32 rounds = (next - walk.highest + edition->wrr_step - 1) / edition->wrr_step;

		next -= rounds * edition->wrr_step;
		walk.least_weight = next;
		walk_servers(&walk, edition->servers, visit_weight);
	}
	if (walk.server == NO_SERVER)
		*cursor = wrr_exhausted(edition, position, weight);
	else
		*cursor = wrr_cursor(walk.found + 1, next);
	return walk.server;
}

__noinline int choose_wrr(struct edition *edition, int excluded)
{
	if (!edition || !edition->wrr_top)
		return NO_SERVER;
	unrolled_for (int i = 0; i < CURSOR_TRIES; i++) {
		__u64 cursor = *(volatile __u64 *)&edition->cursor;
		__u64 moved = cursor;
		int server = step_wrr(edition, excluded, &moved);

		if (i == CURSOR_TRIES - 1 ||
		    __sync_bool_compare_and_swap(&edition->cursor, cursor, moved))
			return server;
	}
	return NO_SERVER;
}

#endif
