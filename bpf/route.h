/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * route.h: the way of a reply to its client.
 *
 * The kernel's routes and neighbours are asked, and what they say is kept for about
 * a second: asking costs more than all the rest. Where they know nothing (the
 * neighbour is not in the kernel's table, the host is not a router, or the reply
 * would leave by an interface that the program is not attached to), the reply goes
 * where the client's first packet came from.
 */
#ifndef FAIRLEAD_ROUTE_H
#define FAIRLEAD_ROUTE_H

#include "forward.h"
#include "reply.h"
#include "xdp.h"

/* socket.h has it, which is no header for BPF. */
enum {
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
};

static __always_inline void write_hop_macs(struct next_hop *hop, const __u8 *destination,
					   const __u8 *source)
{
	__u8 *macs = (__u8 *)hop->destination_source;

	__builtin_memcpy(macs, destination, ETH_ALEN);
	__builtin_memcpy(macs + ETH_ALEN, source, ETH_ALEN);
}

/* Asks the kernel. Returns FORWARD_REPLY with the hop filled; DROP_NO_WAY_BACK, if
 * there is to be none; or CONTINUE: it does not know. */
static __always_inline enum verdict ask_kernel(struct xdp_md *ctx, const struct address *vaddr,
					       const struct address *caddr, bool ipv4,
					       struct next_hop *hop)
{
	struct bpf_fib_lookup fib = {
		.family = ipv4 ? FAMILY_IPV4 : FAMILY_IPV6,
		.ifindex = ctx->ingress_ifindex,
	};
	const struct interface *out;
	long found;

	if (ipv4) {
		fib.ipv4_src = vaddr->low >> 32;
		fib.ipv4_dst = caddr->low >> 32;
	} else {
		__builtin_memcpy(fib.ipv6_src, vaddr, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, caddr, sizeof(fib.ipv6_dst));
	}
	found = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	switch (found) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return DROP_NO_WAY_BACK;
	default:
		return CONTINUE;
	}
	out = find_interface(fib.ifindex);
	if (!out)
		return CONTINUE;
	hop->ifindex = fib.ifindex;
	hop->vlan = 0;
	hop->mtu = fib.mtu_result;
	write_hop_macs(hop, fib.dmac, fib.smac);
	return FORWARD_REPLY;
}

/* The way that the client's first packet came, backwards. */
static __always_inline enum verdict turn_back(struct connection *reply, struct next_hop *hop)
{
	__u64 sender = *(volatile __u64 *)reply_sender(reply);
	__u64 *bond = bond_at(slot_of(reply));
	const struct interface *out;

	if (!bond)
		return BUG_MAP;
	out = find_interface(*(volatile __u32 *)bond_lower(bond));
	if (!out)
		return DROP_NO_WAY_BACK;
	hop->ifindex = out->ifindex;
	hop->vlan = sender >> 48;
	hop->mtu = out->mtu;
	write_hop_macs(hop, (const __u8 *)&sender, out->mac);
	return FORWARD_REPLY;
}

/* Where a client's next hop is kept. */
static __always_inline struct client_hop *client_hop(const struct address *caddr)
{
	__u64 mixed = (caddr->high ^ caddr->low) * MIX;
	__u32 index = mixed >> 32 & (MAX_CLIENT_HOPS - 1);

	return bpf_map_lookup_elem(&client_hops, &index);
}

static __always_inline bool is_hop_of(const struct client_hop *kept, const struct address *vaddr,
				      const struct address *caddr, __u32 now)
{
	return !(address_difference(&kept->caddr, caddr) | address_difference(&kept->vaddr, vaddr)) &&
	       !is_over(kept->until, now);
}

/* What is kept of the way to a client, as the kernel says now. Not static: see
 * answer_icmp. */
__noinline int renew_client_hop(struct xdp_md *ctx, const struct address *vaddr,
				const struct address *caddr, __u32 now)
{
	const struct settings *set = get_settings();
	struct next_hop hop = {};
	struct client_hop *kept;
	enum verdict v;

	if (!vaddr || !caddr)
		return 0;
	kept = client_hop(caddr);
	if (!kept)
		return 0;
	v = ask_kernel(ctx, vaddr, caddr, caddr->high == 0 && (__u32)caddr->low == 0xffff0000, &hop);
	kept->caddr = *caddr;
	kept->vaddr = *vaddr;
	kept->hop = hop;
	kept->verdict = v;
	kept->until = now + (set->hz >> TICK_JIFFIES_SHIFT);
	return 0;
}

/* The next hop of a reply: FORWARD_REPLY, or why it has none. */
static __always_inline enum verdict find_client_hop(struct xdp_md *ctx, struct connection *reply,
						    const struct address *vaddr,
						    const struct address *caddr, __u32 now,
						    struct next_hop *hop)
{
	const struct client_hop *kept = client_hop(caddr);

	if (!kept)
		return BUG_MAP;
	if (!is_hop_of(kept, vaddr, caddr, now))
		renew_client_hop(ctx, vaddr, caddr, now);
	if (kept->verdict == CONTINUE)
		return turn_back(reply, hop);
	*hop = kept->hop;
	return kept->verdict;
}

#endif
