/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tunnel.h: tunnelling. The packet goes into an outer one to the real server:
 * bare (RFC 2003, 2473, 4213), in GUE over UDP (the variant 0 of
 * draft-ietf-intarea-gue) or in GRE (RFC 2784); either family in either.
 *
 * The outer header is IPVS's (ip_vs_xmit.c): hops of the packet, its TOS with CE as
 * ECT(0), its DF, no flow label.
 */
#ifndef FAIRLEAD_TUNNEL_H
#define FAIRLEAD_TUNNEL_H

#include "checksum.h"
#include "forward.h"
#include "icmp.h"
#include "mss.h"
#include "tunnel_header.h"
#include "xdp.h"

enum {
	/* Where source ports of GUE begin: fourteen bits of the flow (RFC 6335, 6). */
	GUE_FIRST_PORT = 0xc000,
	GUE_PORT_SHIFT = 50,
};

/* What the outer headers take over from the inner packet. */
struct inner {
	__u32 sum;		/* of the packet, if a checksum is asked for */
	__u32 length;
	__be16 ethertype;
	__be16 port;		/* gue: of the director */
	__u32 fragment;		/* of an outer header of IPv4: id and flags, as they lie there */
	__u32 tos;
	__u32 ttl;
};

/* The port that a flow's packets are sent from: those of one flow go one way. */
static __always_inline __be16 gue_port(const struct address *caddr, const struct address *vaddr,
				       __u64 word)
{
	__u64 mixed = (caddr->high ^ caddr->low ^ vaddr->low ^ word) * MIX;

	mixed = (mixed ^ mixed >> 32) * MIX;
	return bpf_htons(GUE_FIRST_PORT | mixed >> GUE_PORT_SHIFT);
}

/* A word with the inner packet's TOS from that bit on, with the outer one's. */
static __always_inline __u32 outer_tos(__u32 word, __u32 bit)
{
	if (unlikely((word >> bit & ECN) == ECN_CE))
		word -= (ECN_CE - ECN_ECT0) << bit;
	return word;
}

static __always_inline void read_ipv4(struct inner *in, const struct iphdr *ip)
{
	in->tos = ip->tos;
	in->ttl = ip->ttl;
	in->fragment = (__u32)(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT)) << 16;
}

static __always_inline void read_ipv6(struct inner *in, const struct ipv6hdr *ip)
{
	in->tos = (__u8)(bpf_ntohl(*(const __be32 *)ip) >> 20);
	in->ttl = ip->hop_limit;
	in->fragment = 0;
}

static __always_inline bool has_checksum(const struct tunnel *t)
{
	return t->checksum && t->type != TUNNEL_IPIP;
}

/* What the inner packet is to the outer header. */
static __always_inline __u8 inner_protocol(const struct inner *in)
{
	return in->ethertype == bpf_htons(ETH_P_IP) ? IPPROTO_IPIP : IPPROTO_IPV6;
}

static __always_inline __u8 outer_protocol(const struct tunnel *t, const struct inner *in)
{
	switch (t->type) {
	case TUNNEL_GUE:
		return IPPROTO_UDP;
	case TUNNEL_GRE:
		return IPPROTO_GRE;
	default:
		return inner_protocol(in);
	}
}

static __always_inline bool write_gue(struct gue *gue, const void *end, const struct tunnel *t,
				      const struct inner *in)
{
	__be16 length = bpf_htons(sizeof(*gue) + in->length);
	__u32 sum;

	if ((void *)(gue + 1) > end)
		return false;
	gue->udp.source = in->port;
	gue->udp.dest = t->port;
	gue->udp.len = length;
	gue->udp.check = 0;
	gue->version = 0;
	gue->protocol = inner_protocol(in);
	gue->flags = 0;
	if (!has_checksum(t))
		return true;
	/* The length counts twice: in the pseudo-header, too. */
	sum = in->sum + t->sum + bpf_htons(IPPROTO_UDP) + length + length + in->port + t->port +
	      bpf_htons(gue->protocol);
	gue->udp.check = fold32(sum);
	if (!gue->udp.check)
		gue->udp.check = 0xffff;
	return true;
}

