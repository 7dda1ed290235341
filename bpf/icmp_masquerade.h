/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * icmp_masquerade.h: ICMP errors about masqueraded connections. Who gets an error has
 * to know the packet that it quotes: towards the real server, the virtual address and
 * port become the real server's, in the quote too; back, they become the virtual ones,
 * and the virtual address is also where the error comes from, for the client has never
 * heard of real servers and of the routers before them (ip_vs_core.c, ip_vs_nat_icmp).
 * Towards a real server of FullNAT, the client is the local address, which the error comes
 * from, too.
 *
 * Of the quoted upper layer the ports alone change: its checksum is left as IPVS leaves
 * it, since few quotes have all that it is about.
 */
#ifndef FAIRLEAD_ICMP_MASQUERADE_H
#define FAIRLEAD_ICMP_MASQUERADE_H

#include "icmp_quote.h"
#include "masquerade.h"

/* How the addresses of a header are written. */
enum header_part {
	HEADER_IPV4 = 1,
	HEADER_QUOTED = 2,	/* turned round */
	HEADER_KEEPS_SOURCE = 4,
};

/* Writes the addresses of the IP header at an offset. Returns false if there is none;
 * *change is what their sum changes by. Not static: see answer_icmp. */
__noinline int write_addresses(struct xdp_md *ctx, __u32 offset, const struct translation *to,
			       enum header_part part, __u64 *change)
{
	void *header = (void *)(long)ctx->data + bound_offset(offset);
	void *end = (void *)(long)ctx->data_end;
	struct address source, destination;
	struct ipv6hdr *ip6 = header;
	struct iphdr *ip = header;
	__u64 *at;

	if (!to || !change)
		return false;
	source = part & HEADER_QUOTED ? to->daddr : to->saddr;
	destination = part & HEADER_QUOTED ? to->saddr : to->daddr;
	if (part & HEADER_IPV4) {
		__be32 saddr, daddr;

		if ((void *)(ip + 1) > end)
			return false;
		saddr = part & HEADER_KEEPS_SOURCE ? ip->saddr : source.low >> 32;
		daddr = destination.low >> 32;
		ip->check = change_sum(ip->check, (__u64)saddr + (__u32)~ip->saddr +
						  (__u64)daddr + (__u32)~ip->daddr);
		ip->saddr = saddr;
		ip->daddr = daddr;
		/* The header's own checksum makes good for them, or they are not summed up. */
		*change = 0;
		return true;
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	at = (__u64 *)&ip6->saddr;
	if (part & HEADER_KEEPS_SOURCE)
		source = (struct address){ at[0], at[1] };
	*change = sum_address(&source) + sum_address(&destination) +
		  less_address(&(struct address){ at[0], at[1] }) +
		  less_address(&(struct address){ at[2], at[3] });
	at[0] = source.high;
	at[1] = source.low;
	at[2] = destination.high;
	at[3] = destination.low;
	return true;
}

/* Writes the ports in a quote, turned round. *change is added to. */
static __always_inline bool write_quoted_ports(struct xdp_md *ctx, __u32 offset, __u32 ports,
					       __u64 *change)
{
	__u32 *at = (void *)(long)ctx->data + bound_offset(offset);

	if ((void *)(at + 1) > (void *)(long)ctx->data_end)
		return false;
	ports = ports << 16 | ports >> 16;
	*change += (__u64)ports + (__u32)~*at;
	*at = ports;
	return true;
}

/*
 * Translates an ICMP error whose IP header lies at l3 now. `to` is what a packet of its
 * connection that goes the same way becomes: the quote becomes that, turned round, and the
 * error goes from and to the same addresses, unless it keeps its source. False: the frame
 * is not what it was. Not static: see answer_icmp.
 */
__noinline int translate_error(struct xdp_md *ctx, const struct packet *pkt,
			       const struct translation *to, __u32 l3, bool keeps_source)
{
	__u64 outer = 0, quoted = 0;
	enum header_part part;
	__u32 icmp, ports;

	if (!pkt || !to || l3 > MAX_L2)
		return false;
	icmp = l3 + pkt->l4;
	ports = l3 + pkt->quoted_l4;
	if (icmp > MAX_L2 + MAX_L4_OFFSET || ports > MAX_QUOTED_L4)
		return false;
	part = pkt->ethertype == bpf_htons(ETH_P_IP) ? HEADER_IPV4 : 0;
	if (!write_addresses(ctx, l3, to, part | (keeps_source ? HEADER_KEEPS_SOURCE : 0), &outer) ||
	    !write_addresses(ctx, icmp + sizeof(struct icmp_header), to, part | HEADER_QUOTED,
			     &quoted) ||
	    !write_quoted_ports(ctx, ports, to->ports, &quoted))
		return false;
	return change_upper_sum(ctx, bound_offset(icmp) + offsetof(struct icmp_header, checksum),
				narrow(outer), narrow(quoted), false);
}

/* Takes an error about what a client got to its real server: FORWARD, or why not. `begun`
 * is as plot says. Not static: see answer_icmp. */
__noinline int send_masqueraded_error(struct xdp_md *ctx, struct packet *pkt,
				      const struct connection *conn, int begun,
				      struct target *target)
{
	struct translation to;
	struct passage passage;
	enum verdict v;

	if (!pkt || !target)
		return BUG_MAP;
	v = plot(ctx, pkt, conn, begun, target, &passage, &to);
	if (v != CONTINUE)
		return v == PASS_NO_CONNECTION ? PASS_ICMP : v;
	v = forward(ctx, pkt, passage.hop);
	if (v != FORWARD)
		return v;
	/* A real server of FullNAT knows no way to who sent it, as to no client. */
	return translate_error(ctx, pkt, &to, l3_behind(passage.hop->vlan),
			       passage.reply == NO_PLACE) ?
		       FORWARD : BUG_ADJUST;
}

/* Takes an error about what a real server got, of a connection whose reply's entry was
 * found, to the client: FORWARD, or why not. Not static: see answer_icmp. */
__noinline int send_error_back(struct xdp_md *ctx, struct packet *pkt, struct connection *reply,
			       struct target *target, __u32 now)
{
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
	return translate_error(ctx, pkt, &to, l3_behind(hop.vlan), false) ? FORWARD : BUG_ADJUST;
}

#endif
