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

/* Where the upper layer of a steady packet begins in its frame. */
static __always_inline __u32 steady_l4(const struct ethernet *eth)
{
	return sizeof(struct ethhdr) + (eth->ethertype == bpf_htons(ETH_P_IP) ?
						sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

/* Whether the upper layer has a checksum to change: IPVS makes one where there is none,
 * and so does the long way. */
static __always_inline bool has_upper_sum(struct xdp_md *ctx, bool udp)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct ethernet *eth = data;
	const struct udphdr *header;

	if (data + sizeof(struct ethhdr) > end)
		return false;
	header = data + steady_l4(eth);
	return (void *)(header + 1) <= end && (!udp || header->check);
}

/* Writes an end's address into the IP header, one hop older. Returns what the sum of
 * addresses changes by. */
static __always_inline __u64 write_end_ipv4(struct iphdr *ip, const struct new_end *to)
{
	__be32 *at = to->source ? &ip->saddr : &ip->daddr;
	__be32 address = to->address.low >> 32;
	__u64 change = (__u64)address + (__u32)~*at;

	*at = address;
	*ttl_word(ip) = less_ttl(*ttl_word(ip));
	ip->check = change_sum(ip->check, change);
	return change;
}

static __always_inline __u64 write_end_ipv6(struct ipv6hdr *ip, const struct new_end *to)
{
	__u64 *at = to->source ? (__u64 *)&ip->saddr : (__u64 *)&ip->daddr;
	struct address was = { at[0], at[1] };

	at[0] = to->address.high;
	at[1] = to->address.low;
	ip->hop_limit--;
	return sum_address(&to->address) + less_address(&was);
}

/* Translates a steady packet that has_upper_sum, and gives it to its next hop. Returns
 * false if the frame is not what it was. */
static __always_inline bool translate_steady(struct xdp_md *ctx, const struct new_end *to,
					     const struct next_hop *hop)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *eth = data;
	void *l3 = data + sizeof(struct ethhdr);
	__u64 change, ports;
	__u32 l4, check;
	__be16 *port;

	if (l3 + sizeof(struct iphdr) > end)
		return false;
	l4 = steady_l4(eth);
	port = data + l4 + (to->source ? 0 : sizeof(*port));
	if ((void *)(port + 1) > end)
		return false;
	ports = (__u64)to->port + (__u16)~*port;
	*port = to->port;
	if (eth->ethertype == bpf_htons(ETH_P_IP))
		change = write_end_ipv4(l3, to);
	else if (l3 + sizeof(struct ipv6hdr) <= end)
		change = write_end_ipv6(l3, to);
	else
		return false;
	write_macs(eth, hop);
	check = l4 + (to->udp ? UDP_CHECK : TCP_CHECK);
	return change_upper_sum(ctx, check, change, ports, to->udp);
}

/* How long a connection lives on that keeps its state. */
static __always_inline __u32 steady_timeout(const struct settings *set, bool udp)
{
	return set->policy.timeouts[udp ? STATE_UDP : STATE_ESTABLISHED];
}

static __always_inline int leave_steady(struct xdp_md *ctx, bool translated, __u32 out,
					enum verdict v)
{
	const struct interface *arrived = find_interface(ctx->ingress_ifindex);

	if (!translated || !arrived) {
		count_verdict(BUG_ADJUST);
		return XDP_DROP;
	}
	count_verdict(v);
	return send(out, arrived);
}

/* A steady packet that was found at its home. */
struct found {
	struct connection *conn;
	__u32 control;
	__u32 length;
	__u32 now;
	bool udp;
};

/* Takes a client's packet to its real server. */
static __always_inline int follow_to_server(struct xdp_md *ctx, const struct found *f,
					    const struct settings *set)
{
	struct connection *conn = f->conn;
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
	to.udp = f->udp;
	word = read_hop(server);
	hop = &server->hops[word & HOP_SECOND];
	if (!(word & HOP_STEADY_MASQUERADING) || f->length > hop->mtu ||
	    is_stale(conn, f->control) || !has_upper_sum(ctx, f->udp))
		return NOT_TAKEN;
	conn->expires = f->now + steady_timeout(set, f->udp);
	conn->packets++;
	conn->bytes += f->length;
	count_packet(index, f->length);
	return leave_steady(ctx, translate_steady(ctx, &to, hop), hop->ifindex, FORWARD);
}

