/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reply.h: the second entry of a masqueraded connection, for the way back.
 *
 * Replies are found in the same table: their entry is named by the real server, as a
 * client is, and the client, as a virtual address is. It tells where the
 * connection's own entry lies, whose bond tells where it lies; that one alone has
 * a state, a timer and counts. The reply's entry ends with it (release), and has no
 * time of its own: a sweep gives it more. One that is tied to nobody, because two
 * CPUs were at a connection at the same moment, is ended by the sweep.
 *
 * Where the two tell is read by one who has found an entry live: it is right as
 * long as that entry is still the same afterwards, for the connection's entry is
 * freed after the reply's.
 */
#ifndef FAIRLEAD_REPLY_H
#define FAIRLEAD_REPLY_H

#include "conn.h"

enum {
	BEGINS = 1 << 30,	/* beside the slot of a connection that a packet has begun */
};

/* Ticks: 50 days with 1000 jiffies a second. A sweep comes long before. */
static const __u32 REPLY_TIME = 1u << 30;

static __always_inline bool is_reply(const struct connection *conn)
{
	return conn->flags & CONNECTION_REPLY;
}

static __always_inline bool is_masqueraded(const struct connection *conn)
{
	return conn->flags & CONNECTION_MASQUERADED;
}

/* The same of both entries: their real server knows the client by an address of the
 * director; see local.h. */
static __always_inline bool is_fullnat(const struct connection *conn)
{
	return conn->flags & CONNECTION_FULLNAT;
}

/* A reply's entry has the slot of its connection's where that counts packets. */
static __always_inline __u32 *reply_owner(struct connection *reply)
{
	return &reply->packets;
}

/* Of a reply's entry: the MAC address that the client's first packet came from, and
 * above it the VLAN. */
static __always_inline __u64 *reply_sender(struct connection *reply)
{
	return &reply->bytes;
}

/* The upper half of a bond, which tells of a masqueraded connection where its
 * reply's entry lies, and of a reply's which interface the client's packets came in
 * on. The uppermost bit says that the bond is no template's. */
static __always_inline __u32 *bond_upper(__u64 *bond)
{
	return (__u32 *)bond + 1;
}

static __always_inline __u32 *bond_lower(__u64 *bond)
{
	return (__u32 *)bond;
}

/* Where the bond at a slot says that a masqueraded connection's second entry lies; or NULL.
 * It may be another's meanwhile. */
static __always_inline struct connection *second_entry(__u32 slot, __u32 *at)
{
	__u64 *bond = bond_at(slot);

	if (!bond)
		return NULL;
	*at = *(volatile __u32 *)bond_upper(bond) & ~BOND_NO_TEMPLATE;
	return entry_at(*at);
}

/* Whether a reply's entry is that of the live connection which it tells. */
static __always_inline bool is_tied(struct connection *reply, __u32 slot)
{
	__u32 owner = *(volatile __u32 *)reply_owner(reply);
	struct connection *conn = entry_at(owner);
	__u64 *bond = bond_at(owner);

	return conn && bond && control_status(read_control(conn)) == CONTROL_LIVE &&
	       is_masqueraded(conn) && *bond_upper(bond) == (BOND_NO_TEMPLATE | slot);
}

/* Ends the entry for the replies of a connection that ends, whose own slot is
 * claimed. Not static: see answer_icmp. */
__noinline int end_reply(const struct connection *conn)
{
	__u32 slot, control, own;
	struct connection *reply;

	if (!conn)
		return 0;
	own = slot_of(conn);
	reply = second_entry(own, &slot);
	if (!reply)
		return 0;
	control = read_control(reply);
	if (control_status(control) != CONTROL_LIVE || !is_reply(reply) ||
	    *reply_owner(reply) != own || !claim(reply, control))
		return 0;
	/* A newer connection may have taken it over before we claimed it. */
	if (*(volatile __u32 *)reply_owner(reply) != own) {
		settle(reply, CONTROL_LIVE);
		return 0;
	}
	leave_way(reply);
	settle(reply, CONTROL_FREE);
	return 0;
}

/*
 * The port that a flow's packets have at their real server: its own, unless the
 * service has many ports and this is not the one that it is named by.
 * (ip_vs_core.c, ip_vs_schedule and ip_vs_sched_persist)
 */
static __always_inline __be16 server_port(__be16 vport, const struct real_server *server,
					  __u8 flags)
{
	bool of_mark = !server->service.protocol;

	if (!server->rport || (vport != server->service.vport &&
			       (flags & CONNECTION_CONTROLLED || !of_mark)))
		return vport;
	return server->rport;
}

