/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * masquerade.h: masquerading (NAT). Towards the real server, the virtual address and
 * port become the real server's; back, they become the virtual ones again. Checksums
 * change by the difference (ip_vs_xmit.c, ip_vs_proto_tcp.c and its neighbours).
 */
#ifndef FAIRLEAD_MASQUERADE_H
#define FAIRLEAD_MASQUERADE_H

#include "checksum_change.h"
#include "forward.h"
#include "local.h"
#include "reply.h"
#include "route.h"
#include "state.h"
#include "stats.h"
#include "toa.h"
#include "tunnel.h"

/* What the addresses and ports of a packet become. */
struct translation {
	struct address saddr;
	struct address daddr;
	__u32 ports;		/* source, destination, as in a header */
	__u32 padding;
};

enum {
	UDP_CHECK = 6,		/* offsets of checksums in their headers */
	TCP_CHECK = 16,
	SCTP_CHECK = 8,
};

/* Gives a datagram that came without a checksum the one that it would have had: IPVS
 * makes one (udp_snat_handler and udp_dnat_handler). Not static: see answer_icmp. */
__noinline int make_udp_check(struct xdp_md *ctx, const struct packet *pkt, __u32 l3)
{
	__u32 l4, length;
	struct udphdr *udp;
	__u64 sum;
	int bytes;

	if (!pkt || l3 > MAX_L2)
		return 0;
	l4 = forget(l3 + pkt->l4);
	if (l4 > MAX_L2 + MAX_L4_OFFSET)
		return 0;
	udp = (void *)(long)ctx->data + l4;
	if ((void *)(udp + 1) > (void *)(long)ctx->data_end || udp->check)
		return 0;
	length = pkt->length - pkt->l4;
	bytes = sum_frame(ctx, l4, length);
	if (bytes < 0)
		return 0;
	sum = bytes + sum_address(&pkt->flow.caddr) + sum_address(&pkt->flow.vaddr);
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) /* what maps an address is no part of it */
		sum += 2 * (__u64)(__u32)~0xffff0000;
	sum += (__u64)bpf_htonl(length) + bpf_htonl(IPPROTO_UDP);
	udp->check = ~fold_sum(sum);
	if (!udp->check)
		udp->check = 0xffff;
	return 0;
}

/* Writes the ports and the checksum of the upper layer. */
static __always_inline bool translate_upper(struct xdp_md *ctx, const struct packet *pkt,
					    const struct translation *to, __u32 l4, __u64 change)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 was = pkt->flow.word, *ports = data + l4, *check = data + l4 + SCTP_CHECK;
	__u64 changed = (__u64)to->ports + (__u32)~was;

	if ((void *)(ports + 1) > end)
		return false;
	*ports = to->ports;
	switch (flow_protocol(&pkt->flow)) {
	case IPPROTO_TCP:
		return change_upper_sum(ctx, l4 + TCP_CHECK, narrow(change), narrow(changed), false);
	case IPPROTO_UDP:
		return change_upper_sum(ctx, l4 + UDP_CHECK, narrow(change), narrow(changed), true);
	case IPPROTO_SCTP:
		if ((void *)(check + 1) > end)
			return false;
		*check ^= crc_change(was ^ to->ports, pkt->length - pkt->l4 - sizeof(*ports));
	}
	return true;
}

/* Whether a packet can be translated. The checksum of an SCTP packet in fragments would
 * change by how long the whole is, which nobody knows yet. */
static __always_inline bool is_translatable(const struct packet *pkt, const struct translation *to)
{
	return likely(!pkt->fragment) || flow_protocol(&pkt->flow) != IPPROTO_SCTP ||
	       to->ports == (__u32)pkt->flow.word;
}

/* Whether a packet's checksum is of itself alone, and can be made. */
static __always_inline bool is_whole_datagram(const struct packet *pkt)
{
	return flow_protocol(&pkt->flow) == IPPROTO_UDP && !pkt->fragment;
}

/* Translates a packet whose IP header lies at l3 now, and which has a checksum if it can
 * have one. Of fragments, the first alone has ports. False: the frame is not what it was.
 * Not static: see answer_icmp. */
