/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * toa.h: the TCP option that tells a real server its client's address and port, as the
 * field's kernel modules read it: IPv4 kind 254, IPv6 kind 253, then the port, then the
 * address.
 *
 * It goes with the client's SYN, and with every segment that acknowledges no more than
 * the real server's SYN: that is what a real server makes its connection of, whichever
 * of the first segments gets there. What the real server's SYN acknowledges with is noted
 * at the entry of the replies. For there to be room, the segment size that the real
 * server's SYN asks of the client is lowered to what fits its way with the option.
 */
#ifndef FAIRLEAD_TOA_H
#define FAIRLEAD_TOA_H

#include "checksum_change.h"
#include "frame.h"
#include "mss.h"
#include "reply.h"

enum {
	TOA_KIND_IPV4 = 254,
	TOA_KIND_IPV6 = 253,
	TOA_LENGTH_IPV4 = 8,
	TOA_LENGTH_IPV6 = 20,
	TCP_CHECK_OFFSET = 16,
	/* What of a sequence number is noted beside BOND_NO_TEMPLATE. */
	TOA_NOTED = 0x7fffffff,
};

struct toa_ipv4 {
	__u8 kind;
	__u8 length;
	__be16 port;
	__be32 addr;
};
_Static_assert(sizeof(struct toa_ipv4) == TOA_LENGTH_IPV4, "as on the wire");

struct toa_ipv6 {
	__u8 kind;
	__u8 length;
	__be16 port;
	__be32 addr[4];
};
_Static_assert(sizeof(struct toa_ipv6) == TOA_LENGTH_IPV6, "as on the wire");

static __always_inline __u32 toa_length(const struct packet *pkt)
{
	return pkt->ethertype == bpf_htons(ETH_P_IP) ? TOA_LENGTH_IPV4 : TOA_LENGTH_IPV6;
}

/* Whether a client's segment is to carry the option. */
static __always_inline bool wants_toa(const struct tcphdr *tcp, __u32 noted)
{
	if (tcp->syn)
		return !tcp->ack;
	return tcp->ack && !tcp->rst && noted && (bpf_ntohl(tcp->ack_seq) & TOA_NOTED) == noted;
}

/* The change of a sum from one word of sixteen bits to another. */
static __always_inline __u64 word_change(__u16 was, __u16 is)
{
	return (__u64)(__u16)~was + is;
}

/* Writes an option in the room that was made for it, and returns the sum of its bytes;
 * 0: the frame is not what it was. */
static __always_inline __u64 write_toa(struct xdp_md *ctx, const struct packet *pkt, __u32 at)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct toa_ipv4 *toa4 = data + at;
	struct toa_ipv6 *toa6 = data + at;

	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		if ((void *)(toa4 + 1) > end)
			return 0;
		toa4->kind = TOA_KIND_IPV4;
		toa4->length = TOA_LENGTH_IPV4;
		toa4->port = flow_cport(&pkt->flow);
		toa4->addr = pkt->flow.caddr.low >> 32;
		return (__u64)(TOA_KIND_IPV4 | TOA_LENGTH_IPV4 << 8) + toa4->port + toa4->addr;
	}
	if ((void *)(toa6 + 1) > end)
		return 0;
	toa6->kind = TOA_KIND_IPV6;
	toa6->length = TOA_LENGTH_IPV6;
	toa6->port = flow_cport(&pkt->flow);
	__builtin_memcpy(toa6->addr, &pkt->flow.caddr, sizeof(toa6->addr));
	return (__u64)(TOA_KIND_IPV6 | TOA_LENGTH_IPV6 << 8) + toa6->port +
	       sum_address(&pkt->flow.caddr);
}

/* Adds to the length of an IP packet. */
static __always_inline bool lengthen(struct xdp_md *ctx, const struct packet *pkt, __u32 l3,
				     __u16 bytes)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + l3;
	struct iphdr *ip = data + l3;
	__be16 was, is;

	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip + 1) > end)
			return false;
		was = ip->tot_len;
		is = bpf_htons(wire16(was) + bytes);
		ip->tot_len = is;
		ip->check = change_sum(ip->check, word_change(was, is));
		return true;
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	ip6->payload_len = bpf_htons(wire16(ip6->payload_len) + bytes);
	return true;
}

