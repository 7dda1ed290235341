/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule_walk.h: walk over a server list. What every scheduler that looks at
 * the servers one by one is made of.
 */
#ifndef FAIRLEAD_SCHEDULE_WALK_H
#define FAIRLEAD_SCHEDULE_WALK_H

#include "maps.h"
#include "packet.h"

enum {
	NO_SERVER = -1,
};

/* A walk over (part of) a server list: what it looks for, what it found. */
struct walk {
	const struct edition *edition;
	__u32 first;		/* position in the list */
	__u32 found;		/* position of the choice */
	int excluded;		/* a server that is not to be chosen, or NO_SERVER */
	int server;		/* the choice */
	__u32 least_weight;	/* wrr: what a server must have */
	__u32 highest;		/* the highest usable weight seen */
	__u32 load_weight;	/* the choice's weight and load so far */
	__u64 load;
};

#define new_walk(edition_, excluded_) \
	((struct walk){ .edition = (edition_), .server = NO_SERVER, .excluded = (excluded_) })

/* Linux 6.1 takes no loop that is closed by falling through into its head, as
 * the compiler lays retries out. */
#define unrolled_for _Pragma("clang loop unroll(full)") for

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

/* The server at a position of a list, if a walk may choose it. */
static __always_inline struct real_server *usable_at(const struct edition *edition, int excluded,
						     __u32 position, __u32 *index)
{
	struct real_server *server = server_at(edition, position, index);

	return server && is_usable(server) && (int)*index != excluded ? server : NULL;
}

/* Walks count positions from walk->first on. */
#define walk_servers(walk, count, visit) \
	bpf_loop((count) < MAX_LIST ? (count) : MAX_LIST, visit, walk, 0)

static int visit_usable(__u32 i, void *ctx)
{
	struct walk *walk = ctx;
	__u32 position = walk->first + i;
	__u32 index;

	if (position >= walk->edition->servers)
		position -= walk->edition->servers;
	if (!usable_at(walk->edition, walk->excluded, position, &index))
		return 0;
	walk->server = index;
	walk->found = position;
	return 1;
}

/* Where the packets of a flow go that has no entry because the table is full:
 * the same server for each of them, as long as the list stays as it is.
 * Not static: see answer_icmp. */
__noinline int choose_by_hash(struct edition *edition, __u64 hash)
{
	struct walk walk = new_walk(edition, NO_SERVER);

	if (!edition || !edition->servers)
		return NO_SERVER;
	walk.first = (__u32)hash % edition->servers;
	walk_servers(&walk, edition->servers, visit_usable);
	return walk.server;
}

#endif