static __always_inline bool write_gre(struct gre *gre, const void *end, const struct tunnel *t,
				      const struct inner *in)
{
	if ((void *)&gre->checksum > end)
		return false;
	gre->flags = 0;
	gre->version = 0;
	gre->protocol = in->ethertype;
	if (!has_checksum(t))
		return true;
	if ((void *)(gre + 1) > end)
		return false;
	gre->flags = GRE_CHECKSUM;
	gre->reserved = 0;
	gre->checksum = fold(in->sum + GRE_CHECKSUM + in->ethertype);
	return true;
}

/* What stands between the outer IP header and the packet. */
static __always_inline bool write_shim(void *l4, const void *end, const struct tunnel *t,
				       const struct inner *in)
{
	switch (t->type) {
	case TUNNEL_GUE:
		return write_gue(l4, end, t, in);
	case TUNNEL_GRE:
		return write_gre(l4, end, t, in);
	default:
		return true;
	}
}

/* What an outer IP header begins with, up to the addresses: of IPv6 two words. */
struct outer {
	__u32 words[3];
};

/* What an outer header of IPv4 begins with, up to its id. */
static __always_inline __u32 first_word(const struct tunnel *t, const struct inner *in)
{
	__u32 length = bpf_htons(t->overhead + in->length);

	return IPV4_PLAIN | outer_tos(in->tos, 0) << 8 | length << 16;
}

/* ends: a sum of both addresses. */
static __always_inline struct outer begin_ipv4(const struct tunnel *t, const struct inner *in,
					       __u32 first, __u64 ends)
{
	__u32 third = in->ttl | outer_protocol(t, in) << 8;

	third |= fold_upper(ends + first + in->fragment + third);
	return (struct outer){ { first, in->fragment, third } };
}

static __always_inline struct outer begin_ipv6(const struct tunnel *t, const struct inner *in)
{
	__u32 length = bpf_htons(t->overhead - sizeof(struct ipv6hdr) + in->length);

	return (struct outer){ {
		bpf_htonl(6 << 28 | outer_tos(in->tos, 0) << 20),
		length | outer_protocol(t, in) << 16 | (__u32)in->ttl << 24,
	} };
}

/* The beginning of a packet's outer header. */
static __always_inline struct outer begin_outer(const struct tunnel *t, const struct inner *in)
{
	if (t->ethertype == bpf_htons(ETH_P_IP))
		return begin_ipv4(t, in, first_word(t, in), t->sum);
	return begin_ipv6(t, in);
}

/* Writes an outer header of IPv6. */
static __always_inline void write_outer_ipv6(__u32 *words, const struct tunnel *t,
					     const struct outer *outer)
{
	__u64 *addresses = (void *)words + offsetof(struct ipv6hdr, saddr);

	words[0] = outer->words[0];
	words[1] = outer->words[1];
	addresses[0] = t->source.high;
	addresses[1] = t->source.low;
	addresses[2] = t->destination.high;
	addresses[3] = t->destination.low;
}

/* Writes the outer headers where there is room for them. */
static __always_inline bool write_outer(void *l3, const void *end, const struct tunnel *t,
					const struct inner *in, const struct outer *outer)
{
	__u32 *words = l3;

	if (l3 + sizeof(struct iphdr) > end)
		return false;
	if (t->ethertype == bpf_htons(ETH_P_IP)) {
		for (int i = 0; i < 3; i++)
			words[i] = outer->words[i];
		words[3] = t->source.low >> 32;
		words[4] = t->destination.low >> 32;
		return write_shim(l3 + sizeof(struct iphdr), end, t, in);
	}
	if (l3 + sizeof(struct ipv6hdr) > end)
		return false;
	write_outer_ipv6(words, t, outer);
	return write_shim(l3 + sizeof(struct ipv6hdr), end, t, in);
}