__noinline int translate(struct xdp_md *ctx, const struct packet *pkt,
			 const struct translation *to, __u32 l3)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 change;
	__u32 l4;

	if (!pkt || !to || l3 > MAX_L2)
		return false;
	l4 = forget(l3 + pkt->l4);
	if (l4 > MAX_L2 + MAX_L4_OFFSET)
		return false;
	change = sum_address(&to->saddr) + sum_address(&to->daddr) +
		 less_address(&pkt->flow.caddr) + less_address(&pkt->flow.vaddr);
	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + l3;

		if ((void *)(ip + 1) > end)
			return false;
		ip->saddr = to->saddr.low >> 32;
		ip->daddr = to->daddr.low >> 32;
		ip->check = change_sum(ip->check, change);
	} else {
		struct ipv6hdr *ip = data + l3;

		if ((void *)(ip + 1) > end)
			return false;
		__builtin_memcpy(&ip->saddr, &to->saddr, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, &to->daddr, sizeof(ip->daddr));
	}
	return pkt->fragment & FRAGMENT_LATER || translate_upper(ctx, pkt, to, l4, change);
}

/* What a client's packet becomes, by the flags of its connection. */
static __always_inline struct translation to_server(const struct packet *pkt,
						    const struct real_server *server, __u8 flags)
{
	struct translation to = { .saddr = pkt->flow.caddr, .daddr = server->raddr };

	to.ports = (__u32)server_port(flow_vport(&pkt->flow), server, flags) << 16 |
		   flow_cport(&pkt->flow);
	return to;
}

/* Where a frame comes from: its MAC address, and above it the VLAN. */
static __always_inline __u64 sender_of(struct xdp_md *ctx, const struct packet *pkt)
{
	const struct ethernet *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return 0;
	return (__u64)eth->destination_source[2] << 16 | eth->destination_source[1] >> 16 |
	       (__u64)pkt->vlan << 48;
}

/*
 * Gives the connection that a packet has begun an entry for its replies. Returns its
 * slot with BEGINS set, 0 if it has no entry of its own (one-packet scheduling), or
 * NO_PLACE: there is no room, and it is ended. Not static: see answer_icmp.
 */
__noinline int expect_replies(const struct packet *pkt, __u32 now)
{
	struct connection *conn;
	int slot;

	if (!pkt)
		return NO_PLACE;
	slot = find_slot(&pkt->flow, now);
	if (slot == NO_PLACE)
		return 0;
	if (tie_reply(slot, now))
		return slot | BEGINS;
	conn = entry_at(slot);
	if (conn)
		expire_connection(conn);
	return NO_PLACE;
}

/* What the packets of the connection at a slot become: its second entry's name, backwards.
 * Returns that one's slot, or NO_PLACE: it has none any more. */
static __always_inline int read_local(__u32 slot, struct translation *to)
{
	struct connection *reply;
	__u32 control, at;

	reply = second_entry(slot, &at);
	if (!reply)
		return NO_PLACE;
	control = read_control(reply);
	if (control_status(control) != CONTROL_LIVE || !is_reply(reply) || !is_fullnat(reply) ||
	    *(volatile __u32 *)reply_owner(reply) != slot)
		return NO_PLACE;
	to->saddr = reply->vaddr;
	to->daddr = reply->caddr;
	to->ports = (__u32)reply->cport << 16 | reply->vport;
	return is_stale(reply, control) ? NO_PLACE : at;
}

/* The connection at a slot, whose first packet is still what it was; or NULL. */
static __always_inline const struct connection *
connection_begun(struct xdp_md *ctx, const struct packet *pkt, __u32 slot)
{
	note_sender(slot, sender_of(ctx, pkt), ctx->ingress_ifindex);
	return entry_at(slot);
}

/* The way of a client's packet to a masqueraded real server. What it becomes there is not
 * among it: its address leaves the function, and all beside it would lie on the stack. */
struct passage {
	const struct real_server *server;
	const struct next_hop *hop;
	int reply;		/* the slot of the second entry that tells; or NO_PLACE */
};

/*
 * The passage of a packet that is of a connection or has begun one (then expect_replies or
 * begin_local have returned what), and what the packet becomes. CONTINUE, or why there is
 * none: PASS_NO_CONNECTION, if its connection has ended meanwhile.
 */
static __always_inline enum verdict plot(struct xdp_md *ctx, const struct packet *pkt,
					 const struct connection *conn, int begun,
					 struct target *target, struct passage *passage,
					 struct translation *to)
{
	if (begun < 0)
		return begun == NO_PORT ? ANSWER_NO_LOCAL_PORT : DROP_NO_ROOM;
	if (begun & BEGINS)
		conn = connection_begun(ctx, pkt, begun & ~BEGINS);
	count_packet(target->server, pkt->length);
	passage->server = get_server(target->server);
	if (!passage->server)
		return BUG_MAP;
	passage->hop = find_hop(passage->server);
	target->out = passage->hop->ifindex;
	if (!target->out)
		return DROP_NO_NEXT_HOP;
	passage->reply = NO_PLACE;
	if (!conn || !is_fullnat(conn)) {
		*to = to_server(pkt, passage->server, conn ? conn->flags : 0);
		return CONTINUE;
	}
	passage->reply = read_local(slot_of(conn), to);
	return passage->reply == NO_PLACE ? PASS_NO_CONNECTION : CONTINUE;
}

