/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * icmp_quote.h: ICMP errors about a connection. An error quotes the packet that it is
 * about: here one that a client got from the VIP. Turned round, its flow is that of the
 * connection, and the error goes where that goes (ip_vs_core.c, ip_vs_in_icmp): no
 * timer and no state of it changes.
 *
 * Quotes may be cut short: of the upper layer, no more than the ports is looked at.
 */
#ifndef FAIRLEAD_ICMP_QUOTE_H
#define FAIRLEAD_ICMP_QUOTE_H

#include "conn.h"
#include "icmp.h"
#include "packet.h"

enum {
	ICMP4_SOURCE_QUENCH = 4,
	ICMP6_INFORMATIONAL = 0x80,	/* bit of the types that are no errors */
	/* Where a quote's upper layer may begin, from the frame's beginning. A
	 * bound for the verifier. */
	MAX_QUOTED_L4 = OFFSET_MASK,
	/* Longer messages are left to the real server to check; errors have no more
	 * than 576 bytes (RFC 1812, 4.3.2.3). So are those in several buffers. */
	MAX_CHECKED = 2044,
};

/* The types that IPVS relays. */
static __always_inline bool is_relayed(const struct packet *pkt, __u8 type)
{
	if (pkt->ethertype == bpf_htons(ETH_P_IPV6))
		return flow_protocol(&pkt->flow) == IPPROTO_ICMPV6 && !(type & ICMP6_INFORMATIONAL);
	return flow_protocol(&pkt->flow) == IPPROTO_ICMP &&
	       (type == ICMP4_UNREACHABLE || type == ICMP4_SOURCE_QUENCH ||
		type == ICMP4_TIME_EXCEEDED);
}

/* Takes the flow of a quoted packet, turned round. Who gets an error sent what it
 * quotes. */
static __always_inline bool turn_flow(struct packet *pkt, struct address source,
				      struct address destination)
{
	if (address_difference(&pkt->flow.vaddr, &source))
		return false;
	pkt->flow.caddr = destination;
	return true;
}

static __always_inline enum verdict read_quoted_ports(struct packet *pkt, void *data, void *end,
						      __u32 offset, __u8 protocol)
{
	__be16 *ports;

	offset = forget(offset);
	if (offset > MAX_QUOTED_L4 || offset + 2 * sizeof(*ports) > pkt->l3 + pkt->length ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP))
		return PASS_ICMP;
	ports = data + offset;
	if ((void *)(ports + 2) > end)
		return PASS_ICMP;
	pkt->flow.word = (__u64)protocol << 32 | (__u64)ports[0] << 16 | ports[1];
	pkt->quoted_l4 = offset - pkt->l3;
	return CONTINUE;
}

static __always_inline enum verdict read_quoted_ipv4(struct packet *pkt, void *data, void *end,
						     __u32 offset)
{
	struct iphdr *ip = data + offset;

	/* Of a fragment that is not the first one, no port is quoted. */
	if ((void *)(ip + 1) > end || offset + sizeof(*ip) > pkt->l3 + pkt->length ||
	    ip->version != 4 || ip->ihl < sizeof(*ip) / 4 ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET) ||
	    !turn_flow(pkt, map_ipv4(ip->saddr), map_ipv4(ip->daddr)))
		return PASS_ICMP;
	return read_quoted_ports(pkt, data, end, offset + ip->ihl * 4, ip->protocol);
}

static __always_inline enum verdict read_quoted_ipv6(struct packet *pkt, void *data, void *end,
						     __u32 offset)
{
	struct ipv6hdr *ip = data + offset;
	struct address source, destination;
	__u8 next;

	if ((void *)(ip + 1) > end || offset + sizeof(*ip) > pkt->l3 + pkt->length ||
	    ip->version != 6)
		return PASS_ICMP;
	__builtin_memcpy(&source, &ip->saddr, sizeof(source));
	__builtin_memcpy(&destination, &ip->daddr, sizeof(destination));
	if (!turn_flow(pkt, source, destination))
		return PASS_ICMP;
	next = ip->nexthdr;
	offset += sizeof(*ip);
	for (int i = 0; i < MAX_EXTENSION_HEADERS && is_extension(next); i++) {
		struct extension_header *ext;

		offset = forget(offset);
		if (offset > MAX_QUOTED_L4)
			return PASS_ICMP;
		ext = data + offset;
		if ((void *)(ext + 1) > end ||
		    (next == IPPROTO_FRAGMENT && ext->fragment & bpf_htons(0xfff8)))
			return PASS_ICMP;
		offset += extension_length(ext, next);
		next = ext->next;
	}
	return read_quoted_ports(pkt, data, end, offset, next);
}

/* Of a packet that was parsed as ICMP: CONTINUE with the flow of the connection that
 * it is about, or why it is about none. Not static: see answer_icmp. */
__noinline int read_quote(struct xdp_md *ctx, struct packet *pkt)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct icmp_header *icmp;
	__u32 offset;

	if (!pkt)
		return BUG_ADJUST;
	offset = forget(pkt->l3 + pkt->l4);
	if (offset > MAX_L2 + MAX_L4_OFFSET)
		return PASS_ICMP;
	icmp = data + offset;
	if ((void *)(icmp + 1) > end || !is_relayed(pkt, icmp->type))
		return PASS_ICMP;
	offset += sizeof(*icmp);
	if (pkt->ethertype == bpf_htons(ETH_P_IP))
		return read_quoted_ipv4(pkt, data, end, offset);
	return read_quoted_ipv6(pkt, data, end, offset);
}

/* Whether the checksum of an ICMP message of IPv4 is right. Not static: see
 * answer_icmp. */
__noinline int icmp_checksum_holds(struct xdp_md *ctx, const struct packet *pkt)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 offset, length;

	if (!pkt)
		return false;
	offset = forget(pkt->l3 + pkt->l4);
	length = forget(pkt->length - pkt->l4);
	if (offset > MAX_L2 + MAX_L4_OFFSET || length > MAX_CHECKED ||
	    offset + length > (__u32)(end - data))
		return true;
	return !fold(sum_bytes(data + offset, end, length, MAX_CHECKED));
}

#endif
