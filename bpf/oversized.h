/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * oversized.h: a packet that is larger than its way carries, and may be fragmented (IPv4
 * without DF). A program here makes one frame of one frame: the director makes the
 * fragments. It gets the frame as it would have left, through a ring buffer of its own,
 * so that nobody's fragments lose their room to it.
 */
#ifndef FAIRLEAD_OVERSIZED_H
#define FAIRLEAD_OVERSIZED_H

#include "frame.h"
#include "maps.h"

struct oversized_frame {
	struct oversized head;
	__u8 frame[MAX_OVERSIZED_FRAME];
};

/* The frame that a CPU is about to hand over. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct oversized_frame);
} oversized_frames SEC(".maps");

/*
 * Hands the director a frame that is to leave by `out`, whose packet begins at pkt->l3
 * by now and may be as large as pkt->mtu. FORWARD_IN_FRAGMENTS, or why not. Not static:
 * see answer_icmp.
 */
__noinline int hand_over_oversized(struct xdp_md *ctx, const struct packet *pkt, __u32 out)
{
	__u32 zero = 0, length = bpf_xdp_get_buff_len(ctx);
	struct oversized_frame *o;

	if (!pkt)
		return BUG_MAP;
	/* An aggregate is many packets. */
	if (pkt->size != pkt->length)
		return DROP_TOO_BIG;
	o = bpf_map_lookup_elem(&oversized_frames, &zero);
	if (!o)
		return BUG_MAP;
	o->head.ifindex = out;
	o->head.length = length;
	o->head.mtu = pkt->mtu;
	o->head.l3 = pkt->l3;
	o->head.tag = tag_beside(ctx);
	if (!copy_frame(ctx, &length, o->frame, MAX_OVERSIZED_FRAME) ||
	    bpf_ringbuf_output(&oversized_packets, o, sizeof(o->head) + length, 0))
		return DROP_TOO_BIG;
	return FORWARD_IN_FRAGMENTS;
}

#endif
