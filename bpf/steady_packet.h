/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * steady_packet.h: what the short ways of steady.h know of a packet, and how it leaves.
 */
#ifndef FAIRLEAD_STEADY_PACKET_H
#define FAIRLEAD_STEADY_PACKET_H

#include "forward.h"
#include "stats.h"
#include "xdp.h"

enum {
	NOT_TAKEN = -1,		/* no XDP action: the packet is to go another way */
};

struct steady {
	struct flow flow;
	__u64 word;		/* as the entry's, from its ports to its flags */
	void *l3;		/* where its IP header lies, which is within the frame */
	__u64 length;		/* of the IP packet */
	bool ipv4;
};

/* One hop less to live. */
static __always_inline void age_steady(const struct steady *pkt)
{
	struct ipv6hdr *ip6 = pkt->l3;
	struct iphdr *ip = pkt->l3;

	if (pkt->ipv4)
		*ttl_word(ip) = less_ttl(*ttl_word(ip));
	else
		ip6->hop_limit--;
}

/* A connection that keeps its state goes on for as long as that lasts. */
static __always_inline void extend(struct connection *conn, __u32 now)
{
	conn->expires = now + get_settings()->policy.timeouts[conn->state & (STATES - 1)];
}

/* Counts a client's packet, which prolongs its connection. */
static __always_inline void count_steady(struct connection *conn, const struct steady *pkt,
					 __u32 server, __u32 now)
{
	extend(conn, now);
	conn->packets++;
	conn->bytes += pkt->length;
	count_packet(server, pkt->length);
}

static __always_inline int leave(struct ethernet *eth, const struct next_hop *hop,
				 const struct interface *in)
{
	write_macs(eth, hop);
	return send(hop->ifindex, in);
}

#endif
