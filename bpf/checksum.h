/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * checksum.h: sums for Internet checksums (RFC 1071).
 */
#ifndef FAIRLEAD_CHECKSUM_H
#define FAIRLEAD_CHECKSUM_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum {
	/* What is summed up of a frame, at most; larger packets are too big for a
	 * tunnel with a checksum. The mask is a bound for the verifier. */
	MAX_SUMMED = 16384,
	SUM_STEP = 32,
	SUM_MASK = 2 * MAX_SUMMED - 1,
};

/* The checksum of what adds up to that. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The same of at most 32 bits. */
static __always_inline __u16 fold32(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* The same of some words of 32 bits, in the upper half of the word that it is to be a part of:
 * once the sum is folded to 32 bits, its halves and their carry meet in the multiplication. */
static __always_inline __u32 fold_upper(__u64 sum)
{
	sum = (__u32)sum + (sum >> 32);
	return ~(__u32)(sum * 0x100010001 >> 16) & 0xffff0000;
}

static __always_inline __u64 halves(__u64 word)
{
	return (__u32)word + (word >> 32);
}

/* A sum under way. */
struct summing {
	struct xdp_md *ctx;
	__u32 offset;		/* in the frame */
	__u32 steps;		/* that were done */
	__u64 sum;
};

static int sum_step(__u32 i, void *arg)
{
	struct summing *s = arg;
	const __u64 *words = (void *)(long)s->ctx->data + ((s->offset + i * SUM_STEP) & SUM_MASK);

	if ((void *)words + SUM_STEP > (void *)(long)s->ctx->data_end)
		return 1;
	for (int w = 0; w < SUM_STEP / sizeof(*words); w++)
		s->sum += halves(words[w]);
	s->steps = i + 1;
	return 0;
}

/*
 * Folded one's complement sum of so many bytes of a frame, or -1 if it does not have
 * them. Not static: see answer_icmp.
 */
__noinline int sum_frame(struct xdp_md *ctx, __u32 offset, __u32 length)
{
	struct summing s = { .ctx = ctx, .offset = offset };
	void *end, *p;

	bpf_loop(length / SUM_STEP, sum_step, &s, 0);
	if (s.steps != length / SUM_STEP)
		return -1;
	p = (void *)(long)ctx->data + ((offset + length / SUM_STEP * SUM_STEP) & SUM_MASK);
	end = (void *)(long)ctx->data_end;
	length %= SUM_STEP;
	for (int i = 0; i < SUM_STEP / 2; i++) {
		if (length < 2)
			break;
		if (p + 2 > end)
			return -1;
		s.sum += *(const __u16 *)p;
		p += 2;
		length -= 2;
	}
	if (length) {
		if (p + 1 > end)
			return -1;
		s.sum += *(const __u8 *)p;
	}
	return (__u16)~fold(s.sum);
}

#endif