/* Takes a client's packet to its real server: FORWARD or FORWARD_IN_FRAGMENTS, or why not.
 * `begun` is as plot says. Not static: see answer_icmp. */
__noinline int send_masqueraded(struct xdp_md *ctx, struct packet *pkt,
				const struct connection *conn, int begun, struct target *target)
{
	struct translation to;
	struct passage passage;
	enum verdict v;
	__u32 l3;

	if (!pkt || !target)
		return BUG_MAP;
	v = plot(ctx, pkt, conn, begun, target, &passage, &to);
	if (v != CONTINUE)
		return v;
	if (!is_translatable(pkt, &to))
		return DROP_FRAGMENT_PORTS;
	v = forward(ctx, pkt, passage.hop);
	if (!goes_on(v))
		return v;
	l3 = l3_behind(passage.hop->vlan);
	if (is_whole_datagram(pkt))
		make_udp_check(ctx, pkt, l3);
	if (!translate(ctx, pkt, &to, l3))
		return BUG_ADJUST;
	if (v != FORWARD || passage.reply == NO_PLACE || !passage.server->toa || pkt->fragment ||
	    flow_protocol(&pkt->flow) != IPPROTO_TCP)
		return v;
	return add_toa(ctx, pkt, l3, noted_greeting(passage.reply), passage.hop->mtu);
}

/* What a reply becomes, by the connection of its entry; false if that has none any
 * more. */
static __always_inline bool read_owner(struct connection *reply, struct connection *conn,
				       __u32 now, struct translation *to, __u32 *index)
{
	__u32 control = read_control(reply);

	if (control_status(read_control(conn)) != CONTROL_LIVE || !is_masqueraded(conn) ||
	    is_over(conn->expires, now))
		return false;
	to->saddr = conn->vaddr;
	to->daddr = conn->caddr;
	to->ports = (__u32)conn->cport << 16 | conn->vport;
	*index = *(volatile __u32 *)&reply->server;
	return is_reply(reply) && !is_stale(reply, control);
}

/* What a reply does to its connection. Those of a removed server are not counted. */
static __always_inline void note_reply(struct connection *conn, const struct packet *pkt,
				       __u32 index, struct settings *set, __u32 now)
{
	struct real_server *server = get_server(index);

	if (!server)
		return;
	if (unlikely(is_refusal(pkt, conn->state)))
		__sync_fetch_and_add(&server->resets, 1);
	update_state(conn, FROM_SERVER, pkt, get_policy(server->policy, set), now);
	/* Of UDP, a reply is all that tells (ip_vs_proto_udp.c, udp_state_transition). */
	if (conn->protocol == IPPROTO_UDP && conn->flags & CONNECTION_CONTROLLED)
		assure_template(slot_of(conn));
	if (server->state == SERVER_LISTED)
		count_reply(index, pkt->length);
}

/* Takes a reply, whose entry was found, to its client: FORWARD_REPLY or
 * FORWARD_IN_FRAGMENTS, or why not. Not static: see answer_icmp. */
__noinline int send_back(struct xdp_md *ctx, struct packet *pkt, struct connection *reply,
			 struct target *target, __u32 now)
{
	struct settings *set = get_settings();
	struct translation to = {};
	struct next_hop hop = {};
	struct connection *conn;
	enum verdict v;
	__u32 l3;

	if (!pkt || !reply || !target)
		return BUG_MAP;
	conn = entry_at(*(volatile __u32 *)reply_owner(reply));
	if (!conn)
		return BUG_MAP;
	if (!read_owner(reply, conn, now, &to, &target->server))
		return PASS_NO_CONNECTION;
	pkt->reply = true;
	if (!is_translatable(pkt, &to))
		return DROP_FRAGMENT_PORTS;
	if (pkt->syn && is_fullnat(reply))
		note_greeting(ctx, pkt, reply);
	v = find_client_hop(ctx, reply, &to.saddr, &to.daddr, now, &hop);
	if (v != FORWARD_REPLY)
		return v;
	target->out = hop.ifindex;
	v = forward(ctx, pkt, &hop);
	if (!goes_on(v))
		return v;
	note_reply(conn, pkt, target->server, set, now);
	l3 = l3_behind(hop.vlan);
	if (is_whole_datagram(pkt))
		make_udp_check(ctx, pkt, l3);
	if (!translate(ctx, pkt, &to, l3))
		return BUG_ADJUST;
	return v == FORWARD ? FORWARD_REPLY : v;
}

#endif
