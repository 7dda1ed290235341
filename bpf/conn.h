/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * conn.h: the connection table.
 *
 * A flow's hash gives its home: a slot in a group of eight. An entry lies at
 * its home or, if that was taken, at the next place of the flow's way: the
 * other slots of the group in a circle, then those of fifteen more groups that
 * the hash picks. Each slot counts the entries that lie further along because
 * it was taken (the upper half of `control`), so a look-up stops at the first
 * slot that none was moved past: most misses read one cache line.
 *
 * Nothing takes a lock. A slot is claimed by compare-and-swap, filled, and
 * published by its status last; an entry whose time is over is free to whoever
 * claims it, so correctness never waits for the sweeper. When every place of
 * the way is taken, the oldest half-open entry gives way; live ones never do.
 *
 * The counts of active and inactive connections of a real server change with
 * the entry's flag, by whoever wins the compare-and-swap on it, and when the
 * entry is released: they are exact whichever CPU does it.
 */
#ifndef FAIRLEAD_CONN_H
#define FAIRLEAD_CONN_H

#include "bond.h"
#include "clock.h"
#include "maps.h"
#include "packet.h"
#include "way.h"

enum {
	CAS_TRIES = 4,		/* a slot's passed count may change under us */
	MAX_PASSED = 0xff00,	/* far from the count's sixteen bits */
	NO_PLACE = -1,
};

/* What has to be the same in an entry of a flow: no void one is found. */
static const __u64 MATCHED_WORD = FLOW_WORD | (__u64)CONNECTION_VOID << 48;

static __always_inline __u32 read_control(const struct connection *conn)
{
	return *(const volatile __u32 *)&conn->control;
}

static __always_inline __u32 control_status(__u32 control)
{
	return control & CONTROL_STATUS;
}

static __always_inline __u32 passed(__u32 control)
{
	return control >> CONTROL_PASSED_SHIFT;
}

static __always_inline bool same_flow(const struct connection *conn, const struct flow *flow)
{
	__u64 word = *(const volatile __u64 *)&conn->cport ^ flow->word;

	return !(address_difference(&conn->caddr, &flow->caddr) |
		 address_difference(&conn->vaddr, &flow->vaddr) | (word & MATCHED_WORD));
}

static __always_inline bool is_entry_of(const struct connection *conn, __u32 control,
					const struct flow *flow, __u32 now)
{
	return control_status(control) == CONTROL_LIVE && same_flow(conn, flow) &&
	       !is_over(conn->expires, now);
}

/* Whether the slot became another entry since its control was read. A reader
 * asks after it has read what it needs. */
static __always_inline bool is_stale(const struct connection *conn, __u32 control)
{
	return (read_control(conn) ^ control) & (CONTROL_STATUS | CONTROL_GENERATION);
}

/* The way past the home slot: the entry's distance, or NO_PLACE. Not static: see
 * answer_icmp. */
__noinline int find_displaced(const struct way *way, const struct flow *flow,
			      const struct settings *set, __u32 now)
{
	if (!way || !flow || !set)
		return NO_PLACE;
	for (__u32 i = 1; i < PROBE_SLOTS; i++) {
		struct connection *conn = place(way, i, set);
		__u32 control;

		if (!conn)
			return NO_PLACE;
		control = read_control(conn);
		if (is_entry_of(conn, control, flow, now))
			return i;
		if (!passed(control))
			return NO_PLACE;
	}
	return NO_PLACE;
}

/* The entry of a flow, and its control as it was then; or NULL. */
static __always_inline struct connection *find_connection(const struct way *way,
							  const struct flow *flow,
							  const struct settings *set, __u32 now,
							  __u32 *control)
{
	struct connection *conn = place(way, 0, set);
	int distance;

	if (!conn)
		return NULL;
	*control = read_control(conn);
	if (likely(is_entry_of(conn, *control, flow, now)))
		return conn;
	if (!passed(*control))
		return NULL;
	distance = find_displaced(way, flow, set, now);
	conn = distance == NO_PLACE ? NULL : place(way, distance, set);
	if (!conn)
		return NULL;
	*control = read_control(conn);
	return is_entry_of(conn, *control, flow, now) ? conn : NULL;
}

