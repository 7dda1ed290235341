/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * steady_masquerade.h: the rest of the short way of a steady packet that is
 * masqueraded, in either direction. steady.h has found what lies at the flow's home; it
 * calls this where it would give the packet up, so that direct routing pays nothing for
 * it.
 */
#ifndef FAIRLEAD_STEADY_MASQUERADE_H
#define FAIRLEAD_STEADY_MASQUERADE_H

#include "masquerade.h"
#include "steady_tunnel.h"

/* What of an entry's word is compared. */
static const __u64 STEADY_WORD = FLOW_WORD | 0xffULL << 40 |
				 (__u64)(CONNECTION_INACTIVE | CONNECTION_ENDED |
					 CONNECTION_MASQUERADED | CONNECTION_REPLY |
					 CONNECTION_FULLNAT) << 48;

static __always_inline __u64 word_beyond_flow(enum connection_state state,
					      enum connection_flag flags)
{
	return (__u64)state << 40 | (__u64)flags << 48;
}

/* One end of a flow as it becomes. */
struct new_end {
	struct address address;
	__be16 port;
	bool source;		/* of the packet; else its destination */
	bool udp;
	__u8 padding[4];
};

/* Where the upper layer of a steady packet begins, of which eight bytes are there. */
static __always_inline void *steady_l4(const struct steady *pkt)
{
	return pkt->l3 + (pkt->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

/* Whether the upper layer has a checksum to change: IPVS makes one where there is none,
 * and so does the long way. */
static __always_inline bool has_upper_sum(const struct steady *pkt, bool udp)
{
	const struct udphdr *header = steady_l4(pkt);

	return !udp || header->check;
}

/* Changes the checksum of an IPv4 header for addresses that changed by that, and one hop
 * less. */
static __always_inline void age_translated(struct iphdr *ip, __u32 change)
{
	__u32 was = *ttl_word(ip);

	/* One hop less is its complement more. */
	*ttl_word(ip) = (__u32)change_narrow(was >> 16, change + (__u16)~bpf_htons(0x0100)) << 16 |
			((was - 1) & 0xffff);
}

/* Writes an end's address into the IP header, one hop older. Returns what the sum of
 * addresses changes by. */
static __always_inline __u32 write_end_ipv4(struct iphdr *ip, const struct new_end *to)
{
	__be32 *at = to->source ? &ip->saddr : &ip->daddr;
	__be32 address = to->address.low >> 32;
	__u32 change = narrow((__u64)address + (__u32)~*at);

	*at = address;
	age_translated(ip, change);
	return change;
}

static __always_inline __u32 write_end_ipv6(struct ipv6hdr *ip, const struct new_end *to)
{
	__u64 *at = to->source ? (__u64 *)&ip->saddr : (__u64 *)&ip->daddr;
	struct address was = { at[0], at[1] };

	at[0] = to->address.high;
	at[1] = to->address.low;
	ip->hop_limit--;
	return narrow(sum_address(&to->address) + less_address(&was));
}

/* Where a steady packet has the checksum of its upper layer. */
static __always_inline __u32 upper_sum_at(const struct steady *pkt, bool udp)
{
	return sizeof(struct ethhdr) + (pkt->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) +
	       (udp ? UDP_CHECK : TCP_CHECK);
}

/* Translates a steady packet that has_upper_sum, and gives it to its next hop. Returns
 * false if the frame is not what it was. */
static __always_inline bool translate_steady(struct xdp_md *ctx, const struct steady *pkt,
					     const struct new_end *to, const struct next_hop *hop)
{
	__be16 *port = steady_l4(pkt) + (to->source ? 0 : sizeof(*port));
	__u32 ports = (__u32)to->port + (__u16)~*port, change;

	*port = to->port;
	change = pkt->ipv4 ? write_end_ipv4(pkt->l3, to) : write_end_ipv6(pkt->l3, to);
	write_macs(pkt->l3 - sizeof(struct ethhdr), hop);
	return change_upper_sum(ctx, upper_sum_at(pkt, to->udp), change, ports, to->udp);
}

/* The same of both ends, of FullNAT. */
static __always_inline __u32 write_ends_ipv4(struct iphdr *ip, const struct translation *to)
{
	__be32 saddr = to->saddr.low >> 32, daddr = to->daddr.low >> 32;
	__u32 change = narrow((__u64)saddr + daddr + (__u32)~ip->saddr + (__u32)~ip->daddr);

	ip->saddr = saddr;
	ip->daddr = daddr;
	age_translated(ip, change);
	return change;
}

static __always_inline __u32 write_ends_ipv6(struct ipv6hdr *ip, const struct translation *to)
{
	__u64 *at = (__u64 *)&ip->saddr;
	struct address saddr = { at[0], at[1] }, daddr = { at[2], at[3] };

	at[0] = to->saddr.high;
	at[1] = to->saddr.low;
	at[2] = to->daddr.high;
	at[3] = to->daddr.low;
	ip->hop_limit--;
	return narrow(sum_address(&to->saddr) + sum_address(&to->daddr) +
		      less_address(&saddr) + less_address(&daddr));
}

static __always_inline bool translate_ends(struct xdp_md *ctx, const struct steady *pkt,
					   const struct translation *to, bool udp,
					   const struct next_hop *hop)
{
	__u32 *ports = steady_l4(pkt), changed = narrow((__u64)to->ports + (__u32)~*ports), change;

	*ports = to->ports;
	change = pkt->ipv4 ? write_ends_ipv4(pkt->l3, to) : write_ends_ipv6(pkt->l3, to);
	write_macs(pkt->l3 - sizeof(struct ethhdr), hop);
	return change_upper_sum(ctx, upper_sum_at(pkt, udp), change, changed, udp);
}

static __always_inline int leave_steady(bool translated, __u32 out, const struct interface *in,
					enum verdict v)
{
	if (!translated) {
		count_verdict(BUG_ADJUST);
		return XDP_DROP;
	}
	count_verdict(v);
	return send(out, in);
}

/* Takes a client's packet, whose masqueraded connection was found at its home, to its real
 * server. Returns the XDP action, or NOT_TAKEN with nothing changed. */
static __always_inline int follow_to_server(struct xdp_md *ctx, const struct steady *pkt,
					    struct connection *conn, __u32 control,
					    const struct interface *in, __u32 now)
{
	const struct real_server *server;
	const struct next_hop *hop;
	struct new_end to;
	__u32 index, word;

	index = *(volatile __u32 *)&conn->server;
	server = get_server(index);
	if (!server)
		return NOT_TAKEN;
	to.address = server->raddr;
	to.port = server_port(conn->vport, server, conn->flags);
	to.source = false;
	to.udp = conn->protocol == IPPROTO_UDP;
	word = read_hop(server);
	hop = &server->hops[word & HOP_SECOND];
	if (!(word & HOP_STEADY_MASQUERADING) || hide(pkt->length) > hop->mtu ||
	    is_stale(conn, control) || !has_upper_sum(pkt, to.udp))
		return NOT_TAKEN;
	count_steady(conn, pkt, index, now);
	return leave_steady(translate_steady(ctx, pkt, &to, hop), hop->ifindex, in, FORWARD);
}

/* Whether a client's segment may have to tell the real server about it (toa.h): it
 * acknowledges what was noted at the entry of the replies. */
static __always_inline bool may_want_toa(struct xdp_md *ctx, const struct steady *pkt,
					 const struct real_server *server, int reply)
{
	const struct tcphdr *tcp = steady_l4(pkt);

	return server->toa && ((const void *)(tcp + 1) > (void *)(long)ctx->data_end ||
			       wants_toa(tcp, noted_greeting(reply)));
}

/* The ports of an entry, backwards. */
static __always_inline __u32 ports_back(const struct connection *conn)
{
	__u32 ports = *(const volatile __u32 *)&conn->cport;

	return ports << 16 | ports >> 16;
}

/* What the packets of a live connection at a slot become, as read_local() tells; but here
 * it is the connection that must not be stale afterwards, which ends before its second entry.
 * Returns that one's slot, or NO_PLACE. */
static __always_inline int read_live_local(__u32 slot, struct translation *to)
{
	const struct connection *reply;
	__u32 at;

	reply = second_entry(slot, &at);
	if (!reply)
		return NO_PLACE;
	to->saddr = reply->vaddr;
	to->daddr = reply->caddr;
	to->ports = ports_back(reply);
	barrier();
	return at;
}

/* The same as follow_to_server, of a connection with FullNAT that lies at that slot. */
static __always_inline int follow_from_local(struct xdp_md *ctx, const struct steady *pkt,
					     struct connection *conn, __u32 control, __u32 slot,
					     const struct interface *in, __u32 now)
{
	bool udp = conn->protocol == IPPROTO_UDP;
	const struct real_server *server;
	const struct next_hop *hop;
	struct translation to;
	__u32 index, word;
	int reply;

	index = *(volatile __u32 *)&conn->server;
	server = get_server(index);
	if (!server)
		return NOT_TAKEN;
	word = read_hop(server);
	hop = &server->hops[word & HOP_SECOND];
	if (!(word & HOP_STEADY_MASQUERADING) || hide(pkt->length) > hop->mtu ||
	    !has_upper_sum(pkt, udp))
		return NOT_TAKEN;
	reply = read_live_local(slot, &to);
	if (reply == NO_PLACE || is_stale(conn, control) ||
	    (!udp && may_want_toa(ctx, pkt, server, reply)))
		return NOT_TAKEN;
	count_steady(conn, pkt, index, now);
	return leave_steady(translate_ends(ctx, pkt, &to, udp, hop), hop->ifindex, in, FORWARD);
}

/* State and flags of an entry that keeps its state, beyond its flow. */
static __always_inline __u64 steady_word(bool udp)
{
	return udp ? word_beyond_flow(STATE_UDP, CONNECTION_INACTIVE) :
		     word_beyond_flow(STATE_ESTABLISHED, 0);
}

/* Whether the connection that replies belong to keeps its state, too, and is masqueraded
 * as they are. */
static __always_inline bool keeps_state(const struct connection *conn, bool udp, bool fullnat,
					__u32 now)
{
	__u64 wants = steady_word(udp) ^ word_beyond_flow(STATE_NONE, CONNECTION_MASQUERADED);

	if (fullnat)
		wants ^= word_beyond_flow(STATE_NONE, CONNECTION_FULLNAT);

	return !((*(const volatile __u64 *)&conn->cport ^ wants) & STEADY_WORD & ~FLOW_WORD) &&
	       control_status(read_control(conn)) == CONTROL_LIVE && !is_over(conn->expires, now);
}

/* What is kept of the way to the client of a connection, or NULL. */
static __always_inline const struct client_hop *find_way_back(const struct connection *conn,
							      __u32 now)
{
	const struct client_hop *kept = client_hop(&conn->caddr);

	return kept && is_hop_of(kept, &conn->vaddr, &conn->caddr, now) ? kept : NULL;
}

/* The connection of a reply, if that may have a short way, and the real server's index. */
static __always_inline struct connection *find_owner(struct connection *reply, bool udp,
						     bool fullnat, __u32 now, __u32 *index)
{
	struct connection *conn = entry_at(*(volatile __u32 *)reply_owner(reply));
	const struct real_server *server;

	*index = *(volatile __u32 *)&reply->server;
	server = get_server(*index);
	if (!conn || !server || !(read_hop(server) & HOP_STEADY_MASQUERADING) ||
	    !keeps_state(conn, udp, fullnat, now))
		return NULL;
	/* A reply of UDP tells a template that its client is served. */
	return udp && conn->flags & CONNECTION_CONTROLLED ? NULL : conn;
}

/* Gives a reply to its next hop. */
static __always_inline int pass_back(struct xdp_md *ctx, const struct steady *pkt,
				     const struct connection *reply, __u32 control,
				     struct connection *conn, __u32 index,
				     const struct next_hop *hop, const struct interface *in,
				     __u32 now)
{
	struct new_end to = {
		.address = conn->vaddr,
		.port = conn->vport,
		.source = true,
		.udp = reply->protocol == IPPROTO_UDP,
	};

	if (hide(pkt->length) > hop->mtu || is_stale(reply, control) || !has_upper_sum(pkt, to.udp))
		return NOT_TAKEN;
	extend(conn, now);
	count_reply(index, pkt->length);
	return leave_steady(translate_steady(ctx, pkt, &to, hop), hop->ifindex, in, FORWARD_REPLY);
}

/* The same of a reply to a local address. */
static __always_inline int pass_to_client(struct xdp_md *ctx, const struct steady *pkt,
					  const struct connection *reply, __u32 control,
					  struct connection *conn, __u32 index,
					  const struct next_hop *hop, const struct interface *in,
					  __u32 now)
{
	struct translation to = {
		.saddr = conn->vaddr,
		.daddr = conn->caddr,
		.ports = ports_back(conn),
	};
	bool udp = reply->protocol == IPPROTO_UDP;

	barrier();
	if (hide(pkt->length) > hop->mtu || is_stale(reply, control) || !has_upper_sum(pkt, udp))
		return NOT_TAKEN;
	extend(conn, now);
	count_reply(index, pkt->length);
	return leave_steady(translate_ends(ctx, pkt, &to, udp, hop), hop->ifindex, in, FORWARD_REPLY);
}

/* Takes a reply where its client's first packet came from. */
static __always_inline int turn_packet(struct xdp_md *ctx, const struct steady *pkt,
				       struct connection *reply, __u32 control,
				       const struct interface *in, __u32 now)
{
	bool udp = reply->protocol == IPPROTO_UDP, fullnat = is_fullnat(reply);
	struct connection *conn;
	struct next_hop back;
	__u32 index;

	conn = find_owner(reply, udp, fullnat, now, &index);
	if (!conn || turn_back(reply, &back) != FORWARD_REPLY || back.vlan)
		return NOT_TAKEN;
	if (fullnat)
		return pass_to_client(ctx, pkt, reply, control, conn, index, &back, in, now);
	return pass_back(ctx, pkt, reply, control, conn, index, &back, in, now);
}

/*
 * Takes a reply, whose entry was found at its home with that control, where its client's first
 * packet came from: the kernel does not know the way. packet is the packet's length, and below
 * it the tick that it is. Returns the XDP action, or NOT_TAKEN with nothing changed. Not
 * static: see answer_icmp.
 */
__noinline int follow_turned(struct xdp_md *ctx, struct connection *reply, __u32 control,
			     const struct interface *in, __u64 packet)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct steady pkt = { .l3 = data + sizeof(struct ethhdr), .length = packet >> 32 };
	const struct ethernet *eth = data;

	if (!reply || !in || pkt.l3 + sizeof(struct iphdr) + sizeof(struct udphdr) > end)
		return NOT_TAKEN;
	/* Each family by itself: the verifier of Linux 6.1 forgets which it is. */
	if (eth->ethertype == bpf_htons(ETH_P_IP)) {
		pkt.ipv4 = true;
		return turn_packet(ctx, &pkt, reply, control, in, packet);
	}
	if (pkt.l3 + sizeof(struct ipv6hdr) + sizeof(struct udphdr) > end)
		return NOT_TAKEN;
	pkt.ipv4 = false;
	return turn_packet(ctx, &pkt, reply, control, in, packet);
}

/* Takes a reply, whose entry was found at its home, to its client. Returns the XDP action, or
 * NOT_TAKEN with nothing changed. */
static __always_inline int follow_reply(struct xdp_md *ctx, const struct steady *pkt,
					struct connection *reply, __u32 control, bool fullnat,
					const struct interface *in, __u32 now)
{
	const struct client_hop *kept;
	struct connection *conn;
	__u32 index;

	conn = find_owner(reply, reply->protocol == IPPROTO_UDP, fullnat, now, &index);
	kept = conn ? find_way_back(conn, now) : NULL;
	if (!kept)
		return NOT_TAKEN;
	if (unlikely(kept->verdict == CONTINUE))
		return follow_turned(ctx, reply, control, in, (__u64)hide(pkt->length) << 32 | now);
	if (unlikely(kept->verdict != FORWARD_REPLY))
		return NOT_TAKEN;
	if (fullnat)
		return pass_to_client(ctx, pkt, reply, control, conn, index, &kept->hop, in, now);
	return pass_back(ctx, pkt, reply, control, conn, index, &kept->hop, in, now);
}

/*
 * Takes a steady packet of a connection with FullNAT, or a reply, whose entry was found where
 * that hash says, with that control. Returns the XDP action, or NOT_TAKEN with nothing
 * changed. A call costs some nanoseconds, but two addresses have no room in the frame of who
 * found the entry. Not static: see answer_icmp.
 */
__noinline int follow_fullnat(struct xdp_md *ctx, struct connection *conn, __u32 control, __u64 hash,
			      const struct interface *in)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct ipv6hdr *ip6 = data + sizeof(struct ethhdr);
	const struct iphdr *ip = data + sizeof(struct ethhdr);
	struct steady pkt = { .l3 = data + sizeof(struct ethhdr) };
	const struct settings *set = get_settings();
	const struct ethernet *eth = data;
	__u32 now, slot;
	struct way way;

	if (!conn || !in || pkt.l3 + sizeof(struct iphdr) + sizeof(struct udphdr) > end)
		return NOT_TAKEN;
	now = now_tick(set);
	way = find_way(hash, set);
	slot = slot_at(&way, 0, set);
	/* Each family by itself: the verifier of Linux 6.1 forgets which it is. */
	if (eth->ethertype == bpf_htons(ETH_P_IP)) {
		pkt.ipv4 = true;
		pkt.length = wire16(ip->tot_len);
		if (is_reply(conn))
			return follow_reply(ctx, &pkt, conn, control, true, in, now);
		return follow_from_local(ctx, &pkt, conn, control, slot, in, now);
	}
	if (pkt.l3 + sizeof(struct ipv6hdr) + sizeof(struct udphdr) > end)
		return NOT_TAKEN;
	pkt.ipv4 = false;
	pkt.length = sizeof(*ip6) + wire16(ip6->payload_len);
	if (is_reply(conn))
		return follow_reply(ctx, &pkt, conn, control, true, in, now);
	return follow_from_local(ctx, &pkt, conn, control, slot, in, now);
}

