/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * sweep.h: entries whose time is over, or that end early, give back what they hold.
 */
#ifndef FAIRLEAD_SWEEP_H
#define FAIRLEAD_SWEEP_H

#include "conn.h"
#include "defence.h"

/* One run of the sweeper. */
struct sweep {
	enum sweep_part part;
	__u32 first;
	__u32 defended;
	__u32 abandoned;
	__u32 now;
	__u32 expired;
	__u32 used;
};

/* Whether an entry ends before its time is over: nearly always nobody asks. Not
 * static: see answer_icmp. */
__noinline int ends_early(const struct connection *conn, __u32 defended, __u32 abandoned, __u32 now)
{
	struct settings *set = get_settings();
	const struct policy *policy;
	struct real_server *server;

	if (!conn || !set)
		return false;
	server = get_server(conn->server);
	if (!server)
		return false;
	policy = get_policy(server->policy, set);
	return (abandoned && (server->drain == DRAIN_EXPIRE || is_abandoned(server, policy))) ||
	       (defended && is_given_up(conn, policy, set, now));
}

static int sweep_group(__u32 i, void *ctx)
{
	struct sweep *sweep = ctx;
	__u32 index = sweep->first + i;
	struct connection_group *group = bpf_map_lookup_elem(&connections, &index);
	bool defended;

	if (!group)
		return 1;
	defended = sweep->defended && bpf_get_prandom_u32() % DEFENCE_SHARE < sweep->defended;
	for (int slot = 0; slot < GROUP_SLOTS; slot++) {
		struct connection *conn = &group->slots[slot];
		__u32 control = read_control(conn);

		if (control_status(control) != CONTROL_LIVE ||
		    is_template(conn) != (sweep->part == SWEEP_TEMPLATES))
			continue;
		if (is_reply(conn)) {
			sweep->expired += sweep_reply(conn, index << GROUP_SLOTS_SHIFT | slot,
						      sweep->now, &sweep->used);
			continue;
		}
		if ((is_over(conn->expires, sweep->now) ||
		     ((defended || sweep->abandoned) &&
		      ends_early(conn, defended, sweep->abandoned, sweep->now))) &&
		    (!is_template(conn) ||
		     may_end(conn, index << GROUP_SLOTS_SHIFT | slot, control, sweep->now)))
			sweep->expired += expire_connection(conn);
		else
			sweep->used++;
	}
	return 0;
}

#endif
