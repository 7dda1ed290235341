/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * steady.h: the short way of nearly every packet.
 *
 * A steady packet is whole, without VLAN tags, IP options or extension headers;
 * its connection lies at home and keeps its state (a TCP segment with ACK alone
 * in ESTABLISHED, or UDP); and it goes to its next hop as it is, but for the
 * time to live and the MAC addresses. The short way does for it just what the
 * stages in director.bpf.c do, with everything in registers; of any other packet
 * it changes nothing, and they take it.
 */
#ifndef FAIRLEAD_STEADY_H
#define FAIRLEAD_STEADY_H

#include "conn.h"
#include "forward.h"
#include "stats.h"
#include "steady_masquerade.h"
#include "steady_packet.h"
#include "steady_tunnel.h"
#include "xdp.h"

/* Whether a TCP header is whole and has one of the four flags that count alone. */
static __always_inline bool has_alone(const void *tcp, enum tcp_flag flag)
{
	__u16 offset_flags = *(const __u16 *)(tcp + TCP_FLAGS_OFFSET - 1);
	__u16 four = (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK) << 8;

	return (offset_flags & four) == flag << 8 && (offset_flags & 0xf0) >= 0x50;
}

/* How much of a frame is looked at without asking again whether it is there: what the headers of
 * TCP over IPv4 take, and those of IPv6. Smaller ones, of a few bytes in UDP, have no short way. */
enum {
	STEADY_FRAME = sizeof(struct ethhdr) + sizeof(struct ipv6hdr),
};
_Static_assert(sizeof(struct iphdr) + sizeof(struct tcphdr) <= sizeof(struct ipv6hdr), "both fit");

/* Takes ports and state, of a packet whose upper layer begins at l4 and
 * which has length bytes from header bytes before that. */
static __always_inline bool read_upper(struct steady *pkt, const void *l4, const void *end,
				       __u32 header, __u8 protocol)
{
	const struct tcphdr *tcp = l4;
	const struct udphdr *udp = l4;
	__u64 length = pkt->length;

	if (likely(protocol == IPPROTO_TCP)) {
		if (unlikely(length < header + sizeof(*tcp) ||
			     (!pkt->ipv4 && (void *)(tcp + 1) > end) || !has_alone(tcp, TCP_ACK)))
			return false;
		pkt->flow.word = *(__u32 *)l4 | (__u64)IPPROTO_TCP << 32;
		pkt->word = pkt->flow.word | word_beyond_flow(STATE_ESTABLISHED, 0);
		return true;
	}
	if (protocol != IPPROTO_UDP || length < header + sizeof(*udp) ||
	    (!pkt->ipv4 && (void *)(udp + 1) > end))
		return false;
	pkt->flow.word = *(__u32 *)l4 | (__u64)IPPROTO_UDP << 32;
	pkt->word = pkt->flow.word | word_beyond_flow(STATE_UDP, CONNECTION_INACTIVE);
	return true;
}

/* What of the addresses of an entry is not as in an IPv6 header. They are read again, for else
 * they would be kept on the stack meanwhile. */
static __always_inline __u64 other_addresses(const struct connection *conn, const struct ipv6hdr *ip)
{
	const volatile __u64 *addresses = (const void *)&ip->saddr;

	return (conn->caddr.high ^ addresses[0]) | (conn->caddr.low ^ addresses[1]) |
	       (conn->vaddr.high ^ addresses[2]) | (conn->vaddr.low ^ addresses[3]);
}

/* What of the entry at a steady packet's home is not as the packet wants it: nothing, if it
 * is its connection's and keeps its state. */
static __always_inline __u64 difference(const struct connection *conn, const struct steady *pkt)
{
	__u64 differs = (*(const volatile __u64 *)&conn->cport ^ pkt->word) & STEADY_WORD;

	if (!pkt->ipv4)
		return differs | other_addresses(conn, pkt->l3);
	return differs | (conn->caddr.low ^ pkt->flow.caddr.low) |
	       (conn->vaddr.low ^ pkt->flow.vaddr.low) |
	       conn->caddr.high | conn->vaddr.high;
}

/* The next hop of a steady packet, which is then counted; or NULL, and what became of
 * it by another short way. */
