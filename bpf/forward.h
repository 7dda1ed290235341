/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * forward.h: what all packets to a real server have in common. The frame gets the
 * MAC addresses of its next hop, the IP packet one hop less to live; of direct
 * routing that is all (ip_vs_xmit.c).
 */
#ifndef FAIRLEAD_FORWARD_H
#define FAIRLEAD_FORWARD_H

#include "maps.h"
#include "packet.h"

/* Which hop holds, and what is to be done: one load, so that it fits together. */
static __always_inline __u32 read_hop(const struct real_server *server)
{
	return *(const volatile __u32 *)&server->hop;
}

/* Whom a packet is for, and by which interface it leaves. */
struct target {
	__u32 server;
	__u32 out;
};

static __always_inline const struct next_hop *find_hop(const struct real_server *server)
{
	return &server->hops[read_hop(server) & HOP_SECOND];
}

/* TTL, protocol and header checksum of IPv4, in one word, for a TTL one less.
 * The TTL is the upper byte of its word in the sum (RFC 1624, equation 3). */
static __always_inline __u32 less_ttl(__u32 word)
{
	__u32 less = word - 1 + (bpf_htons(0x0100) << 16);

	if (unlikely(word >= 0xfffe0000))	/* the sum would be the other zero, or too large */
		less += 1 << 16;
	return less;
}

static __always_inline __u32 *ttl_word(struct iphdr *ip)
{
	return (__u32 *)&ip->ttl;
}

static __always_inline enum verdict age_ipv4(struct iphdr *ip, __u32 length, __u32 mtu)
{
	if (unlikely(ip->ttl <= 1))
		return ANSWER_TTL;
	*ttl_word(ip) = less_ttl(*ttl_word(ip));
	if (likely(length <= mtu))
		return FORWARD;
	return ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT) ? ANSWER_TOO_BIG :
								   FORWARD_IN_FRAGMENTS;
}

static __always_inline enum verdict age_ipv6(struct ipv6hdr *ip, __u32 length, __u32 mtu)
{
	if (ip->hop_limit <= 1)
		return ANSWER_TTL;
	ip->hop_limit--;
	return length <= mtu ? FORWARD : ANSWER_TOO_BIG;
}

/* Takes one hop off the packet's life, and sees whether it fits the way. */
static __always_inline enum verdict age_packet(struct packet *pkt, void *data, void *end,
					       __u32 mtu)
{
	void *l3 = data + (pkt->l3 & 31);

	pkt->mtu = mtu;
	if (likely(pkt->ethertype == bpf_htons(ETH_P_IP))) {
		if (l3 + sizeof(struct iphdr) > end)
			return BUG_ADJUST;
		return age_ipv4(l3, pkt->size, mtu);
	}
	if (l3 + sizeof(struct ipv6hdr) > end)
		return BUG_ADJUST;
	return age_ipv6(l3, pkt->size, mtu);
}

/* Whether a packet goes on its way, whole or not. */
static __always_inline bool goes_on(enum verdict v)
{
	return likely(v == FORWARD) || v == FORWARD_IN_FRAGMENTS;
}

static __always_inline void write_macs(struct ethernet *eth, const struct next_hop *hop)
{
	for (int i = 0; i < 3; i++)
		eth->destination_source[i] = hop->destination_source[i];
}

#endif
