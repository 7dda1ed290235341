/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * schedule_table.h: dh, sh and mh, which look an address up in a table that Go
 * has filled (internal/scheduler). The hashes are the kernel's, bit for bit
 * (ip_vs_dh.c, ip_vs_sh.c, ip_vs_mh.c, lib/siphash.c).
 */
#ifndef FAIRLEAD_SCHEDULE_TABLE_H
#define FAIRLEAD_SCHEDULE_TABLE_H

#include "schedule_walk.h"

/* include/linux/hash.h, GOLDEN_RATIO_32 */
static const __u32 GOLDEN_RATIO = 0x61c88647;

/* Both words of the first key of ip_vs_mh.c. */
static const __u64 MH_KEY = 2654435761;

/* An address as the kernel's schedulers hash it: the IPv4 address, or the four
 * words of the IPv6 address combined, in host order. */
static __always_inline __u32 fold_address(const struct address *addr)
{
	__u32 fold = addr->low >> 32;

	if (addr->high || (__u32)addr->low != 0xffff0000)
		fold ^= (__u32)addr->low ^ (__u32)addr->high ^ addr->high >> 32;
	return bpf_ntohl(fold);
}

static __always_inline __u64 rotate(__u64 word, __u32 bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void sip_round(__u64 v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

/* hsiphash of one 32-bit word on a 64-bit kernel: SipHash-1-3, its lower half. */
static __always_inline __u32 hash_mh(__u32 word)
{
	__u64 last = 4ULL << 56 | word;
	__u64 v[4] = {
		0x736f6d6570736575 ^ MH_KEY, 0x646f72616e646f6d ^ MH_KEY,
		0x6c7967656e657261 ^ MH_KEY, 0x7465646279746573 ^ MH_KEY,
	};

	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The least above 2^43 / MAGLEV_TABLE_SLOTS. */
static const __u64 MAGLEV_INVERSE = ((1ULL << 43) + MAGLEV_TABLE_SLOTS - 1) / MAGLEV_TABLE_SLOTS;

_Static_assert((((1ULL << 43) + MAGLEV_TABLE_SLOTS - 1) / MAGLEV_TABLE_SLOTS) * MAGLEV_TABLE_SLOTS -
	       (1ULL << 43) <= 1ULL << (43 - 32), "the quotient of every 32-bit hash is exact");

/* hash % MAGLEV_TABLE_SLOTS, by a multiplication in place of the division. */
static __always_inline __u32 maglev_slot(__u32 hash)
{
	return hash - (__u32)(hash * MAGLEV_INVERSE >> 43) * MAGLEV_TABLE_SLOTS;
}

/* hash_32() of that many bits, those of a table with 256 slots. */
static __always_inline __u32 hash_sh(__u32 word)
{
	return word * GOLDEN_RATIO >> (32 - HASH_TABLE_BITS);
}

/* A search in a table: by whom, and whom it found. */
struct search {
	const struct edition *edition;
	__u32 word;		/* what is hashed */
	__u32 first;		/* the slot that it belongs to */
	int excluded;		/* a server that is not to be chosen, or NO_SERVER */
	int server;		/* the choice */
};

/* The server in a slot of an edition's table, if it may be chosen. */
static __always_inline int server_in(const struct edition *edition, __u32 slot, int excluded)
{
	__u32 key = edition->table + slot / TABLE_LINE_SLOTS;
	const struct table_line *line = bpf_map_lookup_elem(&tables, &key);
	const struct real_server *server;
	__u32 index;

	if (!line || !edition->table_lines)
		return NO_SERVER;
	index = line->servers[slot % TABLE_LINE_SLOTS];
	server = get_server(index);
	return server && is_usable(server) && (int)index != excluded ? (int)index : NO_SERVER;
}

static __always_inline int usable_in(const struct search *search, __u32 slot)
{
	return server_in(search->edition, slot, search->excluded);
}

/* The fallback of sh: the slots one after another. It begins at twice the slot,
 * since ip_vs_sh.c adds that to the hash once more. */
static int visit_next_slot(__u32 i, void *ctx)
{
	struct search *search = ctx;

	search->server = usable_in(search, (2 * search->first + i) % HASH_TABLE_SLOTS);
	return search->server != NO_SERVER;
}

/* The fallback of mh: the slots of other hashes. */
static int visit_rehashed_slot(__u32 i, void *ctx)
{
	struct search *search = ctx;
	__u32 offset = (search->first + i) % MAGLEV_TABLE_SLOTS;

	search->server = usable_in(search, maglev_slot(hash_mh(offset + search->word)));
	return search->server != NO_SERVER;
}

/* The client, and its port if the flag is set, which sh and mh share. */
static __always_inline __u32 client_word(const struct edition *edition, const struct flow *flow)
{
	__u32 word = fold_address(&flow->caddr);

	if (edition->flags & FLAG_PORT)
		word += bpf_ntohs(flow_cport(flow));
	return word;
}

/* The slots that a flow belongs to. */
static __always_inline __u32 slot_dh(const struct flow *flow)
{
	return hash_sh(fold_address(&flow->vaddr));
}

static __always_inline __u32 slot_sh(const struct edition *edition, const struct flow *flow)
{
	return hash_sh(client_word(edition, flow));
}

static __always_inline __u32 slot_mh(const struct edition *edition, const struct flow *flow)
{
	return maglev_slot(hash_mh(client_word(edition, flow)));
}

/* dh, which asks for the virtual address, and has no fallback of its own. */
__noinline int choose_dh(struct edition *edition, const struct flow *flow, int excluded)
{
	struct search search = { .edition = edition, .excluded = excluded };

	if (!edition || !flow || !edition->table_lines)
		return NO_SERVER;
	search.first = slot_dh(flow);
	search.server = usable_in(&search, search.first);
	if (search.server == NO_SERVER && excluded != NO_SERVER)
		bpf_loop(HASH_TABLE_SLOTS, visit_next_slot, &search, 0);
	return search.server;
}

__noinline int choose_sh(struct edition *edition, const struct flow *flow, int excluded)
{
	struct search search = { .edition = edition, .excluded = excluded };

	if (!edition || !flow || !edition->table_lines)
		return NO_SERVER;
	search.first = slot_sh(edition, flow);
	search.server = usable_in(&search, search.first);
	if (search.server == NO_SERVER && (edition->flags & FLAG_FALLBACK || excluded != NO_SERVER))
		bpf_loop(HASH_TABLE_SLOTS, visit_next_slot, &search, 0);
	return search.server;
}

__noinline int choose_mh(struct edition *edition, const struct flow *flow, int excluded)
{
	struct search search = { .edition = edition, .excluded = excluded };

	if (!edition || !flow || !edition->table_lines)
		return NO_SERVER;
	search.word = client_word(edition, flow);
	search.first = slot_mh(edition, flow);
	search.server = usable_in(&search, search.first);
	if (search.server == NO_SERVER && (edition->flags & FLAG_FALLBACK || excluded != NO_SERVER))
		bpf_loop(MAGLEV_TABLE_SLOTS, visit_rehashed_slot, &search, 0);
	return search.server;
}

#endif
