/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* hash.h: the hash of addresses and ports, with keys that no sender knows. */
#ifndef FAIRLEAD_HASH_H
#define FAIRLEAD_HASH_H

#include "abi.h"

/* Any odd number of mixed bits. */
static const __u64 MIX = 0x9e3779b97f4a7c15;

/*
 * Random 64-bit keys that no sender knows, multiplied and added. Flows of
 * neighbouring addresses and ports lie on a lattice then; folding and one more
 * multiplication break it up, and carry every bit to the uppermost ones, which
 * pick the group.
 */
static __always_inline __u64 hash_words(const struct address *caddr, const struct address *vaddr,
					__u64 word, const struct settings *set)
{
	__u64 h = (caddr->high + set->hash_keys[0]) * (caddr->low + set->hash_keys[1]) +
		  (vaddr->high + set->hash_keys[2]) * (vaddr->low + set->hash_keys[3]) +
		  word * set->hash_keys[4];

	return (h ^ h >> 32) * MIX;
}

#endif
