/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule.h: choose a real server for a new connection, with the kernel's
 * exact algorithms: the order of the server list, ties, and which counts matter
 * (net/netfilter/ipvs/ip_vs_rr.c and its neighbours).
 *
 * A scheduler is one function that takes the service's edition and returns the
 * index of a real server or NO_SERVER, and one line in schedule().
 */
#ifndef FAIRLEAD_SCHEDULE_H
#define FAIRLEAD_SCHEDULE_H

#include "maps.h"
#include "packet.h"

enum {
	NO_SERVER = -1,
	CURSOR_TRIES = 4,	/* packets of other CPUs may move the cursor first */
};

/* A walk over (part of) a server list: what it looks for, what it found. */
struct walk {
	const struct edition *edition;
	__u32 first;		/* position in the list */
	__u32 found;		/* position of the choice */
	int server;		/* the choice */
	__u32 least_weight;	/* wrr: what a server must have */
	__u32 highest;		/* wrr: the highest usable weight seen */
	__u32 load_weight;	/* the choice's weight and load so far */
	__u64 load;
};

static __always_inline bool is_usable(const struct real_server *server)
{
	return server->weight && !server->overloaded;
}

/* The server at a position of a list. */
static __always_inline struct real_server *server_at(const struct edition *edition, __u32 position,
						     __u32 *index)
{
	__u32 key = edition->list + position;
	const struct list_slot *slot = bpf_map_lookup_elem(&lists, &key);

	if (!slot)
		return NULL;
	*index = slot->server;
	return get_server(slot->server);
}

/* Linux 6.1 takes no loop that is closed by falling through into its head, as
 * the compiler lays retries out. */
#define unrolled_for _Pragma("clang loop unroll(full)") for

/* Walks count positions from walk->first on. */
#define walk_servers(walk, count, visit) \
	bpf_loop((count) < MAX_LIST ? (count) : MAX_LIST, visit, walk, 0)

/* --- rr ----------------------------------------------------------------- */

static int visit_usable(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	__u32 position = walk->first + i;
	struct real_server *server;
	__u32 index;

	if (position >= walk->edition->servers)
		position -= walk->edition->servers;
	server = server_at(walk->edition, position, &index);
	if (!server || !is_usable(server))
		return 0;
	walk->server = index;
	walk->found = position;
	return 1;
}

