/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * icmp_masquerade.h: ICMP errors about masqueraded connections. Who gets an error has
 * to know the packet that it quotes: towards the real server, the virtual address and
 * port become the real server's, in the quote too; back, they become the virtual ones,
 * and the virtual address is also where the error comes from, for the client has never
 * heard of real servers and of the routers before them (ip_vs_core.c, ip_vs_nat_icmp).
 *
 * Of the quoted upper layer the ports alone change: its checksum is left as IPVS leaves
 * it, since few quotes have all that it is about.
 */
#ifndef FAIRLEAD_ICMP_MASQUERADE_H
#define FAIRLEAD_ICMP_MASQUERADE_H

#include "icmp_quote.h"
#include "masquerade.h"

/* What the virtual end of an error becomes, or what becomes the virtual end. */
struct error_translation {
	struct address address;
	__be16 port;
	bool back;		/* to the client */
	__u8 padding[5];
};

/* Writes an address of the IP header at an offset. Returns false if there is none;
 * *change is what the sum of the addresses changes by. */
static __always_inline bool write_address(struct xdp_md *ctx, __u32 offset, bool ipv4,
					  bool destination, const struct address *to, __u64 *change)
{
	void *header = (void *)(long)ctx->data + offset, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = header;
	struct iphdr *ip = header;
	struct address was;
	void *at;

	if (ipv4) {
		__be32 address = to->low >> 32, *at4;

		if ((void *)(ip + 1) > end)
			return false;
		at4 = destination ? &ip->daddr : &ip->saddr;
		*change = (__u64)address + (__u32)~*at4;
		*at4 = address;
		ip->check = change_sum(ip->check, *change);
		return true;
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	at = destination ? (void *)&ip6->daddr : (void *)&ip6->saddr;
	__builtin_memcpy(&was, at, sizeof(was));
	__builtin_memcpy(at, to, sizeof(*to));
	*change = sum_address(to) + less_address(&was);
	return true;
}

/* Writes the virtual end's port in a quote. *change is added to. */
static __always_inline bool write_quoted_port(struct xdp_md *ctx, __u32 offset,
					      const struct error_translation *to, __u64 *change)
{
	__be16 *ports = (void *)(long)ctx->data + offset;

	if ((void *)(ports + 2) > (void *)(long)ctx->data_end)
		return false;
	if (to->back)
		ports++;	/* the client has sent what is quoted */
	*change += (__u64)to->port + (__u16)~*ports;
	*ports = to->port;
	return true;
}

/* Translates an ICMP error whose IP header lies at l3 now. False: the frame is not what
 * it was. Not static: see answer_icmp. */
__noinline int translate_error(struct xdp_md *ctx, const struct packet *pkt,
			       const struct error_translation *to, __u32 l3)
{
	__u64 outer, quoted, changed;
	__u32 icmp, ports;
	bool ipv4;

	if (!pkt || !to || l3 > MAX_L2)
		return false;
	icmp = forget(l3 + pkt->l4);
	ports = forget(l3 + pkt->quoted_l4);
	if (icmp > MAX_L2 + MAX_L4_OFFSET || ports > MAX_QUOTED_L4)
		return false;
	ipv4 = pkt->ethertype == bpf_htons(ETH_P_IP);
	if (!write_address(ctx, l3, ipv4, !to->back, &to->address, &outer) ||
	    !write_address(ctx, icmp + sizeof(struct icmp_header), ipv4, to->back, &to->address,
			   &quoted))
		return false;
	/* Of IPv4, the quoted header's own checksum has made good for its address, and
	 * the outer header is no part of the sum. */
	changed = ipv4 ? 0 : quoted;
	if (!write_quoted_port(ctx, ports, to, &changed))
		return false;
	return change_upper_sum(ctx, icmp + offsetof(struct icmp_header, checksum),
				ipv4 ? 0 : outer, changed, false);
}

/* Takes an error about what a client got to its real server: FORWARD, or why not. What
 * it goes by is as in send_masqueraded. Not static: see answer_icmp. */
__noinline int send_masqueraded_error(struct xdp_md *ctx, struct packet *pkt, int by,
				      struct target *target)
{
	struct error_translation to = {};
	const struct real_server *server;
	const struct next_hop *hop;
	enum verdict v;

	if (!pkt || !target)
		return BUG_MAP;
	if (by == NO_PLACE)
		return DROP_NO_ROOM;
	if (by & BEGINS)
		by = begin_masqueraded(ctx, pkt, by & ~BEGINS);
	count_packet(target->server, pkt->length);
	server = get_server(target->server);
	if (!server)
		return BUG_MAP;
	hop = find_hop(server);
	target->out = hop->ifindex;
	if (!target->out)
		return DROP_NO_NEXT_HOP;
	to.address = server->raddr;
	to.port = server_port(flow_vport(&pkt->flow), server, by);
	v = forward(ctx, pkt, hop);
	if (v != FORWARD)
		return v;
	return translate_error(ctx, pkt, &to, l3_behind(hop->vlan)) ? FORWARD : BUG_ADJUST;
}

/* Takes an error about what a real server got, of a connection whose reply's entry was
 * found, to the client: FORWARD, or why not. Not static: see answer_icmp. */
__noinline int send_error_back(struct xdp_md *ctx, struct packet *pkt, struct connection *reply,
			       struct target *target, __u32 now)
{
	struct error_translation change = { .back = true };
	const struct real_server *server;
	struct translation to = {};
	struct next_hop hop = {};
	struct connection *conn;
	enum verdict v;

	if (!pkt || !reply || !target)
		return BUG_MAP;
	conn = entry_at(*(volatile __u32 *)reply_owner(reply));
	if (!conn)
		return BUG_MAP;
	if (!read_owner(reply, conn, now, &to, &target->server))
		return PASS_ICMP;
	v = find_client_hop(ctx, reply, &to.saddr, &to.daddr, now, &hop);
	if (v != FORWARD_REPLY)
		return v;
	target->out = hop.ifindex;
	v = forward(ctx, pkt, &hop);
	if (v != FORWARD)
		return v;
	server = get_server(target->server);
	if (server && server->state == SERVER_LISTED)
		count_reply(target->server, pkt->length);
	change.address = to.saddr;
	change.port = to.ports;	/* the source's are the first two bytes */
	return translate_error(ctx, pkt, &change, l3_behind(hop.vlan)) ? FORWARD : BUG_ADJUST;
}

#endif