static __always_inline const struct next_hop *follow(struct xdp_md *ctx, const struct steady *pkt,
						     const struct interface *in,
						     const struct settings *set, __u32 now,
						     int *action)
{
	struct way way = find_way(hash_flow(&pkt->flow, set), set);
	struct connection *conn = place(&way, 0, set);
	__u32 control, index, which;
	struct real_server *server;
	const struct next_hop *hop;
	__u64 differs;

	if (unlikely(!conn))
		return NULL;
	control = read_control(conn);
	differs = difference(conn, pkt);
	if (unlikely(differs || control_status(control) != CONTROL_LIVE ||
		     is_over(conn->expires, now))) {
		*action = follow_translated(ctx, pkt, conn, control, differs, way.hash, in,
					    now);
		return NULL;
	}
	index = *(volatile __u32 *)&conn->server;
	server = get_server(index);
	if (unlikely(!server || is_stale(conn, control)))
		return NULL;
	which = *(volatile __u32 *)&server->hop ^ HOP_STEADY;
	if (unlikely(which > HOP_SECOND)) {
		if (which & HOP_STEADY_TUNNEL)
			*action = follow_tunnel(ctx, pkt, conn, server, which ^ HOP_STEADY, index, in, now);
		return NULL;
	}
	hop = &server->hops[which];
	if (unlikely(pkt->length > hop->mtu))
		return NULL;
	count_steady(conn, pkt, index, now);
	count_verdict(FORWARD);
	return hop;
}

/* Whether a frame has a whole packet, of that length. Few lie in several buffers. */
static __always_inline bool is_whole(struct xdp_md *ctx, const void *l3, __u64 length, const void *end)
{
	if (likely(l3 + length <= end))
		return true;
	return holds_packet(ctx, sizeof(struct ethhdr), length);
}

static __always_inline int follow_ipv4(struct xdp_md *ctx, void *data, void *end,
				       const struct interface *in,
				       const struct settings *set, __u32 now)
{
	struct iphdr *ip = data + sizeof(struct ethhdr);
	const struct next_hop *hop;
	int action = NOT_TAKEN;
	struct steady pkt;
	__u32 ttl;

	if (unlikely(*(__u8 *)ip != IPV4_PLAIN ||
		     ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)))
		return NOT_TAKEN;
	pkt.ipv4 = true;
	pkt.l3 = ip;
	pkt.length = wire16(ip->tot_len);
	if (unlikely(!is_whole(ctx, ip, pkt.length, end)))
		return NOT_TAKEN;
	ttl = *ttl_word(ip);
	if (unlikely((__u8)ttl <= 1))
		return NOT_TAKEN;
	pkt.flow.caddr = map_ipv4(ip->saddr);
	pkt.flow.vaddr = map_ipv4(ip->daddr);
	if (!read_upper(&pkt, ip + 1, end, sizeof(*ip), ttl >> 8))
		return NOT_TAKEN;
	hop = follow(ctx, &pkt, in, set, now, &action);
	if (unlikely(!hop))
		return action;
	age_steady(&pkt);
	return leave(data, hop, in);
}

static __always_inline int follow_ipv6(struct xdp_md *ctx, void *data, void *end,
				       const struct interface *in,
				       const struct settings *set, __u32 now)
{
	struct ipv6hdr *ip = data + sizeof(struct ethhdr);
	const __u64 *addresses = (void *)&ip->saddr;
	const struct next_hop *hop;
	int action = NOT_TAKEN;
	struct steady pkt;

	if (unlikely((*(__u8 *)ip & 0xf0) != IPV6_VERSION))
		return NOT_TAKEN;
	pkt.ipv4 = false;
	pkt.l3 = ip;
	pkt.length = sizeof(*ip) + wire16(ip->payload_len);
	if (unlikely(!is_whole(ctx, ip, pkt.length, end) || ip->hop_limit <= 1))
		return NOT_TAKEN;
	pkt.flow.caddr = (struct address){ addresses[0], addresses[1] };
	pkt.flow.vaddr = (struct address){ addresses[2], addresses[3] };
	if (!read_upper(&pkt, ip + 1, end, sizeof(*ip), ip->nexthdr))
		return NOT_TAKEN;
	hop = follow(ctx, &pkt, in, set, now, &action);
	if (unlikely(!hop))
		return action;
	age_steady(&pkt);
	return leave(data, hop, in);
}

/* The XDP action of a steady packet that is for this host, or NOT_TAKEN. */
static __always_inline int follow_steady(struct xdp_md *ctx, const struct interface *in,
					 const struct settings *set, __u32 now)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = data;

	if (unlikely(data + STEADY_FRAME > end || !for_this_host(data, in)))
		return NOT_TAKEN;
	if (likely(eth->ethertype == bpf_htons(ETH_P_IP)))
		return follow_ipv4(ctx, data, end, in, set, now);
	if (eth->ethertype == bpf_htons(ETH_P_IPV6))
		return follow_ipv6(ctx, data, end, in, set, now);
	return NOT_TAKEN;
}

#endif
