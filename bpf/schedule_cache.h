/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule_cache.h: lblc and lblcr, which remember who served a virtual address
 * (ip_vs_lblc.c, ip_vs_lblcr.c). Go takes out what was not used for long, with
 * the kernel's timer (internal/scheduler/cache.go).
 */
#ifndef FAIRLEAD_SCHEDULE_CACHE_H
#define FAIRLEAD_SCHEDULE_CACHE_H

#include "schedule_load.h"

static const struct cache_entry empty_cache_entry;

static __always_inline struct cache_entry *find_cached(const struct edition *edition,
						       const struct flow *flow)
{
	struct cache_key key = { .vaddr = flow->vaddr, .cache = edition->cache };

	return bpf_map_lookup_elem(&caches, &key);
}

/* Makes an entry that remembers nobody yet; NULL without memory. */
static __always_inline struct cache_entry *add_cached(const struct edition *edition,
						      const struct flow *flow)
{
	struct cache_key key = { .vaddr = flow->vaddr, .cache = edition->cache };

	bpf_map_update_elem(&caches, &key, &empty_cache_entry, BPF_NOEXIST);
	return bpf_map_lookup_elem(&caches, &key);
}

/* A server as a cache remembers it: not another one that has its slot by now. */
static __always_inline __u32 cache_word(__u32 index, const struct real_server *server)
{
	return server->incarnation << 16 | index;
}

static __always_inline struct real_server *cached_server(__u32 word, __u32 *index)
{
	struct real_server *server;

	*index = word & 0xffff;
	server = get_server(*index);
	return server && cache_word(*index, server) == word ? server : NULL;
}

/* Changes to the servers of an entry are made by one CPU at a time; another one
 * goes without: it has made its choice already. */
static __always_inline bool lock_cached(struct cache_entry *entry)
{
	return __sync_val_compare_and_swap(&entry->busy, 0, 1) == 0;
}

static __always_inline void unlock_cached(struct cache_entry *entry)
{
	__sync_fetch_and_and(&entry->busy, 0);
}

static int visit_half_idle(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	const struct real_server *server = server_at(walk->edition, i, &walk->found);

	if (!server || (__u64)server->active * 2 >= server->weight)
		return 0;
	walk->server = walk->found;
	return 1;
}

/* Whether a server has more than its weight says while another has less than
 * half of that. */
static __always_inline bool is_swamped(const struct edition *edition,
				       const struct real_server *server)
{
	struct walk walk = new_walk(edition, NO_SERVER);

	if (server->active <= server->weight)
		return false;
	walk_servers(&walk, edition->servers, visit_half_idle);
	return walk.server != NO_SERVER;
}

/* --- lblc --------------------------------------------------------------- */

/* The remembered server unless it is gone, quiesced or swamped: then the one
 * that wlc chooses, which is remembered in its place. */
__noinline int choose_lblc(struct edition *edition, const struct flow *flow, __u32 now)
{
	const struct real_server *server;
	struct cache_entry *entry;
	__u32 index;
	int choice;

	if (!edition || !flow)
		return NO_SERVER;
	entry = find_cached(edition, flow);
	if (entry) {
		entry->last_used = now;
		server = cached_server(entry->servers[0], &index);
		if (server && server->state == SERVER_LISTED && server->weight &&
		    !is_swamped(edition, server))
			return index;
	}
	choice = choose_wlc(edition, NO_SERVER);
	server = get_server(choice);
	if (!server)
		return NO_SERVER;
	entry = add_cached(edition, flow);
	if (entry) {
		entry->last_used = now;
		*(volatile __u32 *)&entry->servers[0] = cache_word(choice, server);
	}
	return choice;
}

/* --- lblcr -------------------------------------------------------------- */

/* A walk over the servers of an entry, from the newest on. */
struct member_walk {
	struct walk walk;
	const struct cache_entry *entry;
	__u32 size;
	__u32 wanted;		/* the word of the server that is looked for */
};

/* The word at a place of the walk. */
static __always_inline __u32 member_at(const struct member_walk *members, __u32 i)
{
	__u32 at = members->size - 1 - i;

	return at < CACHE_SERVERS ? members->entry->servers[at] : ~0;
}

static int visit_least_member(__u32 i, void *ctx)
{
	struct member_walk *members = ctx;
	__u32 index;
	const struct real_server *server = cached_server(member_at(members, i), &index);

	if (server && server->state == SERVER_LISTED && is_usable(server))
		consider(&members->walk, index, connection_load(server), server->weight);
	return 0;
}

