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

	if (!conn)
		return false;
	server = get_server(conn->server);
	if (!server)
		return false;
	policy = get_policy(server->policy, set);
	return (abandoned && (server->drain == DRAIN_EXPIRE || is_abandoned(server, policy))) ||
	       (defended && is_given_up(conn, policy, set, now));
}

/* What became of an entry. */
enum swept {
	SWEPT_KEPT,		/* for the replies of a connection whose time is over */
	SWEPT_USED,
	SWEPT_EXPIRED,
};

/* Gives a reply's entry more time. One that is nobody's is ended. */
static __always_inline enum swept sweep_reply(struct connection *reply, __u32 control,
					       __u32 slot, __u32 now)
{
	const struct connection *conn = entry_at(*reply_owner(reply));

	if (!conn || !is_tied(reply, slot))
		return expire_entry(reply, control) ? SWEPT_EXPIRED : SWEPT_KEPT;
	reply->expires = now + REPLY_TIME;
	return is_over(conn->expires, now) ? SWEPT_KEPT : SWEPT_USED;
}

/* Ends an entry if it is time; of its connection, if it is for replies. Not static: the
 * verifier looks at it once, not for each slot of a group. */
__noinline int sweep_entry(struct connection *conn, const struct sweep *sweep, __u32 slot,
			   __u32 defended)
{
	__u32 control;

	if (!conn || !sweep)
		return SWEPT_KEPT;
	control = read_control(conn);
	if (is_reply(conn))
		return sweep_reply(conn, control, slot, sweep->now);
	if (!is_over(conn->expires, sweep->now) &&
	    (!(defended | sweep->abandoned) ||
	     !ends_early(conn, defended, sweep->abandoned, sweep->now)))
		return SWEPT_USED;
	if (is_template(conn) && !may_end(conn, slot, control, sweep->now))
		return SWEPT_USED;
	return expire_entry(conn, control) ? SWEPT_EXPIRED : SWEPT_KEPT;
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
		int became;

		if (control_status(read_control(conn)) != CONTROL_LIVE ||
		    is_template(conn) != (sweep->part == SWEEP_TEMPLATES))
			continue;
		became = sweep_entry(conn, sweep, index << GROUP_SLOTS_SHIFT | slot, defended);
		sweep->expired += became == SWEPT_EXPIRED;
		sweep->used += became == SWEPT_USED;
	}
	return 0;
}

#endif
