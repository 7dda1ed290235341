/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * local.h: the local address and port that a FullNAT connection has at its real
 * server (not in IPVS).
 *
 * Who holds them is told by the connection table alone: they stand in the name of the
 * connection's second entry (reply.h), the real server's address and port before them.
 * So the same local port serves any number of real servers, and it comes back with
 * the entry. Ports are tried from a place that the client's flow tells: a client that
 * uses its own port anew comes from the same local one if that is free.
 *
 * Two CPUs may take the same free port for two clients at once. Each enters it, and
 * then looks through the whole way for another entry of that name: who finds one gives
 * up its own and takes another port. As both look after both have entered, no two stay.
 */
#ifndef FAIRLEAD_LOCAL_H
#define FAIRLEAD_LOCAL_H

#include "reply.h"

enum {
	NO_PORT = -2,		/* none that was tried is free */
	/* Ports that are looked at for a connection. Of a pool that is taken by nine
	 * tenths, one connection in eight hundred finds none. */
	LOCAL_TRIES = 64,
	/* How often another CPU may be quicker. */
	LOCAL_CLAIMS = 2,
};

/* Sets the address and the port of a try in what names replies. `start` is the hash of the
 * client's flow. False: there is none. */
static __always_inline bool set_local(struct flow *flow, __u64 start, __u32 pool, __u32 try)
{
	__u32 count = pool & 0xffff, index, turn;
	const struct local_address *local;

	if (!count)
		return false;
	index = (pool >> 16) + ((__u32)start + try) % count;
	local = bpf_map_lookup_elem(&local_addresses, &index);
	if (!local || !local->ports)
		return false;
	/* A short range is walked through, so that none is missed. In a long one no step is of
	 * one length: that could lead round a few ports alone. */
	turn = try / count;
	if (local->ports > LOCAL_TRIES)
		turn = (start + turn * MIX) >> 32;
	else
		turn += start >> 32 & 0xffff;
	turn %= local->ports;
	flow->vaddr = local->addr;
	flow->word = (flow->word & ~0xffff0000ULL) |
		     (__u64)bpf_htons(local->first_port + turn) << 16;
	return true;
}

/* Not static: see answer_icmp. */
__noinline int is_free(const struct flow *flow, __u32 now)
{
	const struct settings *set = get_settings();
	const struct connection *conn;
	struct way way;

	if (!flow)
		return false;
	way = find_way(hash_flow(flow, set), set);
	conn = place(&way, 0, set);
	if (!conn || is_entry_of(conn, read_control(conn), flow, now))
		return false;
	return !passed(read_control(conn)) || find_displaced(&way, flow, set, now) == NO_PLACE;
}

/* Whether another live entry has the flow of the one at a distance on its way. Not
 * static: see answer_icmp. */
__noinline int is_contested(const struct way *way, const struct flow *flow, __u32 distance,
			    __u32 now)
{
	const struct settings *set = get_settings();

	if (!way || !flow)
		return true;
	for (__u32 i = 0; i < PROBE_SLOTS; i++) {
		struct connection *conn = place(way, i, set);
		__u32 control;

		if (!conn)
			return true;
		/* Fully ordered, so that it comes after our own entry's publication. */
		control = __sync_fetch_and_add(&conn->control, 0);
		/* Hidden, or the verifier follows each distance by itself. */
		if (hide(i ^ distance) && is_entry_of(conn, control, flow, now))
			return true;
		if (!passed(control))
			return false;
	}
	return false;
}

/* Enters a flow of replies that nobody had a moment ago. Returns its slot; NO_PLACE, if
 * there is no room; or NO_PORT: somebody was quicker. Not static: see answer_icmp. */
__noinline int enter_local(const struct flow *flow, __u32 owner, __u32 now)
{
	const struct settings *set = get_settings();
	const struct connection *conn = entry_at(owner);
	struct connection *reply;
	struct way way;
	int slot;

	if (!flow || !conn)
		return NO_PLACE;
	way = find_way(hash_flow(flow, set), set);
	slot = create_reply(&way, flow, CONNECTION_REPLY | CONNECTION_FULLNAT, conn->server, owner,
			    set, now);
	if (slot == NO_PLACE)
		return NO_PLACE;
	reply = entry_at(slot);
	if (!reply)
		return NO_PLACE;
	if (!is_contested(&way, flow, reply->distance, now))
		return slot;
	expire_connection(reply);
	return NO_PORT;
}

/* Where the addresses of the pool begin, and how many they are. */
static __always_inline __u32 local_pool(const struct settings *set, bool ipv6)
{
	return *(const volatile __u32 *)&set->local_addresses[ipv6];
}

/* Finds a free local port, from a try on, for a connection whose flow has that hash, and
 * writes what then names its replies. Returns the next try, or NO_PORT. */
static __always_inline int search_port(__u64 start, __u32 try, struct flow *flow,
				       const struct settings *set, __u32 now)
{
	__u32 pool = local_pool(set, !is_mapped(&flow->caddr));

	for (int i = 0; i < LOCAL_TRIES; i++) {
		if (try >= LOCAL_TRIES || !set_local(flow, start, pool, try++))
			return NO_PORT;
		if (is_free(flow, now))
			return try;
	}
	return NO_PORT;
}

/* Does that for the connection at a slot. Not static: see answer_icmp. */
__noinline int find_port(__u32 owner, __u32 try, struct flow *flow, __u32 now)
{
	const struct settings *set = get_settings();
	const struct connection *conn = entry_at(owner);

	if (!conn || !flow)
		return NO_PORT;
	return search_port(hash_entry(conn, set), try, flow, set, now);
}

/* Gives the connection at a slot the entry for its replies; or ends it, if that is
 * NO_PLACE or NO_PORT. */
static __noinline int tie_local(__u32 owner, int reply)
{
	struct connection *conn = entry_at(owner);
	__u64 *bond = bond_at(owner);

	if (!conn || !bond)
		return NO_PLACE;
	if (reply < 0) {
		expire_connection(conn);
		return reply;
	}
	*(volatile __u32 *)bond_upper(bond) = BOND_NO_TEMPLATE | reply;
	__sync_fetch_and_or(state_word(conn), (CONNECTION_MASQUERADED | CONNECTION_FULLNAT) << 16);
	return owner | BEGINS;
}

/*
 * Gives the connection that a packet has begun a local address and port. Returns its slot
 * with BEGINS set; NO_PLACE, if the table has no room; or NO_PORT: then it is ended. Not
 * static: see answer_icmp.
 */
__noinline int begin_local(const struct packet *pkt, __u32 now)
{
	int owner, try = 0, reply = NO_PORT;
	struct flow flow = {};

	if (!pkt)
		return NO_PLACE;
	owner = find_slot(&pkt->flow, now);
	if (owner == NO_PLACE || !name_replies(owner, &flow))
		return NO_PLACE;
	_Pragma("clang loop unroll(full)") for (int i = 0; i < LOCAL_CLAIMS; i++) {
		try = find_port(owner, try, &flow, now);
		if (try == NO_PORT)
			break;
		reply = enter_local(&flow, owner, now);
		if (reply != NO_PORT)
			break;
	}
	return tie_local(owner, reply);
}

#endif