/* From the last choice on, once round. */
__noinline int choose_rr(struct edition *edition)
{
	if (!edition)
		return NO_SERVER;
	unrolled_for (int i = 0; i < CURSOR_TRIES; i++) {
		__u64 cursor = *(volatile __u64 *)&edition->cursor;
		struct walk walk = { .edition = edition, .server = NO_SERVER };

		walk.first = (__u32)cursor < edition->servers ? (__u32)cursor : 0;
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

	server = server_at(walk->edition, walk->first + i, &index);
	if (!server || !is_usable(server))
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

/*
 * Goes round the list, taking servers whose weight reaches the current weight;
 * each round lowers that by one step, from the top down to 1 and again. Rounds
 * that can't find anyone are not walked but counted: the first full one tells
 * the highest usable weight.
 */
static __always_inline int step_wrr(const struct edition *edition, __u64 *cursor)
{
	__u32 position = *cursor, weight = *cursor >> 32;
	struct walk walk = { .edition = edition, .server = NO_SERVER,
			     .first = position, .least_weight = weight };
	__u32 next;

	if (position < edition->servers)
		walk_servers(&walk, edition->servers - position, visit_weight);
	if (walk.server != NO_SERVER) {
		*cursor = wrr_cursor(walk.found + 1, weight);
		return walk.server;
	}

	next = weight > edition->wrr_step ? weight - edition->wrr_step : edition->wrr_top;
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

__noinline int choose_wrr(struct edition *edition)
{
	if (!edition || !edition->wrr_top)
		return NO_SERVER;
	unrolled_for (int i = 0; i < CURSOR_TRIES; i++) {
		__u64 cursor = *(volatile __u64 *)&edition->cursor;
		__u64 moved = cursor;
		int server = step_wrr(edition, &moved);

		if (i == CURSOR_TRIES - 1 ||
		    __sync_bool_compare_and_swap(&edition->cursor, cursor, moved))
			return server;
	}
	return NO_SERVER;
}

/* --- lc, wlc, sed, nq --------------------------------------------------- */

/* An active connection weighs as much as 256 inactive ones
 * (include/net/ip_vs.h, ip_vs_dest_conn_overhead). */
static __always_inline __u64 connection_load(const struct real_server *server)
{
	return ((__u64)server->active << 8) + server->inactive;
}

/* What a new connection would wait for (ip_vs_sed.c). */
static __always_inline __u64 expected_delay(const struct real_server *server)
{
	return (__u64)server->active + 1;
}

/* Takes a server if its load is less than the choice's, each divided by its
 * weight: compared crosswise, so the first one keeps a tie. */
static __always_inline void consider(struct walk *walk, __u32 index, __u64 load, __u32 weight)
{
	if (walk->server != NO_SERVER && walk->load * weight <= load * walk->load_weight)
		return;
	walk->server = index;
	walk->load = load;
	walk->load_weight = weight;
}

static int visit_lc(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	struct real_server *server;
	__u32 index;

	server = server_at(walk->edition, i, &index);
	if (server && is_usable(server))
		consider(walk, index, connection_load(server), 1);
	return 0;
}

static int visit_wlc(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	struct real_server *server;
	__u32 index;

	server = server_at(walk->edition, i, &index);
	if (server && is_usable(server))
		consider(walk, index, connection_load(server), server->weight);
	return 0;
}

static int visit_sed(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	struct real_server *server;
	__u32 index;

	server = server_at(walk->edition, i, &index);
	if (server && is_usable(server))
		consider(walk, index, expected_delay(server), server->weight);
	return 0;
}

/* The first idle server; else as sed. */
static int visit_nq(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	struct real_server *server;
	__u32 index;

	server = server_at(walk->edition, i, &index);
	if (!server || !is_usable(server))
		return 0;
	if (!server->active) {
		walk->server = index;
		return 1;
	}
	consider(walk, index, expected_delay(server), server->weight);
	return 0;
}

__noinline int choose_lc(struct edition *edition)
{
	struct walk walk = { .edition = edition, .server = NO_SERVER };

	if (!edition)
		return NO_SERVER;
	walk_servers(&walk, edition->servers, visit_lc);
	return walk.server;
}

__noinline int choose_wlc(struct edition *edition)
{
	struct walk walk = { .edition = edition, .server = NO_SERVER };

	if (!edition)
		return NO_SERVER;
	walk_servers(&walk, edition->servers, visit_wlc);
	return walk.server;
}

__noinline int choose_sed(struct edition *edition)
{
	struct walk walk = { .edition = edition, .server = NO_SERVER };

	if (!edition)
		return NO_SERVER;
	walk_servers(&walk, edition->servers, visit_sed);
	return walk.server;
}

__noinline int choose_nq(struct edition *edition)
{
	struct walk walk = { .edition = edition, .server = NO_SERVER };

	if (!edition)
		return NO_SERVER;
	walk_servers(&walk, edition->servers, visit_nq);
	return walk.server;
}

/* --- by hash ------------------------------------------------------------ */

/* Where the packets of a flow go that has no entry because the table is full:
 * the same server for each of them, as long as the list stays as it is.
 * Not static: see answer_icmp. */
__noinline int choose_by_hash(struct edition *edition, __u64 hash)
{
	struct walk walk = { .edition = edition, .server = NO_SERVER };

	if (!edition || !edition->servers)
		return NO_SERVER;
	walk.first = (__u32)hash % edition->servers;
	walk_servers(&walk, edition->servers, visit_usable);
	return walk.server;
}

/* The index of a real server, or NO_SERVER. Not static: see answer_icmp. */
__noinline int schedule(struct edition *edition)
{
	if (!edition)
		return NO_SERVER;
	switch (edition->scheduler) {
	case SCHEDULER_NONE:
		return NO_SERVER;
	case SCHEDULER_RR:
		return choose_rr(edition);
	case SCHEDULER_WRR:
		return choose_wrr(edition);
	case SCHEDULER_LC:
		return choose_lc(edition);
	case SCHEDULER_WLC:
		return choose_wlc(edition);
	case SCHEDULER_SED:
		return choose_sed(edition);
	case SCHEDULER_NQ:
		return choose_nq(edition);
	}
	return NO_SERVER;
}

#endif
