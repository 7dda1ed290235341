/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * steady_tunnel.h: the rest of the short way of a steady packet whose real server is
 * reached through a tunnel. steady.h has found its connection; it calls this where it
 * would give the packet up, so that direct routing pays nothing for it.
 */
#ifndef FAIRLEAD_STEADY_TUNNEL_H
#define FAIRLEAD_STEADY_TUNNEL_H

#include "conn.h"
#include "stats.h"
#include "steady_packet.h"
#include "tunnel.h"

/* The id of an outer header of IPv4: another one for each packet of a connection, and from
 * another number on for each connection. */
static __always_inline __u16 next_id(const struct connection *conn)
{
	__u64 mixed = (conn->caddr.high ^ conn->caddr.low ^ *(const __u64 *)&conn->cport) * MIX;

	return conn->packets + (mixed >> 48);
}

/* What the outer header needs of a steady packet. */
static __always_inline struct inner read_steady(const struct steady *pkt,
						const struct connection *conn)
{
	struct inner in = {
		.length = pkt->length,
		.ethertype = pkt->ipv4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6),
	};

	if (pkt->ipv4)
		read_ipv4(&in, pkt->l3);
	else
		read_ipv6(&in, pkt->l3);
	if (!in.fragment)
		in.fragment = next_id(conn);
	return in;
}

/* Where the outer header of a steady packet begins, behind the MAC addresses of its next hop;
 * or NULL: the frame is not what it was. */
static __always_inline void *open_steady(struct xdp_md *ctx, const struct tunnel *t,
					 const struct next_hop *hop)
{
	const struct packet untagged = { .l3 = sizeof(struct ethhdr) };
	struct ethernet *eth = open_outer(ctx, &untagged, 0, t);

	if (unlikely(!eth))
		return NULL;
	write_macs(eth, hop);
	return (void *)eth + sizeof(struct ethhdr);
}

/* Wraps a steady packet. False: the frame is not what it was. */
static __always_inline bool wrap(struct xdp_md *ctx, const struct tunnel *t, const struct inner *in,
				 const struct next_hop *hop)
{
	struct outer outer = begin_outer(t, in);
	void *l3 = open_steady(ctx, t, hop);

	return l3 && write_outer(l3, (void *)(long)ctx->data_end, t, in, &outer);
}

/* What is to be known of a tunnel that adds an IP header and nothing else, besides its ends. */
static const struct tunnel bare_ipv4 = {
	.type = TUNNEL_IPIP,
	.overhead = sizeof(struct iphdr),
	.ethertype = bpf_htons(ETH_P_IP),
};
static const struct tunnel bare_ipv6 = {
	.type = TUNNEL_IPIP,
	.overhead = sizeof(struct ipv6hdr),
	.ethertype = bpf_htons(ETH_P_IPV6),
};

/* Has the first words of an outer header made up before the head moves: a call leaves few
 * registers. */
static __always_inline void finish_outer(struct outer *outer, int words)
{
	for (int i = 0; i < words; i++)
		outer->words[i] = hide(outer->words[i]);
}

/* The first word of an IPv4 header around a steady packet: if that is of IPv4, too, its own one,
 * but for the length and CE. */
static __always_inline __u32 bare_first_word(const struct steady *pkt, const struct inner *in)
{
	if (!pkt->ipv4)
		return first_word(&bare_ipv4, in);
	return bpf_htonl(outer_tos(bpf_ntohl(*(const __be32 *)pkt->l3), 16) + sizeof(struct iphdr));
}

/* Wraps a steady packet in an IPv4 header and nothing else. */
static __always_inline bool wrap_in_ipv4(struct xdp_md *ctx, const struct steady *pkt,
					 __be32 source, __be32 destination,
					 const struct inner *in, const struct next_hop *hop)
{
	struct outer outer = begin_ipv4(&bare_ipv4, in, bare_first_word(pkt, in),
					(__u64)source + destination);
	__u32 *words;

	finish_outer(&outer, 3);
	words = open_steady(ctx, &bare_ipv4, hop);
	if (unlikely(!words))
		return false;
	for (int i = 0; i < 3; i++)
		words[i] = outer.words[i];
	words[3] = source;
	words[4] = destination;
	return true;
}

/* Wraps it in an IPv6 header and nothing else. */
static __always_inline bool wrap_in_ipv6(struct xdp_md *ctx, const struct tunnel *t,
					 const struct inner *in, const struct next_hop *hop)
{
	struct outer outer = begin_ipv6(&bare_ipv6, in);
	__u32 *words;

	finish_outer(&outer, 2);
	words = open_steady(ctx, &bare_ipv6, hop);
	if (unlikely(!words || (void *)words + sizeof(struct ipv6hdr) > (void *)(long)ctx->data_end))
		return false;
	write_outer_ipv6(words, t, &outer);
	return true;
}

/* Counts a steady packet that is to go through a tunnel, and tells what the outer header
 * needs of it. */
static __always_inline struct inner begin_inner(const struct steady *pkt, struct connection *conn,
						__u32 index, __u32 now)
{
	count_steady(conn, pkt, index, now);
	age_steady(pkt);
	return read_steady(pkt, conn);
}

/* Takes a steady packet of a connection to its real server. Returns the XDP action, or
 * NOT_TAKEN with nothing changed. */
static __always_inline int follow_tunnel(struct xdp_md *ctx, const struct steady *pkt,
					 struct connection *conn, const struct real_server *server,
					 __u32 word, __u32 index, const struct interface *arrived,
					 __u32 now)
{
	const struct next_hop *hop = &server->hops[word & HOP_SECOND];
	__be32 source = *(const volatile __be32 *)&server->outer_source;
	const struct tunnel *t;
	struct inner in;
	bool wrapped;

	if (likely(source)) {
		if (unlikely(pkt->length + sizeof(struct iphdr) > hop->mtu))
			return NOT_TAKEN;
		in = begin_inner(pkt, conn, index, now);
		wrapped = wrap_in_ipv4(ctx, pkt, source, server->outer_destination, &in, hop);
	} else {
		t = find_tunnel(index, word);
		if (!t || pkt->length + t->overhead > hop->mtu)
			return NOT_TAKEN;
		in = begin_inner(pkt, conn, index, now);
		if (t->overhead == sizeof(struct ipv6hdr)) { /* no other tunnel adds just that */
			wrapped = wrap_in_ipv6(ctx, t, &in, hop);
		} else {
			if (t->type == TUNNEL_GUE)
				in.port = gue_port(&conn->caddr, &conn->vaddr,
						   *(const __u64 *)&conn->cport & FLOW_WORD);
			wrapped = wrap(ctx, t, &in, hop);
		}
	}
	if (unlikely(!wrapped)) {
		count_verdict(BUG_ADJUST);
		return XDP_DROP;
	}
	count_verdict(FORWARD);
	return send(hop->ifindex, arrived);
}

#endif
