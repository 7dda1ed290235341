/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * frame.h: a frame as XDP has it: how long it is, how its ends move, how it leaves. The
 * program for tc is built with frame_tc.h in place of this one; the stages know no
 * difference.
 *
 * The headers lie between data and data_end; the rest may lie in further buffers
 * (jumbo frames, frames put together by the NIC).
 */
#ifndef FAIRLEAD_FRAME_H
#define FAIRLEAD_FRAME_H

#include "checksum_change.h"
#include "packet.h"

#define DIRECTOR_SECTION SEC("xdp.frags")

enum {
	PULLED = 0,		/* bytes: the driver sees to it */
};

/* What is known of a frame beside its bytes: here, nothing. */
static __always_inline void read_metadata(const struct xdp_md *ctx, struct packet *pkt,
					  enum verdict parsed)
{
	(void)ctx;
	(void)pkt;
	(void)parsed;
}

/* Whether a frame is more than its bytes say. */
static __always_inline bool has_metadata(const struct xdp_md *ctx)
{
	(void)ctx;
	return false;
}

/* The tag that a frame leaves with and that is no part of it: here, none. */
static __always_inline __u16 tag_beside(const struct xdp_md *ctx)
{
	(void)ctx;
	return 0;
}

/* Sees to it that the first bytes of a frame lie between data and data_end. */
static __always_inline void pull_frame(struct xdp_md *ctx, __u32 length)
{
	(void)ctx;
	(void)length;
}

/* Cuts a frame to a length. Returns whether it could. */
static __always_inline bool cut_frame(struct xdp_md *ctx, __u32 length)
{
	return !bpf_xdp_adjust_tail(ctx, (int)length - (int)bpf_xdp_get_buff_len(ctx));
}

/* Makes room before a frame. Returns whether it could. */
static __always_inline bool extend_front(struct xdp_md *ctx, __u32 bytes)
{
	return !bpf_xdp_adjust_head(ctx, -(int)bytes);
}

/* Gives the frame the tag that its next hop wants, in place of those it has.
 * Not static: see answer_icmp. */
__noinline int retag(struct xdp_md *ctx, const struct packet *pkt, __u16 vlan)
{
	int wants = vlan ? sizeof(struct vlan_header) : 0;
	struct vlan_header *tag;
	struct ethhdr *eth;
	__be16 ethertype;

	if (!pkt)
		return BUG_ADJUST;
	ethertype = pkt->ethertype;
	if (bpf_xdp_adjust_head(ctx, pkt->tags * (int)sizeof(*tag) - wants))
		return BUG_ADJUST;
	eth = (void *)(long)ctx->data;
	tag = (void *)(eth + 1);
	if ((void *)(tag + 1) > (void *)(long)ctx->data_end)
		return BUG_ADJUST;
	eth->h_proto = ethertype;
	if (vlan) {
		eth->h_proto = bpf_htons(ETH_P_8021Q);
		tag->tci = bpf_htons(vlan);
		tag->protocol = ethertype;
	}
	return FORWARD;
}

/* Makes room for the outer header of a tunnel, behind a MAC header with the tag that the
 * next hop wants. Returns the frame, which holds that and, behind it, as many bytes as an
 * IPv4 header has; or NULL. */
static __always_inline struct ethernet *open_outer(struct xdp_md *ctx, const struct packet *pkt,
						   __u16 vlan, const struct tunnel *t)
{
	__u32 header = sizeof(struct ethhdr) + (vlan ? sizeof(struct vlan_header) : 0);
	struct vlan_header *tag;
	struct ethernet *eth;

	if (bpf_xdp_adjust_head(ctx, (int)(pkt->l3 & 31) - (int)(header + t->overhead)))
		return NULL;
	eth = (void *)(long)ctx->data;
	tag = (void *)eth + sizeof(struct ethhdr);
	if ((void *)eth + header + sizeof(struct iphdr) > (void *)(long)ctx->data_end)
		return NULL;
	eth->ethertype = vlan ? bpf_htons(ETH_P_8021Q) : t->ethertype;
	if (vlan) {
		tag->tci = bpf_htons(vlan);
		tag->protocol = t->ethertype;
	}
	return eth;
}