/* Moves a slot from one status to CLAIMED, if it is still what control says. */
static __always_inline bool claim(struct connection *conn, __u32 control)
{
	for (int i = 0; i < CAS_TRIES; i++) {
		__u32 claimed = (control & ~CONTROL_STATUS) | CONTROL_CLAIMED;
		__u32 seen = __sync_val_compare_and_swap(&conn->control, control, claimed);

		if (seen == control)
			return true;
		/* Only the passed count may have changed. */
		if ((seen ^ control) & (CONTROL_STATUS | CONTROL_GENERATION))
			return false;
		control = seen;
	}
	return false;
}

/* Claims a slot that is free, if it is still what control says. */
static __always_inline bool claim_free(struct connection *conn, __u32 control)
{
	__u32 claimed = control + CONTROL_CLAIMED - CONTROL_FREE;

	return __sync_bool_compare_and_swap(&conn->control, control, claimed);
}

/* Moves a slot that we claimed on to a status, as a new generation. Others may
 * change the passed count meanwhile, which is the other half of the word. */
static __always_inline void settle(struct connection *conn, __u32 status)
{
	__u32 generation = (read_control(conn) + CONTROL_GENERATION_ONE) & CONTROL_GENERATION;

	barrier();
	*(volatile __u16 *)&conn->control = generation | status;
}

/* Counts an entry that lies `distance` along its way at each place before. */
static __noinline int count_passed(const struct way *way, const struct settings *set,
				   __u32 distance, __u32 change)
{
	for (__u32 i = 0; i < PROBE_SLOTS; i++) {
		struct connection *conn;

		if (i >= distance)
			break;
		conn = place(way, i, set);
		if (conn)
			__sync_fetch_and_add(&conn->control, change);
	}
	return 0;
}

/* Overload thresholds: one that begins marks its server (ip_vs_conn.c, ip_vs_bind_dest). */
static __always_inline void mark_overload(struct real_server *server)
{
	__u64 upper = server->upper;

	if (unlikely(upper) && (__u64)server->active + server->inactive >= upper)
		server->overloaded = 1;
}

/* One that ends does no more than take the mark away, also where more are left than a
 * threshold that was set meanwhile (ip_vs_conn.c, ip_vs_unbind_dest). */
static __always_inline void unmark_overload(struct real_server *server)
{
	__u64 total = (__u64)server->active + server->inactive;
	__u64 upper = server->upper;

	if (likely(!server->overloaded))
		return;
	if (!upper || (server->lower ? total < server->lower : total * 4 < upper * 3))
		server->overloaded = 0;
}

/* The word with protocol, state, flags and distance. */
static __always_inline __u32 *state_word(struct connection *conn)
{
	return (__u32 *)&conn->protocol;
}

/* A packet that found the entry before may still be about to move it between
 * the counts: the flag ends that. Returns the flags until then. */
static __always_inline __u8 uncount_at_server(struct connection *conn)
{
	__u8 was = __sync_fetch_and_or(state_word(conn), CONNECTION_ENDED << 16) >> 16;
	struct real_server *server = get_server(conn->server);

	if (!server)
		return was;
	if (was & CONNECTION_TEMPLATE)
		__sync_fetch_and_sub(&server->persistent, 1);
	else if (was & CONNECTION_INACTIVE)
		__sync_fetch_and_sub(&server->inactive, 1);
	else
		__sync_fetch_and_sub(&server->active, 1);
	unmark_overload(server);
	return was;
}

/* Where an entry lies. */
static __always_inline __u32 slot_of(const struct connection *conn)
{
	const struct settings *set = get_settings();
	struct way way;

	way = find_way(hash_entry(conn, set), set);
	return slot_at(&way, conn->distance, set);
}

/* When an entry that ends ended: when its time was over, or now. */
static __always_inline __u32 end_of(const struct connection *conn, __u32 now)
{
	return is_over(conn->expires, now) ? conn->expires : now;
}

