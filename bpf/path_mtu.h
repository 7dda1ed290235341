/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * path_mtu.h: what routers say about the way of a tunnel. An error to the director's own
 * address that a packet was too large quotes the outer packet and, in it, the client's:
 * of a connection, so that nobody can make it up without having seen one. The way of
 * its real server gets that MTU, and the next client whose packet does not fit is told.
 *
 * The host learns nothing from such an error: it has no tunnel of its own.
 */
#ifndef FAIRLEAD_PATH_MTU_H
#define FAIRLEAD_PATH_MTU_H

#include "icmp_quote.h"
#include "tunnel.h"

enum {
	/* Nobody's way is narrower (net/ipv4/route.c, min_pmtu; RFC 8200, 5). */
	LEAST_MTU_IPV4 = 552,
	LEAST_MTU_IPV6 = 1280,
};

/* A quoted packet in another one. */
struct quoted_tunnel {
	struct address destination;
	struct flow flow;	/* of the packet in it */
	__u32 mtu;		/* that the router told */
	__u32 offset;		/* where what is read next begins in the frame */
	__u8 protocol;		/* of that */
	__u8 type;		/* enum tunnel_type */
	__u8 padding[6];
};

/* Reads the MTU that an error tells of. */
static __always_inline bool read_told_mtu(struct quoted_tunnel *q, void *data, void *end,
					  bool ipv4)
{
	const struct icmp_header *icmp = data + q->offset;

	if ((void *)(icmp + 1) > end)
		return false;
	if (ipv4 ? icmp->type != ICMP4_UNREACHABLE || icmp->code != ICMP4_UNREACHABLE_TOO_BIG :
		   icmp->type != ICMP6_TOO_BIG)
		return false;
	q->mtu = bpf_ntohl(icmp->mtu);
	q->offset += sizeof(*icmp);
	return true;
}

static __always_inline bool read_quoted_outer(struct quoted_tunnel *q, void *data, void *end,
					      bool ipv4)
{
	const struct iphdr *ip4 = data + q->offset;
	const struct ipv6hdr *ip6 = data + q->offset;

	if ((void *)(ip4 + 1) > end)
		return false;
	if (ipv4) {
		q->destination = map_ipv4(ip4->daddr);
		q->protocol = ip4->protocol;
		q->offset += ip4->ihl * 4;
		return ip4->version == 4 && !(ip4->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET));
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	__builtin_memcpy(&q->destination, &ip6->daddr, sizeof(q->destination));
	q->protocol = ip6->nexthdr;
	q->offset += sizeof(*ip6);
	return ip6->version == 6;
}

/* Steps over what stands between the outer IP header and the packet. */
static __always_inline bool read_quoted_shim(struct quoted_tunnel *q, void *data, void *end)
{
	const struct gue *gue = data + q->offset;
	const struct gre *gre = data + q->offset;

	q->type = TUNNEL_IPIP;
	if (q->protocol == IPPROTO_UDP) {
		if ((void *)(gue + 1) > end)
			return false;
		q->type = TUNNEL_GUE;
		q->protocol = gue->protocol;
		q->offset += sizeof(*gue);
	} else if (q->protocol == IPPROTO_GRE) {
		if ((void *)&gre->checksum > end)
			return false;
		q->type = TUNNEL_GRE;
		q->protocol = protocol_of_ethertype(gre->protocol);
		q->offset += gre->flags & GRE_CHECKSUM ? sizeof(*gre) : GRE_BARE;
	}
	return q->protocol == IPPROTO_IPIP || q->protocol == IPPROTO_IPV6;
}

/* The flow of the client's packet, whose ports the quote has to reach. */
static __always_inline bool read_quoted_inner(struct quoted_tunnel *q, void *data, void *end)
{
	const struct iphdr *ip4 = data + q->offset;
	const struct ipv6hdr *ip6 = data + q->offset;
	const __be16 *ports;
	__u8 protocol;

	if ((void *)(ip4 + 1) > end)
		return false;
	if (q->protocol == IPPROTO_IPIP) {
		q->flow.caddr = map_ipv4(ip4->saddr);
		q->flow.vaddr = map_ipv4(ip4->daddr);
		protocol = ip4->protocol;
		q->offset += ip4->ihl * 4;
	} else {
		if ((void *)(ip6 + 1) > end)
			return false;
		__builtin_memcpy(&q->flow.caddr, &ip6->saddr, sizeof(struct address));
		__builtin_memcpy(&q->flow.vaddr, &ip6->daddr, sizeof(struct address));
		protocol = ip6->nexthdr;
		q->offset += sizeof(*ip6);
	}
	ports = data + q->offset;
	if ((void *)(ports + 2) > end)
		return false;
	q->flow.word = (__u64)protocol << 32 | (__u64)ports[1] << 16 | ports[0];
	return true;
}

static __always_inline bool read_quoted_tunnel(struct quoted_tunnel *q, struct xdp_md *ctx,
					       const struct packet *pkt)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	bool ipv4 = pkt->ethertype == bpf_htons(ETH_P_IP);

	q->offset = forget(pkt->l3 + pkt->l4);
	return q->offset <= MAX_L2 + MAX_L4_OFFSET && read_told_mtu(q, data, end, ipv4) &&
	       read_quoted_outer(q, data, end, ipv4) && read_quoted_shim(q, data, end) &&
	       read_quoted_inner(q, data, end);
}

/* Learns the MTU of a tunnel's way from a packet of ICMP that is about no connection by
 * itself. Not static: see answer_icmp. */
__noinline int learn_path(struct xdp_md *ctx, const struct packet *pkt)
{
	struct settings *set = get_settings();
	struct quoted_tunnel q = {};
	struct real_server *server;
	struct connection *conn;
	const struct tunnel *t;
	__u32 control, word, least;
	struct way way;

	if (!pkt || !read_quoted_tunnel(&q, ctx, pkt))
		return 0;
	if (pkt->ethertype == bpf_htons(ETH_P_IP) && !icmp_checksum_holds(ctx, pkt))
		return 0;
	way = find_way(hash_flow(&q.flow, set), set);
	conn = find_connection(&way, &q.flow, set, now_tick(set), &control);
	server = conn ? get_server(conn->server) : NULL;
	if (!server)
		return 0;
	word = read_hop(server);
	t = find_tunnel(conn->server, word);
	if (!(word & HOP_TUNNEL) || !t || t->type != q.type ||
	    address_difference(&t->destination, &q.destination))
		return 0;
	least = is_mapped(&t->destination) ? LEAST_MTU_IPV4 : LEAST_MTU_IPV6;
	if (q.mtu && q.mtu < least)
		q.mtu = least;
	if (q.mtu && q.mtu < server->hops[word & HOP_SECOND].mtu)
		*(volatile __u16 *)&server->hops[word & HOP_SECOND].mtu = q.mtu;
	return 0;
}

#endif