/* Changes a checksum of TCP for a word that was changed (RFC 1624, equation 3). */
static __always_inline bool change_check(struct xdp_md *ctx, __u32 at, __u16 was, __u16 is)
{
	__sum16 *check;
	__u32 sum;

	at = forget(at);
	if (at > MAX_L2 + MAX_L4_OFFSET + sizeof(struct tcphdr))
		return false;
	check = (void *)(long)ctx->data + at;
	if ((void *)(check + 1) > (void *)(long)ctx->data_end)
		return false;
	sum = (__u16)~*check + (__u16)~was + is;
	sum = (sum & 0xffff) + (sum >> 16);
	*check = ~((sum & 0xffff) + (sum >> 16));
	return true;
}

/* Where the IP header lies in a frame with the tag that its next hop wants. */
static __always_inline __u32 l3_behind(__u16 vlan)
{
	return sizeof(struct ethhdr) + (vlan ? sizeof(struct vlan_header) : 0);
}

/* Changes the checksum of TCP or UDP by what addresses and ports changed by, each of them
 * narrow. UDP may have none. */
static __always_inline bool change_upper_sum(struct xdp_md *ctx, __u32 offset, __u32 addresses,
					     __u32 ports, bool udp)
{
	__sum16 *check = (void *)(long)ctx->data + offset;

	if ((void *)(check + 1) > (void *)(long)ctx->data_end)
		return false;
	if (udp && !*check)
		return true;
	*check = change_narrow(*check, addresses + ports);
	if (udp && !*check)
		*check = 0xffff;
	return true;
}

/* Whether the kernel will complete the checksum of a packet's upper layer yet: here, never. */
static __always_inline bool is_unfinished(const struct xdp_md *ctx, const struct packet *pkt,
					  __u32 *sum)
{
	(void)ctx;
	(void)pkt;
	(void)sum;
	return false;
}

enum {
	/* Up to the end of a TCP header without options; behind more extension headers
	 * no option is added. */
	MAX_HEADERS_MOVED = 128,
	/* What is added: see toa.h. */
	OPTION_WORDS_IPV4 = 8 / 2,
	OPTION_WORDS_IPV6 = 20 / 2,
};

/* Moves so many bytes, which are even, of a frame's head to its beginning, over some words
 * of two. */
static __always_inline bool move_head(struct xdp_md *ctx, __u32 bytes, __u32 over)
{
	__u16 *to = (void *)(long)ctx->data;

	for (int i = 0; i < MAX_HEADERS_MOVED / 2; i++, to++) {
		if (2 * i >= bytes)
			return true;
		if ((void *)(to + over + 1) > (void *)(long)ctx->data_end)
			return false;
		*to = to[over];
	}
	return true;
}

/* Makes room for an option behind the TCP header at l4, by moving what is before it: so it
 * lies there still. Returns false, and nothing is changed, if there is none. */
static __always_inline bool open_option(struct xdp_md *ctx, const struct packet *pkt, __u32 l4,
					bool ipv4)
{
	__u32 head = forget(l4 + sizeof(struct tcphdr));

	(void)pkt;
	if (head > MAX_HEADERS_MOVED)
		return false;
	if (ipv4)
		return !bpf_xdp_adjust_head(ctx, -2 * OPTION_WORDS_IPV4) &&
		       move_head(ctx, head, OPTION_WORDS_IPV4);
	return !bpf_xdp_adjust_head(ctx, -2 * OPTION_WORDS_IPV6) &&
	       move_head(ctx, head, OPTION_WORDS_IPV6);
}

/* What a program returns for an XDP action. */
static __always_inline int leave_program(struct xdp_md *ctx, int action)
{
	(void)ctx;
	return action;
}

#endif