/* A connection that ends lets go of the template that controls it. */
static __noinline int leave_template(const struct connection *conn)
{
	const struct settings *set = get_settings();
	__u64 *bond = bond_at(slot_of(conn));

	if (bond)
		let_go(*bond, end_of(conn, now_tick(set)), set);
	return 0;
}

/* The Call-ID of a template that ends is not kept. */
static __noinline int forget_call_id(struct connection *template)
{
	__u32 slot = *template_slot(template);

	return bpf_map_delete_elem(&call_ids, &slot);
}

/* Uncounts the entry of a claimed slot at the places before it. */
static __always_inline void leave_way(const struct connection *conn)
{
	const struct settings *set = get_settings();
	struct way way;

	way = find_way(hash_entry(conn, set), set);
	count_passed(&way, set, conn->distance, -CONTROL_PASSED_ONE);
}

__noinline int end_reply(const struct connection *conn); /* reply.h */

/* Gives back what the entry of a claimed slot holds. The slot stays claimed.
 * Not static: see answer_icmp. */
__noinline int release(struct connection *conn)
{
	__u8 flags;

	if (!conn)
		return 0;
	if (!(conn->flags & CONNECTION_REPLY)) {
		flags = uncount_at_server(conn);
		if (flags & CONNECTION_CONTROLLED)
			leave_template(conn);
		if (flags & CONNECTION_TEMPLATE && has_call_id(conn))
			forget_call_id(conn);
		if (flags & CONNECTION_MASQUERADED)
			end_reply(conn);
	}
	leave_way(conn);
	return 0;
}

/* Ends an entry, if it is still the one that it was when its control was read. */
static __noinline int expire_entry(struct connection *conn, __u32 control)
{
	if (control_status(control) != CONTROL_LIVE || !claim(conn, control))
		return 0;
	release(conn);
	settle(conn, CONTROL_FREE);
	return 1;
}

/* Ends an entry now. */
static __always_inline int expire_connection(struct connection *conn)
{
	return expire_entry(conn, read_control(conn));
}

/* What was in a slot that was taken. */
enum taken {
	TAKEN_NOT,		/* and was not taken */
	TAKEN_FREE,
	TAKEN_OVER,		/* an entry whose time is over, and which is to be released */
};

/* Claims a slot that is free, or whose entry's time is over. Not static: the verifier
 * looks at it once, not at each place of a way. */
__noinline int take_slot(struct connection *conn, __u32 slot, __u32 now)
{
	__u32 control;

	if (!conn)
		return TAKEN_NOT;
	control = read_control(conn);
	switch (control_status(control)) {
	case CONTROL_FREE:
		return claim(conn, control) ? TAKEN_FREE : TAKEN_NOT;
	case CONTROL_LIVE:
		if (!is_over(conn->expires, now) ||
		    (is_template(conn) && !may_end(conn, slot, control, now)) ||
		    !claim(conn, control))
			return TAKEN_NOT;
		return TAKEN_OVER;
	}
	return TAKEN_NOT;
}

static __always_inline bool is_half_open(const struct connection *conn, __u32 control)
{
	__u8 state = conn->state;

	return control_status(control) == CONTROL_LIVE &&
	       (state == STATE_SYN_RECV || state == STATE_SYN_ACK || state == STATE_SCTP_INIT1);
}

/* The place of the half-open entry on a way that runs out first, or NO_PLACE: the
 * oldest one, where all have the same timeout. */
static __noinline int find_half_open(const struct way *way, const struct settings *set, __u32 now)
{
	__s32 least = 0x7fffffff;
	int found = NO_PLACE;

	for (__u32 i = 0; i < PROBE_SLOTS; i++) {
		struct connection *conn = place(way, i, set);
		__s32 left;

		if (!conn || !is_half_open(conn, read_control(conn)))
			continue;
		left = conn->expires - now;
		if (left < least) {
			least = left;
			found = i;
		}
	}
	return found;
}

