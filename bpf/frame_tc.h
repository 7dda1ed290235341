/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * frame_tc.h: a frame as tc has it, in place of frame.h. It may be an aggregate of many
 * segments (GRO, LRO), its outer VLAN tag lies beside it, and it may carry a mark.
 */
#ifndef FAIRLEAD_FRAME_H
#define FAIRLEAD_FRAME_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

/* The stages take a struct xdp_md. What they ask of it and of its helpers goes by
 * other names here; tc's ingress_ifindex is what a frame came in on first. */
#define xdp_md __sk_buff
#define ingress_ifindex ifindex
#define bpf_xdp_load_bytes bpf_skb_load_bytes
#define bpf_xdp_get_buff_len(ctx) ((ctx)->len)

#include "checksum_change.h"
#include "packet.h"

#define DIRECTOR_SECTION SEC("tc")

/* XDP actions, which are translated when the program is left; a redirection is
 * tc's own already. */
enum {
	PULLED = 192,		/* bytes: as good as all headers */
};

static __always_inline __u32 transport_header(const struct packet *pkt, const void *data,
					      const void *end)
{
	__u32 offset = forget(pkt->l3 + pkt->l4);
	const struct tcphdr *tcp = data + offset;

	if (flow_protocol(&pkt->flow) != IPPROTO_TCP)
		return sizeof(struct udphdr);
	if (offset > MAX_L4_OFFSET || (const void *)(tcp + 1) > end)
		return sizeof(*tcp);
	return tcp->doff * 4;
}

/* The outer VLAN tag, the mark, and of an aggregate the size of its segments. */
static __always_inline void read_metadata(const struct xdp_md *ctx, struct packet *pkt,
					  enum verdict parsed)
{
	pkt->mark = ctx->mark;
	if (ctx->vlan_present) {
		pkt->tags++;
		pkt->vlan = pkt->tags == 1 && ctx->vlan_proto == bpf_htons(ETH_P_8021Q) ?
			ctx->vlan_tci & VLAN_VID : 0;
	}
	if (ctx->gso_size && parsed == CONTINUE)
		pkt->size = pkt->l4 + ctx->gso_size +
			    transport_header(pkt, (void *)(long)ctx->data,
					     (void *)(long)ctx->data_end);
}

static __always_inline bool has_metadata(const struct xdp_md *ctx)
{
	return ctx->vlan_present | ctx->mark;
}

static __always_inline __u16 tag_beside(const struct xdp_md *ctx)
{
	return ctx->vlan_present ? ctx->vlan_tci : 0;
}

static __always_inline void pull_frame(struct xdp_md *ctx, __u32 length)
{
	__u32 whole = ctx->len;

	if (length > whole)
		length = whole;
	if ((__u32)(ctx->data_end - ctx->data) < length)
		bpf_skb_pull_data(ctx, length);
}

static __always_inline bool cut_frame(struct xdp_md *ctx, __u32 length)
{
	return !bpf_skb_change_tail(ctx, length, 0);
}

static __always_inline bool extend_front(struct xdp_md *ctx, __u32 bytes)
{
	return !bpf_skb_change_head(ctx, bytes, 0);
}

/* Not static: see answer_icmp. */
__noinline int retag(struct xdp_md *ctx, const struct packet *pkt, __u16 vlan)
{
	if (!pkt)
		return BUG_ADJUST;
	for (int i = 0; i < MAX_VLAN_TAGS + 1; i++) {
		if (i >= pkt->tags)
			break;
		if (bpf_skb_vlan_pop(ctx))
			return BUG_ADJUST;
	}
	if (vlan && bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), vlan))
		return BUG_ADJUST;
	return FORWARD;
}

