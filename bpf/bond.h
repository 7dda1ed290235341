/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * bond.h: what ties a connection to the template that made it.
 *
 * A template is an entry of the connection table too. Each entry has a bond, a word
 * beside the table that most packets never touch: a template's counts the
 * connections that it controls (n_control in ip_vs_conn.c), and in its lower half a
 * controlled connection's tells where its template lies.
 *
 * A template that controls somebody stays: when its time runs out, it gets another
 * minute, and another. To end one, its count has to be moved from 0 to ENDED; from
 * then on nobody can take hold of it. Its generation stands beside the count, so
 * that who found the template before cannot take hold of another one in its place.
 */
#ifndef FAIRLEAD_BOND_H
#define FAIRLEAD_BOND_H

#include "maps.h"

enum {
	BOND_TRIES = 8,		/* to take hold; other CPUs may be quicker */
	HOLD_BUSY = -1,		/* they were, each time */
	HOLD_GONE = -2,		/* the template is no more */
};

static const __u32 BOND_ENDED = 0xffffffff;	/* in place of a count */
/* In the upper half of a bond, where a template's has a generation, which never
 * looks so: the bond is of a connection, or of its replies' entry (reply.h). */
static const __u32 BOND_NO_TEMPLATE = 1u << 31;

/* The entry at a slot of the table, counted from its beginning. */
static __always_inline struct connection *entry_at(__u32 slot)
{
	__u32 index = slot >> GROUP_SLOTS_SHIFT;
	struct connection_group *group = bpf_map_lookup_elem(&connections, &index);

	return group ? &group->slots[slot & (GROUP_SLOTS - 1)] : NULL;
}

static __always_inline __u64 *bond_at(__u32 slot)
{
	__u32 index = slot >> GROUP_SLOTS_SHIFT;
	struct bond_group *group = bpf_map_lookup_elem(&bonds, &index);

	return group ? &group->bonds[slot & (GROUP_SLOTS - 1)] : NULL;
}

static __always_inline __u64 bond_of_template(__u32 control, __u32 count)
{
	return (__u64)(control & CONTROL_GENERATION) << 32 | count;
}

static __always_inline bool is_template(const struct connection *conn)
{
	return conn->flags & CONNECTION_TEMPLATE;
}

/* A template has its timeout where a connection counts packets. */
static __always_inline __u32 *template_timeout(struct connection *template)
{
	return &template->packets;
}

/* One that is named by a Call-ID has its slot where a connection counts bytes, and a hash
 * for the client's port; see call_id.h. */
static __always_inline __u64 *template_slot(struct connection *template)
{
	return &template->bytes;
}

static __always_inline bool has_call_id(const struct connection *template)
{
	return template->cport;
}

/* Takes hold of a template that was found with that control. Returns how many had
 * it before, or HOLD_BUSY or HOLD_GONE. */
static __noinline int hold_template(__u32 slot, __u32 control)
{
	__u64 *bond = bond_at(slot);

	if (!bond)
		return HOLD_GONE;
	_Pragma("clang loop unroll(full)") for (int i = 0; i < BOND_TRIES; i++) {
		__u64 was = *(volatile __u64 *)bond;

		if (was >> 32 != (control & CONTROL_GENERATION) || (__u32)was == BOND_ENDED)
			return HOLD_GONE;
		if (__sync_val_compare_and_swap(bond, was, was + 1) == was)
			return (__u32)was & 0x7fffffff;
	}
	return HOLD_BUSY;
}

/* Gives a template another minute, and more until it outlives a moment. */
static __always_inline void prolong(struct connection *template, __u32 moment,
				    const struct settings *set)
{
	__u32 retry = TEMPLATE_RETRY_SECONDS * set->hz >> TICK_JIFFIES_SHIFT;
	__s32 late = moment - template->expires;

	if (late < 0 || !retry)
		return;
	*template_timeout(template) = retry;
	template->expires += ((__u32)late / retry + 1) * retry;
}

/* Lets go of a template that is held. Who held it lived until a moment: if it
 * outlived the template's time, the template lives on for it. */
static __always_inline void let_go(__u32 slot, __u32 moment, const struct settings *set)
{
	struct connection *template = entry_at(slot);
	__u64 *bond = bond_at(slot);

	if (!template || !bond)
		return;
	if ((__s32)(moment - template->expires) > 0)
		prolong(template, moment, set);
	__sync_fetch_and_sub(bond, 1);
}

/* Whether a template whose time is over may be taken out of the table. If not, it
 * lives on. */
static __noinline int may_end(struct connection *template, __u32 slot, __u32 control, __u32 now)
{
	const struct settings *set = get_settings();
	__u64 *bond = bond_at(slot);
	__u64 none = bond_of_template(control, 0);
	__u64 was;

	if (!bond)
		return false;
	was = __sync_val_compare_and_swap(bond, none, none | BOND_ENDED);
	if (was == none || was == (none | BOND_ENDED))
		return true;
	if (was >> 32 == none >> 32)
		prolong(template, now, set);
	return false;
}

static __always_inline bool is_established(__u8 state)
{
	return state == STATE_ESTABLISHED || state == STATE_SCTP_ESTABLISHED;
}

/* A controlled connection was established: its template is worth keeping when
 * entries have to be given up (ip_vs_control_assure_ct). */
static __always_inline void assure_template(__u32 slot)
{
	__u64 *bond = bond_at(slot);
	struct connection *template;

	if (!bond || !(*bond >> 63))
		return;
	template = entry_at(*bond);
	if (template && is_template(template) && !is_established(template->state))
		__sync_fetch_and_or((__u32 *)&template->protocol, STATE_ESTABLISHED << 8);
}

/* Gives a template that is held to the connection at a slot, which nobody finds
 * yet. */
static __noinline int bind_connection(__u32 slot, __u32 template, __u32 state)
{
	__u64 *bond = bond_at(slot);

	if (!bond)
		return 0;
	*(volatile __u64 *)bond = (__u64)BOND_NO_TEMPLATE << 32 | template;
	if (is_established(state))
		assure_template(slot);
	return 0;
}

#endif
