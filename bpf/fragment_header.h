/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * fragment_header.h: what a fragment says of itself, from where the parser stopped.
 */
#ifndef FAIRLEAD_FRAGMENT_HEADER_H
#define FAIRLEAD_FRAGMENT_HEADER_H

#include "packet.h"

enum {
	IPV6_FRAGMENT_HEADER = 8,
	IPV6_FRAGMENT_OFFSET = 0xfff8,
	IPV6_MORE_FRAGMENTS = 1,
	MAX_DATAGRAM = 65535,
};

/* What a fragment says of itself. */
struct fragment_header {
	__u32 id;		/* as on the wire */
	__u32 offset;		/* of the datagram's bytes behind the unfragmented headers */
	__u32 length;		/* of these, in the fragment */
	__u8 protocol;		/* what the first one begins with */
	bool more;
	__u8 padding[2];
};

static __always_inline bool is_ipv4(const struct packet *pkt)
{
	return pkt->ethertype == bpf_htons(ETH_P_IP);
}

/* Fragments of IPv6 have the protocol of the datagram in the first one only
 * (RFC 8200, 4.5). */
static __always_inline bool has_ports(const struct packet *pkt, __u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       (!is_ipv4(pkt) && is_extension(protocol));
}

static __always_inline bool read_fragment_ipv4(struct packet *pkt, const void *l3, const void *end,
					       struct fragment_header *frag)
{
	const struct iphdr *ip = l3;
	__u32 header;

	if ((void *)(ip + 1) > end)
		return false;
	header = ip->ihl * 4;
	frag->id = ip->id;
	frag->offset = (bpf_ntohs(ip->frag_off) & IPV4_FRAGMENT_OFFSET) * 8;
	frag->more = ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS);
	frag->protocol = ip->protocol;
	frag->length = pkt->length - header;
	pkt->uncounted = header;
	return true;
}

static __always_inline bool read_fragment_ipv6(struct packet *pkt, const void *l3, const void *end,
					       struct fragment_header *frag)
{
	__u32 at = pkt->uncounted;
	const struct extension_header *ext;

	if (at > MAX_L4_OFFSET)
		return false;
	ext = l3 + at;
	if ((void *)ext + IPV6_FRAGMENT_HEADER > end)
		return false;
	frag->id = *(const __u32 *)(ext + 1);
	frag->offset = bpf_ntohs(ext->fragment) & IPV6_FRAGMENT_OFFSET;
	frag->more = ext->fragment & bpf_htons(IPV6_MORE_FRAGMENTS);
	frag->protocol = ext->next;
	frag->length = pkt->length - at - IPV6_FRAGMENT_HEADER;
	pkt->uncounted = at + IPV6_FRAGMENT_HEADER;
	return true;
}

/* Reads what parse_packet left. False: no fragment of any datagram. Not static:
 * see answer_icmp. */
__noinline int read_fragment(struct xdp_md *ctx, struct packet *pkt, struct fragment_header *frag)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const void *l3;

	if (!pkt || !frag)
		return false;
	l3 = data + (pkt->l3 & 31);
	if (!(is_ipv4(pkt) ? read_fragment_ipv4(pkt, l3, end, frag) :
			     read_fragment_ipv6(pkt, l3, end, frag)))
		return false;
	return frag->length && pkt->length > pkt->uncounted &&
	       (!frag->more || !(frag->length & 7)) &&
	       frag->offset + pkt->length <= MAX_DATAGRAM;
}

/* Reads the ports of a first fragment. IPv6 may have extension headers before
 * them. Not static: see answer_icmp. */
__noinline int read_first_fragment(struct xdp_md *ctx, struct packet *pkt, __u8 protocol)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 offset;
	void *l3;

	if (!pkt)
		return BUG_MAP;
	l3 = data + (pkt->l3 & 31);
	offset = pkt->uncounted;
	for (int i = 0; i < MAX_EXTENSION_HEADERS && is_extension(protocol); i++) {
		struct extension_header *ext;

		ext = find_extension(pkt, l3, &offset, end);
		if (!ext)
			return PASS_MALFORMED;
		offset += extension_length(ext, protocol);
		protocol = ext->next;
	}
	return parse_behind(pkt, l3, offset, end, protocol);
}

#endif
