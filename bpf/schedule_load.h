/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule_load.h: lc, wlc, sed, nq, fo, ovf and twos, which look at what the
 * servers of a list have to do now (ip_vs_lc.c and its neighbours).
 */
#ifndef FAIRLEAD_SCHEDULE_LOAD_H
#define FAIRLEAD_SCHEDULE_LOAD_H

#include "schedule_walk.h"

enum {
	STRIDE = 8,		/* servers that one call of a visitor looks at */
};

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

/* Takes a server if it is heavier than the choice. */
static __always_inline void consider_weight(struct walk *walk, __u32 index, __u32 weight)
{
	if (weight <= walk->highest)
		return;
	walk->server = index;
	walk->highest = weight;
}

/* Looks at one server as a scheduler does, which is known when this is compiled.
 * True: it is the choice, whoever comes after it. */
static __always_inline bool weigh(struct walk *walk, enum scheduler scheduler, __u32 index,
				  const struct real_server *server)
{
	switch (scheduler) {
	case SCHEDULER_LC:
		consider(walk, index, connection_load(server), 1);
		return false;
	case SCHEDULER_WLC:
		consider(walk, index, connection_load(server), server->weight);
		return false;
	case SCHEDULER_SED:
		consider(walk, index, expected_delay(server), server->weight);
		return false;
	case SCHEDULER_NQ:
		/* the first idle one; else as sed */
		if (!server->active)
			walk->server = index;
		else
			consider(walk, index, expected_delay(server), server->weight);
		return !server->active;
	case SCHEDULER_FO:
		consider_weight(walk, index, server->weight);
		return false;
	case SCHEDULER_OVF:
		/* its weight is also how many it takes */
		if (server->active <= server->weight)
			consider_weight(walk, index, server->weight);
		return false;
	default:
		return false;
	}
}

static __always_inline int visit_stride(struct walk *walk, __u32 stride, enum scheduler scheduler)
{
	__u32 first = stride * STRIDE;

	unrolled_for (int i = 0; i < STRIDE; i++) {
		const struct real_server *server;
		__u32 index;

		if (first + i >= walk->edition->servers)
			return 1;
		server = usable_at(walk->edition, walk->excluded, first + i, &index);
		if (server && weigh(walk, scheduler, index, server))
			return 1;
	}
	return 0;
}

/* One visitor and one function for each scheduler, verified by itself. */
#define DEFINE_CHOICE(name, scheduler)							\
static int visit_##name(__u32 stride, void *ctx)					\
{											\
	return visit_stride(ctx, stride, scheduler);					\
}											\
											\
__noinline int choose_##name(struct edition *edition, int excluded)			\
{											\
	struct walk walk = new_walk(edition, excluded);					\
											\
	if (!edition)									\
		return NO_SERVER;							\
	bpf_loop((MAX_LIST + STRIDE - 1) / STRIDE, visit_##name, &walk, 0);		\
	return walk.server;								\
}

DEFINE_CHOICE(lc, SCHEDULER_LC)
DEFINE_CHOICE(wlc, SCHEDULER_WLC)
DEFINE_CHOICE(sed, SCHEDULER_SED)
DEFINE_CHOICE(nq, SCHEDULER_NQ)
DEFINE_CHOICE(fo, SCHEDULER_FO)
DEFINE_CHOICE(ovf, SCHEDULER_OVF)

/* --- twos --------------------------------------------------------------- */

/* A server that was drawn by lot. */
struct draw {
	__s64 rest;		/* of the random weight, after the servers so far */
	int server;
	__u32 weight;
	__u64 load;
};

/* Not a struct walk, of which it needs little: the stack is short. */
struct twos_walk {
	const struct edition *edition;
	__u64 total;		/* of the usable weights */
	struct draw draws[2];
	int excluded;
};

/* Stores a sum so that the verifier forgets what it knows of it: it does not
 * follow values through halves of a stack slot, and would look at every round of
 * a walk as another one. */
static __always_inline void store_sum(__u64 *sum, __u64 value)
{
	volatile __u32 *halves = (volatile __u32 *)sum;

	halves[0] = value;
	halves[1] = value >> 32;
}

static int visit_total(__u32 i, void *ctx)
{
	struct twos_walk *twos = ctx;
	__u32 index;
	const struct real_server *server;

	server = usable_at(twos->edition, twos->excluded, i, &index);
	if (server)
		store_sum(&twos->total, twos->total + server->weight);
	return 0;
}

static __always_inline void draw(struct draw *draw, __u32 index, const struct real_server *server)
{
	store_sum((__u64 *)&draw->rest, draw->rest - server->weight);
	if (draw->rest > 0 || draw->server != NO_SERVER)
		return;
	draw->server = index;
	draw->weight = server->weight;
	draw->load = connection_load(server);
}

static int visit_draw(__u32 i, void *ctx)
{
	struct twos_walk *twos = ctx;
	__u32 index;
	const struct real_server *server;

	server = usable_at(twos->edition, twos->excluded, i, &index);
	if (!server)
		return 0;
	draw(&twos->draws[0], index, server);
	draw(&twos->draws[1], index, server);
	return twos->draws[0].server != NO_SERVER && twos->draws[1].server != NO_SERVER;
}

/* Draws two servers, each as often as its weight says, and takes the one with
 * less load; the first keeps a tie. Each half of random draws one. */
__noinline int choose_twos(struct edition *edition, int excluded, __u64 random)
{
	struct twos_walk twos = {
		.edition = edition,
		.excluded = excluded,
		.draws = { { .server = NO_SERVER }, { .server = NO_SERVER } },
	};

	if (!edition)
		return NO_SERVER;
	walk_servers(&twos, edition->servers, visit_total);
	if (!twos.total)
		return NO_SERVER;
	/* From 0 to the sum, both of them in it, as ip_vs_twos.c has it. */
	twos.draws[0].rest = (__u32)random % (twos.total + 1);
	twos.draws[1].rest = (random >> 32) % (twos.total + 1);
	walk_servers(&twos, edition->servers, visit_draw);
	if (twos.draws[1].server != NO_SERVER &&
	    twos.draws[1].weight * twos.draws[0].load > twos.draws[0].weight * twos.draws[1].load)
		return twos.draws[1].server;
	return twos.draws[0].server;
}

#endif