static __always_inline struct tunnel *find_tunnel(__u32 server, __u32 which)
{
	struct tunnel_pair *pair = bpf_map_lookup_elem(&tunnels, &server);

	return pair ? &pair->tunnels[which & HOP_SECOND] : NULL;
}

/* The largest packet that fits into an outer one. */
static __always_inline __u32 inner_mtu(const struct tunnel *t, const struct next_hop *hop)
{
	__u32 mtu = hop->mtu;

	if (mtu > MAX_SUMMED && has_checksum(t))
		mtu = MAX_SUMMED;
	return mtu > t->overhead ? mtu - t->overhead : 0;
}

/* The outer headers of one that goes on in fragments are but the model of theirs, and
 * nothing is summed up for them. */
static __always_inline bool read_inner(struct inner *in, const struct packet *pkt,
				       struct xdp_md *ctx, const struct tunnel *t, bool whole)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *l3 = data + (pkt->l3 & 31);
	int sum = 0;

	if (l3 + sizeof(struct iphdr) > end)
		return false;
	in->length = pkt->length;
	in->ethertype = pkt->ethertype;
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		read_ipv4(in, l3);
	} else {
		if (l3 + sizeof(struct ipv6hdr) > end)
			return false;
		read_ipv6(in, l3);
	}
	/* Fragments need an id; with DF there are none, and it is 0 as IPVS's. */
	if (!in->fragment)
		in->fragment = bpf_get_prandom_u32() & 0xffff;
	in->port = gue_port(&pkt->flow.caddr, &pkt->flow.vaddr, pkt->flow.word);
	if (has_checksum(t) && whole)
		sum = sum_frame(ctx, pkt->l3 & 31, pkt->length);
	in->sum = sum;
	return sum >= 0;
}

static __always_inline bool wants_clamp(const struct real_server *server)
{
	struct settings *set = get_settings();

	return get_policy(server->policy, set)->sysctls[SYSCTL_MSS_CLAMP];
}

/*
 * Wraps a packet for its real server, whose tunnel and hop are those that `which`
 * says, and rewrites the frame. FORWARD or FORWARD_IN_FRAGMENTS, or why not. Not static:
 * see answer_icmp.
 */
__noinline int encapsulate(struct xdp_md *ctx, struct packet *pkt, __u32 index, __u32 which)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct real_server *server = get_server(index);
	struct tunnel *t = find_tunnel(index, which);
	const struct next_hop *hop;
	struct ethernet *eth;
	struct outer outer;
	struct inner in;
	enum verdict v;
	__u32 l3;

	if (!pkt || !server || !t)
		return BUG_MAP;
	if (!(t->source.high | t->source.low))
		return DROP_NO_NEXT_HOP;
	hop = &server->hops[which & HOP_SECOND];
	v = age_packet(pkt, data, end, inner_mtu(t, hop));
	if (!goes_on(v))
		return v;
	if (unlikely(pkt->syn) && wants_clamp(server))
		clamp_mss(ctx, pkt, inner_mtu(t, hop));
	/* Of an aggregate, each segment would have a checksum of its own. */
	if (has_checksum(t) && pkt->size != pkt->length)
		return DROP_TOO_BIG;
	if (!read_inner(&in, pkt, ctx, t, v == FORWARD))
		return BUG_ADJUST;
	outer = begin_outer(t, &in);
	eth = open_outer(ctx, pkt, hop->vlan, t);
	if (!eth)
		return BUG_ADJUST;
	end = (void *)(long)ctx->data_end;
	write_macs(eth, hop);
	l3 = l3_behind(hop->vlan);
	if (unlikely(v != FORWARD))
		pkt->l3 = l3 + t->overhead;
	return write_outer((void *)eth + l3, end, t, &in, &outer) ? v : BUG_ADJUST;
}

#endif
