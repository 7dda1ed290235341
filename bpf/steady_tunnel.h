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
#include "tunnel.h"

enum {
	NOT_TAKEN = -1,		/* no XDP action: the packet is to go another way */
};

/* Takes one hop off an inner packet's life, and what the outer one needs of it. */
static __always_inline bool take_inner(struct inner *in, void *data, void *end)
{
	struct ethernet *eth = data;
	void *l3 = data + sizeof(struct ethhdr);
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;

	if (l3 + sizeof(*ip) > end)
		return false;
	in->ethertype = eth->ethertype;
	if (in->ethertype == bpf_htons(ETH_P_IP)) {
		*ttl_word(ip) = less_ttl(*ttl_word(ip));
		read_ipv4(in, ip);
		return true;
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	ip6->hop_limit--;
	read_ipv6(in, ip6);
	return true;
}

/*
 * Wraps a steady packet of a connection to that server. Returns the XDP action, or
 * NOT_TAKEN with nothing changed. Not static: see answer_icmp.
 */
__noinline int follow_tunnel(struct xdp_md *ctx, struct connection *conn, __u32 index,
			     __u32 length, __u32 expires)
{
	struct interface *arrived = find_interface(ctx->ingress_ifindex);
	struct real_server *server = get_server(index);
	const struct next_hop *hop;
	struct packet pkt = { .l3 = sizeof(struct ethhdr) };
	struct inner in = {};
	struct tunnel *t;
	__u32 word, header;
	void *data, *end;

	if (!conn || !server || !arrived)
		return NOT_TAKEN;
	word = read_hop(server);
	t = find_tunnel(index, word);
	if (!(word & HOP_STEADY_TUNNEL) || !t)
		return NOT_TAKEN;
	hop = &server->hops[word & HOP_SECOND];
	if (length > inner_mtu(t, hop))
		return NOT_TAKEN;
	if (!take_inner(&in, (void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return NOT_TAKEN;
	in.length = length;
	if (t->type == TUNNEL_GUE)
		in.port = gue_port(&conn->caddr, &conn->vaddr,
				   *(const __u64 *)&conn->cport & FLOW_WORD);
	conn->expires = expires;
	conn->packets++;
	conn->bytes += length;
	count_packet(index, length);
	pkt.ethertype = in.ethertype;
	header = open_outer(ctx, &pkt, 0, t, outer_ethertype(t));
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!header || data + sizeof(struct ethhdr) > end ||
	    !write_outer(data + header, end, t, &in)) {
		count_verdict(BUG_ADJUST);
		return XDP_DROP;
	}
	write_macs(data, hop);
	count_verdict(FORWARD);
	if (hop->ifindex == arrived->ifindex && !arrived->redirect)
		return XDP_TX;
	return bpf_redirect(hop->ifindex, 0);
}

#endif
