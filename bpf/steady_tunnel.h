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

/* Wraps a steady packet, and rewrites its frame. False: the frame is not what it was. */
static __always_inline bool wrap(struct xdp_md *ctx, const struct tunnel *t, const struct inner *in,
				 const struct next_hop *hop)
{
	struct packet untagged = { .l3 = sizeof(struct ethhdr) };
	struct outer outer = begin_outer(t, in);
	void *data, *end;

	if (!open_outer(ctx, &untagged, 0, t))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) > end)
		return false;
	write_macs(data, hop);
	return write_outer(data + sizeof(struct ethhdr), end, t, in, &outer);
}

/* The same of the tunnel that there is nothing to know of but its ends: IPIP over IPv4. */
static __always_inline bool wrap_bare(struct xdp_md *ctx, const struct tunnel *t,
				      const struct inner *in, const struct next_hop *hop)
{
	const struct tunnel bare = {
		.type = TUNNEL_IPIP,
		.overhead = sizeof(struct iphdr),
		.sum = t->sum,
		.ethertype = bpf_htons(ETH_P_IP),
	};
	struct packet untagged = { .l3 = sizeof(struct ethhdr) };
	struct outer outer = begin_ipv4(&bare, in);
	void *data, *end;

	if (!open_outer(ctx, &untagged, 0, &bare))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) + sizeof(struct iphdr) > end)
		return false;
	write_macs(data, hop);
	write_outer_ipv4(data + sizeof(struct ethhdr), t, &outer);
	return true;
}

/* Takes a steady packet of a connection to its real server. Returns the XDP action, or
 * NOT_TAKEN with nothing changed. */
static __always_inline int follow_tunnel(struct xdp_md *ctx, const struct steady *pkt,
					 struct connection *conn, const struct real_server *server,
					 __u32 word, __u32 index, const struct interface *arrived,
					 __u32 now)
{
	const struct next_hop *hop = &server->hops[word & HOP_SECOND];
	const struct tunnel *t = find_tunnel(index, word);
	struct inner in;
	bool wrapped;

	if (!t || pkt->length + t->overhead > hop->mtu)
		return NOT_TAKEN;
	count_steady(conn, pkt, index, now);
	age_steady(pkt);
	in = read_steady(pkt, conn);
	if (likely(t->overhead == sizeof(struct iphdr))) { /* no other tunnel adds so little */
		wrapped = wrap_bare(ctx, t, &in, hop);
	} else {
		if (t->type == TUNNEL_GUE)
			in.port = gue_port(&conn->caddr, &conn->vaddr,
					   *(const __u64 *)&conn->cport & FLOW_WORD);
		wrapped = wrap(ctx, t, &in, hop);
	}
	if (unlikely(!wrapped)) {
		count_verdict(BUG_ADJUST);
		return XDP_DROP;
	}
	count_verdict(FORWARD);
	return send(hop->ifindex, arrived);
}

#endif
