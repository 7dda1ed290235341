/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * mark.h: the firewall mark of a packet. Netfilter, which marks packets for IPVS,
 * comes after XDP: here rules of our own say which packets carry a mark. They are
 * looked at in their order, the first that fits counts; only for packets without a
 * connection.
 */
#ifndef FAIRLEAD_MARK_H
#define FAIRLEAD_MARK_H

#include "maps.h"
#include "packet.h"

struct mark_search {
	const struct flow *flow;
	__u32 first;
	__u32 mark;
};

static __always_inline bool is_within(const struct address *addr, const struct address *prefix,
				      const struct address *mask)
{
	return !(((addr->high ^ prefix->high) & mask->high) |
		 ((addr->low ^ prefix->low) & mask->low));
}

static __always_inline bool rule_fits(const struct mark_rule *rule, const struct flow *flow)
{
	__u16 cport = bpf_ntohs(flow_cport(flow)), vport = bpf_ntohs(flow_vport(flow));

	return (!rule->protocol || rule->protocol == flow_protocol(flow)) &&
	       is_within(&flow->vaddr, &rule->vaddr, &rule->vaddr_mask) &&
	       is_within(&flow->caddr, &rule->caddr, &rule->caddr_mask) &&
	       vport >= rule->vport_first && vport <= rule->vport_last &&
	       cport >= rule->cport_first && cport <= rule->cport_last;
}

static int visit_rule(__u32 i, void *ctx)
{
	struct mark_search *search = ctx;
	__u32 index = search->first + i;
	const struct mark_rule *rule = bpf_map_lookup_elem(&mark_rules, &index);

	if (!rule || !rule_fits(rule, search->flow))
		return 0;
	search->mark = rule->mark;
	return 1;
}

/* 0: it carries none. That which a packet came with counts. Without rules this is one branch. */
static __always_inline __u32 find_mark(const struct packet *pkt, const struct settings *set)
{
	__u32 rules = *(const volatile __u32 *)&set->mark_rules;
	struct mark_search search = {
		.flow = &pkt->flow,
		.first = rules >> 16,
		.mark = pkt->mark,
	};

	rules &= 0xffff;
	if (rules && !search.mark)
		bpf_loop(rules < MAX_MARK_RULES ? rules : MAX_MARK_RULES, visit_rule, &search, 0);
	return search.mark;
}

/* What the service of a mark has for an address. */
static __always_inline struct address mark_address(__u32 mark, const struct packet *pkt)
{
	if (pkt->ethertype == bpf_htons(ETH_P_IP))
		return map_ipv4(bpf_htonl(mark));
	return (struct address){ .high = bpf_htonl(mark) };
}

#endif