/* Claims the slot of the oldest half-open entry on a way. */
static __always_inline int evict_half_open(const struct way *way, const struct settings *set,
					   __u32 now)
{
	int distance = find_half_open(way, set, now);
	struct connection *conn;
	__u32 control;

	if (distance == NO_PLACE)
		return NO_PLACE;
	conn = place(way, distance, set);
	if (!conn)
		return NO_PLACE;
	control = read_control(conn);
	if (!is_half_open(conn, control) || !claim(conn, control))
		return NO_PLACE;
	release(conn);
	return distance;
}

/* Claims a slot on a way. Returns its distance, or NO_PLACE. Not static: see
 * answer_icmp. */
__noinline int claim_slot(const struct way *way, const struct settings *set, __u32 now)
{
	if (!way || !set)
		return NO_PLACE;
	for (int i = 0; i < PROBE_SLOTS; i++) {
		struct connection *conn = place(way, i, set);
		int taken;

		if (!conn || passed(read_control(conn)) > MAX_PASSED)
			return NO_PLACE;
		taken = take_slot(conn, slot_at(way, i, set), now);
		if (taken == TAKEN_NOT)
			continue;
		if (taken == TAKEN_OVER)
			release(conn);
		return i;
	}
	return evict_half_open(way, set, now);
}

/* Claims a slot on a way, and counts it there. Returns its distance, or NO_PLACE. */
static __always_inline int enter_way(const struct way *way, const struct settings *set, __u32 now)
{
	int distance = claim_slot(way, set, now);

	if (distance > 0)
		count_passed(way, set, distance, CONTROL_PASSED_ONE);
	return distance;
}

/* Writes what names the entry of a claimed slot. */
static __always_inline void name_entry(struct connection *conn, const struct flow *flow,
				       enum connection_state state, enum connection_flag flags,
				       __u32 distance)
{
	conn->caddr = flow->caddr;
	conn->vaddr = flow->vaddr;
	*(volatile __u64 *)&conn->cport = flow->word | (__u64)state << 40 |
		(__u64)flags << 48 | (__u64)distance << 56;
}

/* What a connection begins with. */
struct birth {
	__u32 server;
	enum connection_state state;
	enum connection_flag flags;
	__u32 timeout;		/* ticks */
	__u32 bytes;		/* of its first packet; 0: that is still to come */
	int template;		/* the slot of the one that is held; or NO_PLACE */
};

/* Fills a claimed slot with a connection, counted at its server. */
static __always_inline void fill_slot(struct connection *conn, const struct flow *flow,
				      const struct birth *birth, struct real_server *server,
				      __u32 distance, __u32 now)
{
	/* First, while few stores wait for it. */
	__sync_fetch_and_add(birth->flags & CONNECTION_INACTIVE ? &server->inactive :
			     &server->active, 1);
	name_entry(conn, flow, birth->state, birth->flags, distance);
	conn->server = birth->server;
	conn->packets = birth->bytes ? 1 : 0;
	conn->bytes = birth->bytes;
	conn->expires = now + birth->timeout;
	mark_overload(server);
}

/* Enters a flow, counted at its server. Returns the distance of its entry, which
 * is published already; or NO_PLACE. Not static: see answer_icmp. */
__noinline int create_connection(const struct way *way, const struct flow *flow,
				 const struct birth *birth, __u32 now)
{
	const struct settings *set = get_settings();
	struct connection *conn;
	struct real_server *rs;
	int distance;

	if (!way || !flow || !birth || birth->server >= MAX_SERVERS)
		return NO_PLACE;
	distance = enter_way(way, set, now);
	if (distance == NO_PLACE)
		return NO_PLACE;
	conn = place(way, distance, set);
	rs = get_server(birth->server);
	if (!conn || !rs)	/* both are there */
		return NO_PLACE;
	fill_slot(conn, flow, birth, rs, distance, now);
	if (birth->flags & CONNECTION_CONTROLLED)
		bind_connection(slot_at(way, distance, set), birth->template, birth->state);
	settle(conn, CONTROL_LIVE);
	return distance;
}

#include "reply.h"

#endif