/* Whoever has most to do, whether it can be chosen or not. */
static int visit_most_member(__u32 i, void *ctx)
{
	struct member_walk *members = ctx;
	struct walk *walk = &members->walk;
	__u32 index;
	const struct real_server *server = cached_server(member_at(members, i), &index);
	__u64 load;

	if (!server || !server->weight)
		return 0;
	load = connection_load(server);
	if (walk->server != NO_SERVER &&
	    walk->load * server->weight >= load * walk->load_weight)
		return 0;
	walk->server = index;
	walk->found = members->size - 1 - i;
	walk->load = load;
	walk->load_weight = server->weight;
	return 0;
}

static int visit_wanted_member(__u32 i, void *ctx)
{
	struct member_walk *members = ctx;

	if (member_at(members, i) != members->wanted)
		return 0;
	members->walk.server = 0;
	return 1;
}

static __always_inline struct member_walk walk_members(const struct edition *edition,
						       const struct cache_entry *entry)
{
	__u32 size = *(const volatile __u32 *)&entry->size;

	return (struct member_walk){
		.walk = new_walk(edition, NO_SERVER),
		.entry = entry,
		.size = size < CACHE_SERVERS ? size : CACHE_SERVERS,
	};
}

/* Takes the server at a place out of an entry that is locked. */
static __always_inline void drop_member(struct cache_entry *entry, __u32 place, __u32 now)
{
	for (__u32 i = 0; i < CACHE_SERVERS - 1; i++)
		if (i >= place)
			entry->servers[i] = entry->servers[i + 1];
	entry->size--;
	entry->last_changed = now;
}

/* A set that did not change for long loses the server that has most to do. */
__noinline int shrink_cached(struct edition *edition, struct cache_entry *entry, __u32 now)
{
	struct member_walk members;

	if (!edition || !entry || !lock_cached(entry))
		return 0;
	members = walk_members(edition, entry);
	bpf_loop(members.size, visit_most_member, &members, 0);
	if (members.walk.server != NO_SERVER)
		drop_member(entry, members.walk.found, now);
	unlock_cached(entry);
	return 0;
}

/* Adds a server to an entry, unless it is in it. One that is full loses its
 * oldest server: in the kernel, it would grow. */
__noinline int join_cached(struct cache_entry *entry, __u32 word, __u32 now)
{
	struct member_walk members;
	__u32 size;

	if (!entry || !lock_cached(entry))
		return 0;
	members = walk_members(NULL, entry);
	members.wanted = word;
	bpf_loop(members.size, visit_wanted_member, &members, 0);
	if (members.walk.server == NO_SERVER) {
		if (members.size == CACHE_SERVERS)
			drop_member(entry, 0, now);
		size = entry->size;
		if (size < CACHE_SERVERS)
			*(volatile __u32 *)&entry->servers[size] = word;
		*(volatile __u32 *)&entry->size = size + 1;
		entry->last_changed = now;
	}
	unlock_cached(entry);
	return 0;
}

/* The least loaded of the servers that are remembered, or NO_SERVER. */
static __noinline int least_member(const struct edition *edition, const struct cache_entry *entry)
{
	struct member_walk members = walk_members(edition, entry);

	bpf_loop(members.size, visit_least_member, &members, 0);
	return members.walk.server;
}

/* Whether the servers of an entry stayed the same for so long that one has to go.
 * Another CPU may have changed them at a tick that is still to come here. */
static __always_inline bool is_settled(const struct cache_entry *entry, const struct settings *set,
				       __u32 now)
{
	__s64 seconds = set->policy.sysctls[SYSCTL_LBLCR_EXPIRATION];

	return entry->size > 1 &&
	       (__s32)(now - entry->last_changed) > seconds * set->hz >> TICK_JIFFIES_SHIFT;
}

/* The least loaded of the remembered servers unless it is swamped: then the one
 * that wlc chooses, which is remembered too. */
__noinline int choose_lblcr(struct edition *edition, const struct flow *flow, __u32 now)
{
	const struct settings *set = get_settings();
	const struct real_server *server;
	struct cache_entry *entry;
	int choice;

	if (!edition || !flow)
		return NO_SERVER;
	entry = find_cached(edition, flow);
	if (entry) {
		entry->last_used = now;
		choice = least_member(edition, entry);
		if (is_settled(entry, set, now))
			shrink_cached(edition, entry, now);
		server = get_server(choice);
		if (server && !is_swamped(edition, server))
			return choice;
	}
	choice = choose_wlc(edition, NO_SERVER);
	server = get_server(choice);
	if (!server)
		return NO_SERVER;
	if (!entry) {
		entry = add_cached(edition, flow);
		if (entry)
			entry->last_used = now;
	}
	if (entry)
		join_cached(entry, cache_word(choice, server), now);
	return choice;
}

#endif
