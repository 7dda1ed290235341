/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * first.h: the short way of most first packets.
 *
 * A plain first packet is whole, with hops left, without VLAN tags, IP options or extension headers,
 * TCP with SYN alone or UDP; the connection table has no entry of its flow; its service is found by its address and port, and asks
 * for no more than a scheduler. The short way does for it just what the stages in
 * director.bpf.c do. If the packet then can't go to its next hop as it is, its
 * connection has begun without a packet, and the stages take it.
 */
#ifndef FAIRLEAD_FIRST_H
#define FAIRLEAD_FIRST_H

#include "conn.h"
#include "schedule_at_once.h"
#include "service.h"
#include "state.h"
#include "stats.h"
#include "steady.h"

enum {
	NEAR_PLACES = 4,	/* of a way, where nearly every entry lies */
};

struct first {
	struct flow flow;
	struct birth birth;
};

static __always_inline void begin_as(struct first *pkt, enum connection_state state,
				     enum connection_flag flags, const struct settings *set)
{
	pkt->birth.state = state;
	pkt->birth.flags = flags;
	pkt->birth.timeout = set->policy.timeouts[state];
	pkt->birth.template = NO_PLACE;
}

/* As read_upper() in steady.h. */
static __always_inline bool read_first(struct first *pkt, const void *l4, const void *end,
				       __u32 header, __u8 protocol, const struct settings *set)
{
	const struct tcphdr *tcp = l4;
	const struct udphdr *udp = l4;
	__u32 length = hide(pkt->birth.bytes);

	if (likely(protocol == IPPROTO_TCP)) {
		if ((void *)(tcp + 1) > end || length < header + sizeof(*tcp) ||
		    !has_alone(tcp, TCP_SYN))
			return false;
		begin_as(pkt, STATE_SYN_RECV, 0, set);
	} else {
		if (protocol != IPPROTO_UDP || (void *)(udp + 1) > end ||
		    length < header + sizeof(*udp))
			return false;
		begin_as(pkt, STATE_UDP, CONNECTION_INACTIVE, set);
	}
	pkt->flow.word = *(__u32 *)l4 | (__u64)protocol << 32;
	return true;
}

static __always_inline bool read_first_ipv4(struct xdp_md *ctx, struct first *pkt,
					    const struct iphdr *ip, const void *end,
					    const struct settings *set)
{
	if ((void *)(ip + 1) > end || *(const __u8 *)ip != IPV4_PLAIN ||
	    ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) || ip->ttl <= 1)
		return false;
	pkt->birth.bytes = wire16(ip->tot_len);
	if (!is_whole(ctx, ip, pkt->birth.bytes, end))
		return false;
	pkt->flow.caddr = map_ipv4(ip->saddr);
	pkt->flow.vaddr = map_ipv4(ip->daddr);
	return read_first(pkt, ip + 1, end, sizeof(*ip), ip->protocol, set);
}

static __always_inline bool read_first_ipv6(struct xdp_md *ctx, struct first *pkt,
					    const struct ipv6hdr *ip, const void *end,
					    const struct settings *set)
{
	const __u64 *addresses = (void *)&ip->saddr;

	if ((void *)(ip + 1) > end || (*(const __u8 *)ip & 0xf0) != IPV6_VERSION ||
	    ip->hop_limit <= 1)
		return false;
	pkt->birth.bytes = sizeof(*ip) + wire16(ip->payload_len);
	if (!is_whole(ctx, ip, pkt->birth.bytes, end))
		return false;
	pkt->flow.caddr = (struct address){ addresses[0], addresses[1] };
	pkt->flow.vaddr = (struct address){ addresses[2], addresses[3] };
	return read_first(pkt, ip + 1, end, sizeof(*ip), ip->nexthdr, set);
}

/* Whether nothing but services and schedulers has a say in new connections. */
static __always_inline bool is_simple(const struct settings *set)
{
	return !(*(const volatile __u32 *)&set->mark_rules | set->policy.secure |
		 set->policy.drop_rate | set->peer_filter);
}

/* Whether a flow has no entry; and the control of its home. */
static __always_inline bool is_unknown(const struct connection *home, const struct way *way,
				       const struct flow *flow, const struct settings *set,
				       __u32 now, __u32 *control)
{
	*control = read_control(home);
	if (control_status(*control) == CONTROL_LIVE && same_flow(home, flow))
		return false;
	return likely(!passed(*control)) || find_displaced(way, flow, set, now) == NO_PLACE;
}

/* Claims a free slot among the first of a way, from its home on, which has that control;
 * moves there. Returns its distance, or NO_PLACE. As claim_slot(), without a call for each. */
static __always_inline int claim_near(struct connection **conn, __u32 control,
				      const struct way *way, const struct settings *set, __u32 now)
{
	for (int i = 0; i < NEAR_PLACES; i++) {
		if (control_status(control) == CONTROL_FREE)
			return claim_free(*conn, control) ? i : NO_PLACE;
		if (control_status(control) != CONTROL_LIVE || is_over((*conn)->expires, now) ||
		    passed(control) > MAX_PASSED)
			return NO_PLACE;
		*conn = place(way, i + 1, set);
		if (!*conn)
			return NO_PLACE;
		control = read_control(*conn);
	}
	return NO_PLACE;
}