/* State and flags of an entry that keeps its state, beyond its flow. */
static __always_inline __u64 steady_word(bool udp)
{
	return udp ? word_beyond_flow(STATE_UDP, CONNECTION_INACTIVE) :
		     word_beyond_flow(STATE_ESTABLISHED, 0);
}

/* Whether the connection that replies belong to keeps its state, too. */
static __always_inline bool keeps_state(const struct connection *conn, const struct found *f)
{
	__u64 wants = steady_word(f->udp) ^ word_beyond_flow(STATE_NONE, CONNECTION_MASQUERADED);

	return !((*(const volatile __u64 *)&conn->cport ^ wants) & STEADY_WORD & ~FLOW_WORD) &&
	       control_status(read_control(conn)) == CONTROL_LIVE &&
	       !is_over(conn->expires, f->now);
}

/* The next hop of a reply, without a tag: false if it has none, or none that is known. */
static __always_inline bool find_steady_hop(const struct connection *conn, const struct found *f,
					    struct next_hop *hop)
{
	const struct client_hop *kept = client_hop(&conn->caddr);

	if (!kept || !is_hop_of(kept, &conn->vaddr, &conn->caddr, f->now))
		return false;
	if (kept->verdict == CONTINUE)
		return turn_back(f->conn, hop) == FORWARD_REPLY && !hop->vlan;
	*hop = kept->hop;
	return kept->verdict == FORWARD_REPLY;
}

/* Takes a reply to its client. */
static __always_inline int follow_reply(struct xdp_md *ctx, const struct found *f,
					const struct settings *set)
{
	const struct real_server *server;
	struct next_hop hop = {};
	struct connection *conn;
	struct new_end to;
	__u32 index;

	conn = entry_at(*(volatile __u32 *)reply_owner(f->conn));
	index = *(volatile __u32 *)&f->conn->server;
	server = get_server(index);
	if (!conn || !server || !(read_hop(server) & HOP_STEADY_MASQUERADING) ||
	    !keeps_state(conn, f) || !find_steady_hop(conn, f, &hop) || f->length > hop.mtu)
		return NOT_TAKEN;
	to.address = conn->vaddr;
	to.port = conn->vport;
	to.source = true;
	to.udp = f->udp;
	/* A reply of UDP tells a template that its client is served. */
	if (f->udp && conn->flags & CONNECTION_CONTROLLED)
		return NOT_TAKEN;
	if (is_stale(f->conn, f->control) || !has_upper_sum(ctx, f->udp))
		return NOT_TAKEN;
	conn->expires = f->now + steady_timeout(set, f->udp);
	count_reply(index, f->length);
	return leave_steady(ctx, translate_steady(ctx, &to, &hop), hop.ifindex, FORWARD_REPLY);
}

/*
 * Takes a steady packet with another entry at its home than direct routing wants: that may
 * be of a masqueraded connection, or of its replies. differs is in what; packet is the
 * packet's length, and below it the tick that it is. Returns the XDP action, or NOT_TAKEN
 * with nothing changed. Not static: see answer_icmp.
 */
__noinline int follow_translated(struct xdp_md *ctx, struct connection *conn, __u32 control,
				  __u64 differs, __u64 packet)
{
	struct found f = { .conn = conn, .control = control, .length = packet >> 32, .now = packet };
	const struct settings *set = get_settings();

	if (!conn || !set || control_status(control) != CONTROL_LIVE || is_over(conn->expires, f.now))
		return NOT_TAKEN;
	f.udp = conn->protocol == IPPROTO_UDP;
	if (differs == word_beyond_flow(STATE_NONE, CONNECTION_MASQUERADED))
		return follow_to_server(ctx, &f, set);
	if (differs == (steady_word(f.udp) ^ word_beyond_flow(STATE_NONE, CONNECTION_REPLY)))
		return follow_reply(ctx, &f, set);
	return NOT_TAKEN;
}

#endif
