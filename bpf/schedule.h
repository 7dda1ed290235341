/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule.h: choose a real server for a new connection, with the kernel's
 * exact algorithms: the order of the server list, ties, and which counts matter
 * (net/netfilter/ipvs/ip_vs_rr.c and its neighbours).
 *
 * A scheduler is one function that takes the service's edition and returns the
 * index of a real server or NO_SERVER, and one line in choose(). Those of a
 * family share a header. None of them is static: see answer_icmp.
 */
#ifndef FAIRLEAD_SCHEDULE_H
#define FAIRLEAD_SCHEDULE_H

#include "schedule_cache.h"
#include "schedule_load.h"
#include "schedule_round.h"
#include "schedule_table.h"

/* The index of a real server other than `excluded`, or NO_SERVER. */
__noinline int choose(struct edition *edition, const struct flow *flow, __u32 now, int excluded)
{
	if (!edition || !flow)
		return NO_SERVER;
	switch (edition->scheduler) {
	case SCHEDULER_NONE:
		return NO_SERVER;
	case SCHEDULER_RR:
		return choose_rr(edition, excluded);
	case SCHEDULER_WRR:
		return choose_wrr(edition, excluded);
	case SCHEDULER_LC:
		return choose_lc(edition, excluded);
	case SCHEDULER_WLC:
		return choose_wlc(edition, excluded);
	case SCHEDULER_SED:
		return choose_sed(edition, excluded);
	case SCHEDULER_NQ:
		return choose_nq(edition, excluded);
	case SCHEDULER_FO:
		return choose_fo(edition, excluded);
	case SCHEDULER_OVF:
		return choose_ovf(edition, excluded);
	case SCHEDULER_TWOS:
		return choose_twos(edition, excluded,
				   (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32());
	case SCHEDULER_DH:
		return choose_dh(edition, flow, excluded);
	case SCHEDULER_SH:
		return choose_sh(edition, flow, excluded);
	case SCHEDULER_MH:
		return choose_mh(edition, flow, excluded);
	case SCHEDULER_LBLC:
		return excluded == NO_SERVER ? choose_lblc(edition, flow, now) :
			choose_wlc(edition, excluded);
	case SCHEDULER_LBLCR:
		return excluded == NO_SERVER ? choose_lblcr(edition, flow, now) :
			choose_wlc(edition, excluded);
	}
	return NO_SERVER;
}

/*
 * Slow start: whether a server that came or came back a short time ago is to be
 * passed over. Of the new connections that are its, it gets a share that grows
 * from nothing to all of them, evenly: never more of a service's connections than
 * the part of its time that has passed.
 */
static __always_inline bool is_starting(const struct real_server *server, __u32 now, __u32 random)
{
	__s32 since = now - server->slow_start_since;
	__s32 window = server->slow_start_ticks;

	return since < window && (__s32)((__u64)random * window >> 32) >= since;
}

/* The choice, of which a slow start may make another one. */
static __always_inline int reconsider(struct edition *edition, const struct flow *flow, __u32 now,
				      int choice, const struct real_server *server)
{
	int other;

	if (!is_starting(server, now, bpf_get_prandom_u32()))
		return choice;
	other = choose(edition, flow, now, choice);
	return other == NO_SERVER ? choice : other;
}

/* The index of a real server, or NO_SERVER. */
static __always_inline int schedule(struct edition *edition, const struct flow *flow, __u32 now)
{
	int choice = choose(edition, flow, now, NO_SERVER);
	const struct real_server *server = get_server(choice);

	if (!server || likely(!server->slow_start_ticks))
		return choice;
	return reconsider(edition, flow, now, choice, server);
}

#endif
