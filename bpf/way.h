/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * way.h: where in the connection table the entry of a flow may lie: its home, the
 * other slots of that group, and fifteen more groups.
 */
#ifndef FAIRLEAD_WAY_H
#define FAIRLEAD_WAY_H

#include "hash.h"
#include "maps.h"
#include "packet.h"

/* Where a flow may lie. */
struct way {
	__u64 hash;
	__u32 group;		/* the first group */
	__u32 home;		/* slot in each group where it begins */
};

/* The ports and the protocol in the word at cport; the state, the flags and the
 * distance beside them are no part of the flow. */
static const __u64 FLOW_WORD = 0xffffffffff;

static __always_inline __u64 hash_flow(const struct flow *flow, const struct settings *set)
{
	return hash_words(&flow->caddr, &flow->vaddr, flow->word, set);
}

/* Of the flow that an entry is of. */
static __always_inline __u64 hash_entry(const struct connection *conn, const struct settings *set)
{
	return hash_words(&conn->caddr, &conn->vaddr, *(const __u64 *)&conn->cport & FLOW_WORD, set);
}

/* The first bits pick the group, the next three the slot. */
static __always_inline struct way find_way(__u64 hash, const struct settings *set)
{
	return (struct way){
		.hash = hash,
		.group = hash >> set->group_shift,
		.home = hash >> (set->group_shift - GROUP_SLOTS_SHIFT) & (GROUP_SLOTS - 1),
	};
}

/* Bits of the hash that the group and the slot are not made of. */
static __always_inline __u32 other_bits(const struct way *way)
{
	return (way->hash * MIX) >> 32;
}

/* Odd, so that it visits different groups. */
static __always_inline __u32 stride(const struct way *way)
{
	return other_bits(way) | 1;
}

/* The group of the i-th place of a way, 0 <= i < PROBE_SLOTS. */
static __always_inline __u32 group_at(const struct way *way, __u32 i, const struct settings *set)
{
	if (i < GROUP_SLOTS)
		return way->group;
	return (way->group + stride(way) * (i / GROUP_SLOTS)) & set->group_mask;
}

/* The slot of the i-th place of a way, counted from the table's beginning. */
static __always_inline __u32 slot_at(const struct way *way, __u32 i, const struct settings *set)
{
	return group_at(way, i, set) << GROUP_SLOTS_SHIFT | ((way->home + i) & (GROUP_SLOTS - 1));
}

/* The i-th place of a way. */
static __always_inline struct connection *place(const struct way *way, __u32 i,
						const struct settings *set)
{
	__u32 index = group_at(way, i, set);
	struct connection_group *group;

	group = bpf_map_lookup_elem(&connections, &index);
	if (!group)
		return NULL;
	return &group->slots[(way->home + i) & (GROUP_SLOTS - 1)];
}

#endif
