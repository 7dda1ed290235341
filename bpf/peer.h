/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * peer.h: frames that another director forwarded to this host, one of its real
 * servers. They are for the host's own stack: scheduled here, they would go on to a
 * third host, or back and forth between the two until their time to live ends. No
 * connection entry of this director's matters to them.
 *
 * A frame is known by its source MAC address. That is safe because a real server
 * sends no packet for the VIP as a client would: it has the VIP itself.
 */
#ifndef FAIRLEAD_PEER_H
#define FAIRLEAD_PEER_H

#include "maps.h"
#include "packet.h"
#include "service.h"

enum {
	PEER_FILTER_BITS = 32,
};

/* The source MAC address of a frame. */
static __always_inline __u64 read_source(const struct ethernet *eth)
{
	return (__u64)eth->destination_source[2] << 16 | eth->destination_source[1] >> 16;
}

/* Few frames of others pass the filter. */
static __noinline bool is_peer(__u64 source, __u32 filter)
{
	if (!(filter >> (source >> 40 & (PEER_FILTER_BITS - 1)) & 1))
		return false;
	return bpf_map_lookup_elem(&peer_macs, &source);
}

/* Without peers this is one branch. */
static __always_inline bool is_from_peer(const struct xdp_md *ctx, const struct settings *set)
{
	const void *data, *end;

	if (likely(!set->peer_filter))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	return data + sizeof(struct ethhdr) <= end && is_peer(read_source(data), set->peer_filter);
}

/* What becomes of a peer's packet, once it is parsed. What is for no service may be a
 * reply of it as a masqueraded real server: CONTINUE. */
static __always_inline enum verdict leave_to_host(const struct packet *pkt,
						  const struct settings *set)
{
	return find_service(pkt, set) ? PASS_PEER : CONTINUE;
}

#endif
