/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * mss.h: the largest segment that a client's SYN asks for, lowered to what fits into a
 * tunnel, where mss_clamp says so (not in IPVS). It is about what the real server sends:
 * of use where its answers go back by a way as narrow as the one of the request.
 */
#ifndef FAIRLEAD_MSS_H
#define FAIRLEAD_MSS_H

#include "frame.h"
#include "packet.h"

enum {
	TCP_OPTION_END = 0,
	TCP_OPTION_NOTHING = 1,
	TCP_OPTION_MSS = 2,
	TCP_MSS_LENGTH = 4,
	MAX_TCP_OPTIONS = 40,	/* bytes, and so options */
	/* No client is asked to send smaller segments (RFC 9293, 3.7.1). */
	LEAST_MSS = 536,
};

/* Where the MSS stands in the frame, or 0. */
static __always_inline __u32 find_mss(void *data, void *end, __u32 tcp)
{
	const struct tcphdr *header = data + tcp;
	__u32 at = tcp + sizeof(*header), behind;

	if ((void *)(header + 1) > end)
		return 0;
	behind = tcp + header->doff * 4;
	for (int i = 0; i < MAX_TCP_OPTIONS; i++) {
		const __u8 *option;

		at = forget(at);
		if (at + TCP_MSS_LENGTH > behind || at > MAX_L2 + MAX_L4_OFFSET + 60)
			return 0;
		option = data + at;
		if ((void *)(option + TCP_MSS_LENGTH) > end || option[0] == TCP_OPTION_END)
			return 0;
		if (option[0] == TCP_OPTION_MSS)
			return option[1] == TCP_MSS_LENGTH ? at + 2 : 0;
		if (option[0] != TCP_OPTION_NOTHING && option[1] < 2)
			return 0;
		at += option[0] == TCP_OPTION_NOTHING ? 1 : option[1];
	}
	return 0;
}

/* Lowers the MSS of a SYN to what an MTU leaves. Not static: see answer_icmp. */
__noinline int clamp_mss(struct xdp_md *ctx, const struct packet *pkt, __u32 mtu)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 tcp, at, most;
	__be16 *mss, was, is;

	if (!pkt || flow_protocol(&pkt->flow) != IPPROTO_TCP)
		return 0;
	tcp = forget(pkt->l3 + pkt->l4);
	most = mtu - pkt->l4 - sizeof(struct tcphdr);
	if (tcp > MAX_L2 + MAX_L4_OFFSET || mtu < pkt->l4 + sizeof(struct tcphdr) + LEAST_MSS)
		return 0;
	at = forget(find_mss(data, end, tcp));
	if (!at || at > MAX_L2 + MAX_L4_OFFSET + 64)
		return 0;
	mss = data + at;
	if ((void *)(mss + 1) > end || wire16(*mss) <= most)
		return 0;
	was = *mss;
	is = bpf_htons(most);
	*mss = is;
	/* At an odd place the two bytes belong to two words of the sum. */
	if ((at - tcp) & 1) {
		was = bpf_htons(was);
		is = bpf_htons(is);
	}
	return change_check(ctx, tcp + offsetof(struct tcphdr, check), was, is);
}

#endif
