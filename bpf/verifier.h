/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * verifier.h: what the compiler and the verifier are told of the code, and what they are
 * kept from knowing.
 */
#ifndef FAIRLEAD_VERIFIER_H
#define FAIRLEAD_VERIFIER_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Where the compiler lays the common path: without jumps. */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/*
 * Makes the verifier forget what it knows of a number: it does not follow
 * values through halves of a stack slot. Paths that differ in that number alone
 * are then the same to it, and what comes after is verified once, not for each.
 */
static __always_inline __u32 forget(__u32 number)
{
	volatile __u16 halves[2] __attribute__((aligned(8)));

	halves[0] = number;
	halves[1] = number >> 16;
	return *(volatile __u32 *)halves;
}

/*
 * Makes the compiler forget what it knows of a number. It would see that a
 * packet's length implies a check of the frame's end and leave that out; the
 * verifier does not see it.
 */
static __always_inline __u32 hide(__u32 number)
{
	asm volatile("" : "+r"(number));
	return number;
}

/* A number of two bytes from the wire. The verifier of Linux 6.1 does not know
 * that swapping bytes leaves no more than sixteen bits. */
static __always_inline __u64 wire16(__be16 number)
{
	__u64 swapped = bpf_ntohs(number);

	asm volatile("%0 &= 0xffff" : "+r"(swapped));
	return swapped;
}

#endif
