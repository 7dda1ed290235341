/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * tunnel_header.h: what stands between the outer IP header and the packet, and what
 * both headers say of congestion: the same on a director and on a real server.
 */
#ifndef FAIRLEAD_TUNNEL_HEADER_H
#define FAIRLEAD_TUNNEL_HEADER_H

#include "packet.h"

enum {
	ECN = 3,		/* of the TOS (RFC 3168) */
	ECN_ECT0 = 2,
	ECN_CE = 3,
	GRE_CHECKSUM = 0x80,	/* of the header's first byte */
};

struct gue {
	struct udphdr udp;
	__u8 version;		/* and the length of what is optional: both 0 */
	__u8 protocol;		/* of what follows */
	__u16 flags;
};

struct gre {
	__u8 flags;
	__u8 version;
	__be16 protocol;
	/* With GRE_CHECKSUM: */
	__sum16 checksum;
	__u16 reserved;
};

enum {
	GRE_BARE = __builtin_offsetof(struct gre, checksum),
};

/* As IP knows them; 0: neither. */
static __always_inline __u8 protocol_of_ethertype(__be16 ethertype)
{
	switch (ethertype) {
	case bpf_htons(ETH_P_IP):
		return IPPROTO_IPIP;
	case bpf_htons(ETH_P_IPV6):
		return IPPROTO_IPV6;
	}
	return 0;
}

static __always_inline __be16 ethertype_of_protocol(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_IPIP:
		return bpf_htons(ETH_P_IP);
	case IPPROTO_IPV6:
		return bpf_htons(ETH_P_IPV6);
	}
	return 0;
}

#endif