/* What names the replies of a connection. */
static __always_inline struct flow reply_flow(const struct connection *conn,
					      const struct real_server *server)
{
	struct flow reply = { .caddr = server->raddr, .vaddr = conn->caddr };

	reply.word = (__u64)conn->protocol << 32 | (__u64)conn->cport << 16 |
		     server_port(conn->vport, server, conn->flags);
	return reply;
}

/* Writes what names the replies of the connection at a slot, where it has no local address.
 * False: there is no such connection. Not static: see answer_icmp. */
__noinline int name_replies(__u32 owner, struct flow *flow)
{
	const struct connection *conn = entry_at(owner);
	const struct real_server *server;

	if (!conn || !flow)
		return false;
	server = get_server(conn->server);
	if (!server)
		return false;
	*flow = reply_flow(conn, server);
	return true;
}

/* Takes the entry of a flow of replies over for a newer connection: the same client
 * comes to the same real server by another virtual address, or anew. Returns its
 * slot or NO_PLACE. What a local address has is nobody else's. */
static __always_inline int take_reply_over(const struct way *way, const struct flow *flow,
					   __u32 owner, const struct settings *set, __u32 now)
{
	struct connection *reply;
	__u32 control, slot;

	reply = find_connection(way, flow, set, now, &control);
	if (!reply || !is_reply(reply) || is_fullnat(reply))
		return NO_PLACE;
	slot = slot_at(way, reply->distance, set);
	if (!claim(reply, control))
		return NO_PLACE;
	*(volatile __u32 *)reply_owner(reply) = owner;
	settle(reply, CONTROL_LIVE);
	return slot;
}

/* Enters a flow of replies. Returns its slot or NO_PLACE. */
static __always_inline int create_reply(const struct way *way, const struct flow *flow,
					enum connection_flag flags, __u32 server, __u32 owner,
					const struct settings *set, __u32 now)
{
	int distance = enter_way(way, set, now);
	struct connection *reply;

	reply = distance == NO_PLACE ? NULL : place(way, distance, set);
	if (!reply)
		return NO_PLACE;
	name_entry(reply, flow, STATE_NONE, flags, distance);
	reply->server = server;
	reply->expires = now + REPLY_TIME;
	*(volatile __u32 *)reply_owner(reply) = owner;
	settle(reply, CONTROL_LIVE);
	return slot_at(way, distance, set);
}

/* Ties the connection at a slot to an entry for its replies. False: there is no room
 * for it. */
static __always_inline bool tie_reply(__u32 owner, __u32 now)
{
	const struct settings *set = get_settings();
	struct connection *conn = entry_at(owner);
	__u64 *bond = bond_at(owner);
	struct flow flow = {};
	struct way way;
	int slot;

	if (!conn || !bond || !name_replies(owner, &flow))
		return false;
	way = find_way(hash_flow(&flow, set), set);
	slot = take_reply_over(&way, &flow, owner, set, now);
	if (slot == NO_PLACE)
		slot = create_reply(&way, &flow, CONNECTION_REPLY, conn->server, owner, set, now);
	if (slot == NO_PLACE)
		return false;
	*(volatile __u32 *)bond_upper(bond) = BOND_NO_TEMPLATE | slot;
	__sync_fetch_and_or(state_word(conn), CONNECTION_MASQUERADED << 16);
	return true;
}

/* The slot of a flow's entry, or NO_PLACE. Not static: see answer_icmp. */
__noinline int find_slot(const struct flow *flow, __u32 now)
{
	const struct settings *set = get_settings();
	struct connection *conn;
	__u32 control;
	struct way way;

	if (!flow)
		return NO_PLACE;
	way = find_way(hash_flow(flow, set), set);
	conn = find_connection(&way, flow, set, now, &control);
	return conn ? slot_at(&way, conn->distance, set) : NO_PLACE;
}

/* Where a client's packets come from, noted at the entry for the replies of the
 * connection at a slot. */
static __always_inline void note_sender(__u32 owner, __u64 mac, __u32 ifindex)
{
	struct connection *reply;
	__u64 *bond;
	__u32 slot;

	reply = second_entry(owner, &slot);
	bond = reply ? bond_at(slot) : NULL;
	if (!bond || !is_reply(reply))
		return;
	*(volatile __u64 *)reply_sender(reply) = mac;
	*(volatile __u64 *)bond = (__u64)BOND_NO_TEMPLATE << 32 | ifindex;
}

#endif