/* Writes the option into a segment that has the room for it. */
static __always_inline bool fill_toa(struct xdp_md *ctx, const struct packet *pkt, __u32 l3,
				     __u32 l4, __u16 bytes)
{
	__u16 *offset, was, is;
	__u64 sum;

	l4 = bound_offset(l4);
	sum = write_toa(ctx, pkt, l4 + sizeof(struct tcphdr));
	if (!sum || !lengthen(ctx, pkt, l3, bytes))
		return false;
	offset = (void *)(long)ctx->data + l4 + TCP_FLAGS_OFFSET - 1;
	if ((void *)(offset + 1) > (void *)(long)ctx->data_end)
		return false;
	was = *offset;
	is = was + (bytes / 4 << 4);	/* the upper half of its first byte */
	*offset = is;
	return change_upper_sum(ctx, l4 + TCP_CHECK_OFFSET, bpf_htons(bytes),
				sum + word_change(was, is), false);
}

/*
 * Tells a real server the address of a translated segment's client, if the segment is one
 * that does and has room. The IP header lies at l3 now; `noted` is what note_greeting
 * left. FORWARD, FORWARD_NO_TOA, or BUG_ADJUST. Not static: see answer_icmp.
 */
__noinline int add_toa(struct xdp_md *ctx, const struct packet *pkt, __u32 l3, __u32 noted,
		       __u32 mtu)
{
	const struct tcphdr *tcp;
	__u32 l4, bytes;

	if (!pkt || l3 > MAX_L2)
		return BUG_ADJUST;
	l4 = bound_offset(l3 + pkt->l4);
	tcp = (void *)(long)ctx->data + l4;
	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return BUG_ADJUST;
	if (!wants_toa(tcp, noted))
		return FORWARD;
	bytes = toa_length(pkt);
	if (tcp->doff * 4 + bytes > sizeof(*tcp) + MAX_TCP_OPTIONS || pkt->length + bytes > mtu ||
	    !open_option(ctx, pkt, l4, bytes == TOA_LENGTH_IPV4))
		return FORWARD_NO_TOA;
	return fill_toa(ctx, pkt, l3, l4, bytes) ? FORWARD : BUG_ADJUST;
}

/* What was noted of a reply's entry: 0, or what the client acknowledges first. */
static __always_inline __u32 noted_greeting(__u32 slot)
{
	__u64 *bond = bond_at(slot);

	return bond ? *(volatile __u32 *)bond_upper(bond) & TOA_NOTED : 0;
}

/* Of a segment that a real server answers a client's SYN with: notes what its client will
 * acknowledge, and lowers the segment size. Not static: see answer_icmp. */
__noinline int note_greeting(struct xdp_md *ctx, const struct packet *pkt,
			     const struct connection *reply)
{
	const struct real_server *server;
	const struct tcphdr *tcp;
	__u32 l4, mtu;
	__u64 *bond;

	if (!pkt || !reply || pkt->fragment || flow_protocol(&pkt->flow) != IPPROTO_TCP)
		return 0;
	server = get_server(reply->server);
	if (!server || !server->toa)
		return 0;
	l4 = bound_offset(pkt->l3 + pkt->l4);
	tcp = (void *)(long)ctx->data + l4;
	bond = bond_at(slot_of(reply));
	if (!bond || (void *)(tcp + 1) > (void *)(long)ctx->data_end || !tcp->ack)
		return 0;
	*(volatile __u32 *)bond_upper(bond) =
		BOND_NO_TEMPLATE | ((bpf_ntohl(tcp->seq) + 1) & TOA_NOTED);
	mtu = find_hop(server)->mtu;
	if (mtu > TOA_LENGTH_IPV6)
		clamp_mss(ctx, pkt, mtu - toa_length(pkt));
	return 0;
}

#endif