/* Enters the connection, whose home has that control. */
static __always_inline bool enter(struct connection *conn, __u32 control, const struct way *way,
				  const struct first *pkt, struct real_server *server,
				  const struct settings *set, __u32 now)
{
	int distance = claim_near(&conn, control, way, set, now);

	if (distance == NO_PLACE)
		return create_connection(way, &pkt->flow, &pkt->birth, now) != NO_PLACE;
	if (distance > 0)
		count_passed(way, set, distance, CONTROL_PASSED_ONE);
	fill_slot(conn, &pkt->flow, &pkt->birth, server, distance, now);
	settle(conn, CONTROL_LIVE);
	return true;
}

static __always_inline struct service_key key_of(const struct flow *flow)
{
	return (struct service_key){
		.vaddr = flow->vaddr,
		.vport = flow_vport(flow),
		.protocol = flow_protocol(flow),
	};
}

/* A function of its own, so that the key is on the stack of few packets. */
static __noinline struct service *search_service(const struct flow *flow)
{
	struct service_key key = key_of(flow);

	return lookup_service(&key);
}

/* The edition of a first packet's service, if that asks for no more than a scheduler. */
static __always_inline struct edition *find_edition(const struct first *pkt,
						    const struct settings *set)
{
	struct service_key key = key_of(&pkt->flow);
	const struct service *svc = lookup_at_home(&key, set);
	struct edition *edition;

	if (unlikely(!svc))
		svc = search_service(&pkt->flow);
	if (!svc || svc->policy)
		return NULL;
	edition = current_edition(svc);
	if (!edition || edition->persistence || edition->flags & (FLAG_ONE_PACKET | FLAG_MASQUERADING))
		return NULL;
	return edition;
}

/* The next hop of a packet that goes there as it is, or NULL. */
static __always_inline const struct next_hop *plain_hop(const struct real_server *server,
							__u32 length)
{
	const struct next_hop *hop;
	__u32 which;

	which = read_hop(server) ^ HOP_STEADY;
	if (which > HOP_SECOND)
		return NULL;
	hop = &server->hops[which];
	return length <= hop->mtu ? hop : NULL;
}

/* Takes one hop off the life of a packet that has more than one, and sends it. */
static __always_inline int send_first(struct xdp_md *ctx, const struct interface *in,
				      const struct next_hop *hop)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + sizeof(struct ethhdr);
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct ethernet *eth = data;

	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	if (eth->ethertype == bpf_htons(ETH_P_IP))
		*ttl_word(ip) = less_ttl(*ttl_word(ip));
	else if ((void *)(ip6 + 1) <= end)
		ip6->hop_limit--;
	count_verdict(FORWARD);
	return leave(eth, hop, in);
}

/* The XDP action of a plain first packet, or NOT_TAKEN. Not static: see answer_icmp. */
__noinline int take_first(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct interface *in = find_interface(ctx->ingress_ifindex);
	struct settings *set = get_settings();
	struct real_server *chosen;
	const struct next_hop *hop;
	struct ethernet *eth = data;
	struct edition *edition;
	struct connection *home;
	__u32 now, control;
	struct first pkt;
	struct way way;
	int server;

	if (!in || !set->services || !is_simple(set) || has_metadata(ctx) ||
	    data + sizeof(struct ethhdr) > end || !for_this_host(data, in))
		return NOT_TAKEN;
	if (eth->ethertype == bpf_htons(ETH_P_IP)) {
		if (!read_first_ipv4(ctx, &pkt, data + sizeof(struct ethhdr), end, set))
			return NOT_TAKEN;
	} else if (eth->ethertype != bpf_htons(ETH_P_IPV6) ||
		   !read_first_ipv6(ctx, &pkt, data + sizeof(struct ethhdr), end, set)) {
		return NOT_TAKEN;
	}
	if (flow_cport(&pkt.flow) == bpf_htons(FTP_DATA_PORT))
		return NOT_TAKEN;
	now = now_tick(set);
	way = find_way(hash_flow(&pkt.flow, set), set);
	home = place(&way, 0, set);
	if (!home || !is_unknown(home, &way, &pkt.flow, set, now, &control))
		return NOT_TAKEN;
	edition = find_edition(&pkt, set);
	if (!edition)
		return NOT_TAKEN;
	server = choose_at_once(edition, &pkt.flow);
	if (unlikely(server == NO_SERVER))
		server = choose(edition, &pkt.flow, now, NO_SERVER);
	chosen = get_server(server);
	if (chosen && unlikely(chosen->slow_start_ticks)) {
		server = reconsider(edition, &pkt.flow, now, server, chosen);
		chosen = get_server(server);
	}
	/* Masquerading while its edition does not say so: it is being edited. */
	if (!chosen || translates(chosen))
		return NOT_TAKEN;
	hop = plain_hop(chosen, pkt.birth.bytes);
	pkt.birth.server = server;
	if (unlikely(!hop))
		pkt.birth.bytes = 0;
	if (!enter(home, control, &way, &pkt, chosen, set, now))
		return NOT_TAKEN;
	count_first(pkt.birth.server, pkt.birth.bytes);
	return hop ? send_first(ctx, in, hop) : NOT_TAKEN;
}

#endif