/*
 * Takes a steady packet with another entry at its home, where its hash says, than direct
 * routing wants: that may be of a masqueraded connection, or of its replies; it differs in
 * what is told. Returns the XDP action, or NOT_TAKEN with nothing changed.
 */
static __always_inline int follow_translated(struct xdp_md *ctx, const struct steady *pkt,
					     struct connection *conn, __u32 control, __u64 differs,
					     __u64 hash, const struct interface *in, __u32 now)
{
	const __u64 masqueraded = word_beyond_flow(STATE_NONE, CONNECTION_MASQUERADED);
	const __u64 fullnat = word_beyond_flow(STATE_NONE, CONNECTION_FULLNAT);
	const __u64 reply = (pkt->word & ~FLOW_WORD) ^ word_beyond_flow(STATE_NONE, CONNECTION_REPLY);

	if (control_status(control) != CONTROL_LIVE || is_over(conn->expires, now))
		return NOT_TAKEN;
	if (differs == masqueraded)
		return follow_to_server(ctx, pkt, conn, control, in, now);
	if (differs == reply)
		return follow_reply(ctx, pkt, conn, control, false, in, now);
	if (differs == (masqueraded | fullnat) || differs == (reply | fullnat))
		return follow_fullnat(ctx, conn, control, hash, in);
	return NOT_TAKEN;
}

#endif
