/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp.h: how packets come in and go out. The other stages know packets only.
 */
#ifndef FAIRLEAD_XDP_H
#define FAIRLEAD_XDP_H

#include "forward.h"
#include "frame.h"
#include "icmp.h"
#include "stats.h"

/* The compiler is kept from knowing when it is NULL: it would compare the indexes once more where
 * that is asked, from which the verifier learns nothing. */
static __always_inline struct interface *find_interface(__u32 ifindex)
{
	struct interface *in = &the_interfaces[ifindex % MAX_INTERFACES];

	if (unlikely(in->ifindex != ifindex))
		in = NULL;
	asm volatile("" : "+r"(in));
	return in;
}

/* CONTINUE, or why the packet is none of ours. Not static: see answer_icmp; and what
 * comes after it is verified once, not for each way through it. */
__noinline int parse_packet(struct xdp_md *ctx, struct packet *pkt, const struct interface *in)
{
	enum verdict v;

	if (!pkt || !in)
		return BUG_MAP;
	v = parse_frame(pkt, ctx, in);
	read_metadata(ctx, pkt, v);
	return v;
}

static __always_inline bool has_tag(const struct packet *pkt, __u16 vlan)
{
	return vlan ? pkt->vlan == vlan : !pkt->tags;
}

/* Rewrites the frame for its next hop: FORWARD or FORWARD_IN_FRAGMENTS, or why not. */
static __always_inline enum verdict forward(struct xdp_md *ctx, struct packet *pkt,
					    const struct next_hop *hop)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	enum verdict v;

	v = age_packet(pkt, data, end, hop->mtu);
	if (!goes_on(v))
		return v;
	if (!has_tag(pkt, hop->vlan) && retag(ctx, pkt, hop->vlan) != FORWARD)
		return BUG_ADJUST;
	if (unlikely(v != FORWARD))
		pkt->l3 = l3_behind(hop->vlan);
	data = (void *)(long)ctx->data;
	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return BUG_ADJUST;
	write_macs(data, hop);
	return v;
}

/* XDP_TX where the driver can; veth loses such frames unless its peer has a
 * program too, but takes redirected ones. */
static __always_inline int send(__u32 ifindex, const struct interface *in)
{
	if (likely(ifindex == in->tx_ifindex))
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

static __always_inline int answer(struct xdp_md *ctx, const struct packet *pkt,
				  struct settings *set, const struct interface *in, enum verdict why)
{
	enum verdict v = DROP_RATE_LIMIT;

	if (may_answer(set, bpf_ktime_get_coarse_ns()))
		v = answer_icmp(ctx, pkt, in, why);
	count_verdict(v);
	return v == why ? send(in->ifindex, in) : XDP_DROP;
}

/* Counts the way out, and turns it into what the driver is to do. */
static __always_inline int finish(struct xdp_md *ctx, const struct packet *pkt,
				  struct settings *set, const struct interface *in,
				  enum verdict v, __u32 out)
{
	switch (v) {
	case ANSWER_NO_SERVER:
	case ANSWER_NO_LOCAL_PORT:
	case ANSWER_TTL:
	case ANSWER_TOO_BIG:
		return answer(ctx, pkt, set, in, v);
	case FORWARD:
	case FORWARD_NO_ENTRY:
	case FORWARD_ICMP:
	case FORWARD_NO_TOA:
	case FORWARD_REPLY:
		count_verdict(v);
		return send(out, in);
	case FORWARD_IN_FRAGMENTS:
	case DROP_RATE_LIMIT:
	case DROP_TOO_BIG:
	case DROP_SERVER_REMOVED:
	case DROP_NO_NEXT_HOP:
	case DROP_DEFENCE:
	case DROP_ICMP_CHECKSUM:
	case DROP_ICMP_ERROR:
	case DROP_NO_ROOM:
	case DROP_NO_WAY_BACK:
	case HOLD_FRAGMENT:
	case DROP_FRAGMENT:
	case DROP_FRAGMENT_TINY:
	case DROP_FRAGMENT_OVERLAP:
	case DROP_FRAGMENT_LOST:
	case DROP_NO_CALL_ID:
	case DROP_FRAGMENT_PORTS:
	case BUG_ADJUST:
		count_verdict(v);
		return XDP_DROP;
	default:
		count_verdict(v);
		return XDP_PASS;
	}
}

#endif