/* What the kernel needs to know of an outer header, to segment an aggregate in it. */
static __always_inline __u64 outer_flags(const struct tunnel *t)
{
	bool ipv4 = t->ethertype == bpf_htons(ETH_P_IP);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO |
		      (ipv4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);

	if (t->type == TUNNEL_GUE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (t->type == TUNNEL_GRE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	return flags;
}

static __always_inline struct ethernet *open_outer(struct xdp_md *ctx, const struct packet *pkt,
						   __u16 vlan, const struct tunnel *t)
{
	struct ethernet *eth;

	if (((pkt->tags || vlan) && retag(ctx, pkt, vlan) != FORWARD) ||
	    bpf_skb_adjust_room(ctx, t->overhead, BPF_ADJ_ROOM_MAC,
				outer_flags(t)))
		return NULL;
	eth = (void *)(long)ctx->data;
	if ((void *)eth + sizeof(struct ethhdr) + sizeof(struct iphdr) > (void *)(long)ctx->data_end)
		return NULL;
	eth->ethertype = t->ethertype;
	return eth;
}

/* The kernel knows whether the checksum is still to be made by hardware. */
static __always_inline bool change_check(struct xdp_md *ctx, __u32 at, __u16 was, __u16 is)
{
	return !bpf_l4_csum_replace(ctx, at, was, is, sizeof(was));
}

static __always_inline __u32 l3_behind(__u16 vlan)
{
	(void)vlan;
	return sizeof(struct ethhdr);
}

/* The kernel knows whether the checksum is still to be completed by the device, and is
 * of the addresses alone until then. */
static __always_inline bool change_upper_sum(struct xdp_md *ctx, __u32 offset, __u32 addresses,
					     __u32 ports, bool udp)
{
	__u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;

	return !bpf_l4_csum_replace(ctx, offset, 0, fold_sum(addresses),
				    flags | BPF_F_PSEUDO_HDR) &&
	       !bpf_l4_csum_replace(ctx, offset, 0, fold_sum(ports), flags);
}

/* Whether the kernel will complete the checksum of a packet's upper layer yet, as that of every
 * aggregate. Then it tells what the upper layer will add up to, however short it is cut: to the
 * complement of what is there now, for the checksum is to be that of all the rest. */
static __always_inline bool is_unfinished(const struct xdp_md *ctx, const struct packet *pkt,
					  __u32 *sum)
{
	bool udp = flow_protocol(&pkt->flow) == IPPROTO_UDP;
	__u32 l4 = bound_offset(pkt->l3 + pkt->l4);
	const void *header = (void *)(long)ctx->data + l4;

	if (!ctx->gso_size || header + sizeof(struct tcphdr) > (void *)(long)ctx->data_end)
		return false;
	*sum = (__u16)~(udp ? ((const struct udphdr *)header)->check :
			      ((const struct tcphdr *)header)->check);
	return true;
}

enum {
	MAX_OPTIONS_MOVED = 32,	/* with eight bytes more they are as long as can be */
	OPTION_WORDS_IPV4 = 8 / 4,
	OPTION_WORDS_IPV6 = 20 / 4,
};

/* Moves the TCP options that begin at an offset back by some words. */
static __always_inline bool move_options(struct xdp_md *ctx, __u32 at, __u32 bytes, __u32 over)
{
	__u32 *options = (void *)(long)ctx->data + at;

	if ((void *)(options + MAX_OPTIONS_MOVED / 4 + over) > (void *)(long)ctx->data_end)
		return bytes == 0;
	for (int i = MAX_OPTIONS_MOVED / 4 - 1; i >= 0; i--)
		if (4 * i < bytes)
			options[i + over] = options[i];
	return true;
}

/* Makes room for an option behind the TCP header at l4. The kernel keeps where the header
 * lies, so that nothing before it may move; what has a payload is left as it is. Returns
 * false, and nothing is changed, if there is no room. */
static __always_inline bool open_option(struct xdp_md *ctx, const struct packet *pkt, __u32 l4,
					bool ipv4)
{
	__u32 over = ipv4 ? OPTION_WORDS_IPV4 : OPTION_WORDS_IPV6, options, needed;
	const struct tcphdr *tcp;

	l4 = bound_offset(l4);
	tcp = (void *)(long)ctx->data + l4;
	if ((const void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return false;
	options = tcp->doff * 4 - sizeof(*tcp);
	if (pkt->length != pkt->l4 + sizeof(*tcp) + options || options > MAX_OPTIONS_MOVED)
		return false;
	/* As much as is looked at, which the sender's padding may be part of. */
	needed = l4 + sizeof(*tcp) + MAX_OPTIONS_MOVED + 4 * over;
	if (bpf_skb_change_tail(ctx, needed, 0))
		return false;
	bpf_skb_pull_data(ctx, needed);
	l4 = bound_offset(l4) + sizeof(*tcp);
	if (!(ipv4 ? move_options(ctx, l4, options, OPTION_WORDS_IPV4) :
		     move_options(ctx, l4, options, OPTION_WORDS_IPV6)))
		return false;
	return !bpf_skb_change_tail(ctx, l4 + options + 4 * over, 0);
}

static __always_inline int leave_program(struct xdp_md *ctx, int action)
{
	switch (action) {
	case XDP_DROP:
		return TC_ACT_SHOT;
	case XDP_TX:
		return bpf_redirect(ctx->ifindex, 0);
	case TC_ACT_REDIRECT:
		return action;
	}
	return TC_ACT_UNSPEC; /* the next program, if there is one, then the host */
}

#endif
