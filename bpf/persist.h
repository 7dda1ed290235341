/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * persist.h: persistence (ip_vs_core.c, ip_vs_sched_persist). The first connection
 * of a client, or of all clients that a mask makes one, leaves a template behind:
 * an entry of the connection table that sends the next ones to the same server,
 * whatever its weight and load. How long it lives is said by the service when it is
 * made, and starts anew with each connection.
 */
#ifndef FAIRLEAD_PERSIST_H
#define FAIRLEAD_PERSIST_H

#include "call_id.h"
#include "conn.h"
#include "schedule.h"
#include "service.h"
#include "state.h"

/*
 * What names the template of a packet: the client behind the mask, and
 *  - for a service of a mark, the mark;
 *  - for FTP and for all ports, the protocol and the virtual address;
 *  - else the virtual port too;
 * and with the engine sip a Call-ID, by its hash here.
 */
static __always_inline struct flow template_flow(const struct packet *pkt,
						 const struct service *svc,
						 const struct edition *edition)
{
	const struct flow *flow = &pkt->flow;
	__u16 vport = flow_vport(flow);
	struct flow template = {
		.caddr = { .high = flow->caddr.high & edition->client_mask.high,
			   .low = flow->caddr.low & edition->client_mask.low },
		.vaddr = svc->key.vaddr,
	};

	if (svc->key.vport != vport || vport == bpf_htons(FTP_PORT))
		vport = 0;
	template.word = pkt->call_id | (__u64)vport << 16 |
			(__u64)(svc->key.protocol ^ TEMPLATE_PROTOCOL) << 32;
	return template;
}

static __always_inline int find_template(const struct way *way, const struct flow *template,
					 const struct settings *set)
{
	for (__u32 i = 0; i < PROBE_SLOTS; i++) {
		struct connection *conn = place(way, i, set);
		__u32 control;

		if (!conn)
			return NO_PLACE;
		control = read_control(conn);
		if (control_status(control) == CONTROL_LIVE && same_flow(conn, template) &&
		    (!has_call_id(conn) || is_of_call(conn)))
			return i;
		if (!passed(control))
			return NO_PLACE;
	}
	return NO_PLACE;
}

/* The place of the template of a packet, whether or not its time is over; or
 * NO_PLACE. Not static: see answer_icmp. */
__noinline int look_up_template(const struct packet *pkt, const struct service *svc,
				const struct edition *edition, struct way *way)
{
	const struct settings *set = get_settings();
	struct flow template;

	if (!pkt || !svc || !edition || !way)
		return NO_PLACE;
	template = template_flow(pkt, svc, edition);
	*way = find_way(hash_flow(&template, set), set);
	return find_template(way, &template, set);
}

/* Nobody finds it from now on, and it goes when its time is over. */
static __always_inline void make_void(struct connection *template)
{
	__sync_fetch_and_or(state_word(template), CONNECTION_VOID << 16);
}

/* Whether a template may send clients to its server (ip_vs_check_template). */
static __always_inline bool is_served(const struct service *svc, struct settings *set,
				      __u32 index)
{
	const struct real_server *server = get_server(index);

	if (!server || server->state != SERVER_LISTED)
		return false;
	if (server->weight)
		return true;
	return !server->drain &&
	       !get_policy(svc->policy, set)->sysctls[SYSCTL_EXPIRE_QUIESCENT_TEMPLATE];
}

/* Takes the server of a packet's template, which is held from then on; false if it
 * has none that may be used. Not static: see answer_icmp. */
__noinline int use_template(const struct packet *pkt, const struct service *svc,
			    const struct edition *edition, __u32 now, struct birth *birth)
{
	struct settings *set = get_settings();
	struct connection *template;
	int distance, before;
	__u32 control, slot;
	struct way way = {};

	if (!pkt || !svc || !edition || !birth)
		return false;
	distance = look_up_template(pkt, svc, edition, &way);
	template = distance < 0 || distance >= PROBE_SLOTS ? NULL : place(&way, distance, set);
	if (!template)
		return false;
	control = read_control(template);
	slot = slot_at(&way, distance, set);
	before = hold_template(slot, control);
	if (before == HOLD_GONE)
		return false;
	birth->server = *(volatile __u32 *)&template->server;
	if (!is_served(svc, set, birth->server) || (!before && is_over(template->expires, now))) {
		make_void(template);
		if (before != HOLD_BUSY)
			let_go(slot, template->expires, set);
		return false;
	}
	template->expires = now + *template_timeout(template);
	if (before != HOLD_BUSY)
		birth->template = slot;
	return true;
}

/* Where the template of a packet may lie. Not static: see answer_icmp. */
__noinline int find_template_way(const struct packet *pkt, const struct service *svc,
				 const struct edition *edition, struct way *way)
{
	const struct settings *set = get_settings();
	struct flow template;

	if (!pkt || !svc || !edition || !way)
		return false;
	template = template_flow(pkt, svc, edition);
	*way = find_way(hash_flow(&template, set), set);
	return true;
}

/* Names the template of a packet, at the slot that was claimed for it. Not static:
 * see answer_icmp. */
__noinline int name_template(const struct packet *pkt, const struct service *svc,
			     const struct edition *edition, __u32 slot, __u32 distance)
{
	struct connection *conn = entry_at(slot);
	struct flow template;

	if (!pkt || !svc || !edition || !conn)
		return false;
	template = template_flow(pkt, svc, edition);
	name_entry(conn, &template, STATE_NONE, CONNECTION_TEMPLATE, distance);
	return true;
}

/* Gives back the slot of a template that was named and is none. */
static __noinline int abandon_template(__u32 slot)
{
	struct connection *conn = entry_at(slot);

	if (!conn)
		return 0;
	leave_way(conn);
	settle(conn, CONTROL_FREE);
	return 0;
}

/* Publishes a template that was named. */
static __noinline int publish_template(const struct birth *birth, __u32 timeout, __u32 now)
{
	struct connection *template = entry_at(birth->template);
	struct real_server *server = get_server(birth->server);
	__u64 *bond = bond_at(birth->template);

	if (!template || !server || !bond)
		return 0;
	template->server = birth->server;
	template->expires = now + timeout;
	*template_timeout(template) = timeout;
	*(volatile __u64 *)bond = bond_of_template(read_control(template) + CONTROL_GENERATION_ONE, 1);
	__sync_fetch_and_add(&server->persistent, 1);
	settle(template, CONTROL_LIVE);
	return 0;
}

/* Enters a template for a server, held already. False: there is no room. Not static:
 * see answer_icmp. */
__noinline int create_template(const struct packet *pkt, const struct service *svc,
			       const struct edition *edition, __u32 now, struct birth *birth)
{
	const struct settings *set = get_settings();
	struct way way = {};
	int distance;

	if (!pkt || !edition || !birth || !find_template_way(pkt, svc, edition, &way))
		return false;
	distance = enter_way(&way, set, now);
	if (distance == NO_PLACE)
		return false;
	birth->template = slot_at(&way, distance, set);
	name_template(pkt, svc, edition, birth->template, distance);
	if (unlikely(pkt->call_id) && !keep_call_id(birth->template)) {
		abandon_template(birth->template);
		return false;
	}
	publish_template(birth, edition->persistence, now);
	return true;
}

/* Lets go of a template for which there is no connection after all; NO_PLACE: there
 * is no template either. */
static __noinline int let_go_unbound(int template, __u32 now)
{
	const struct settings *set = get_settings();

	if (template != NO_PLACE)
		let_go(template, now, set);
	return 0;
}

/* For a packet that finds no room in the table: the server of its client's template,
 * or one by hash, the same for all of a client's packets. Not static: see
 * answer_icmp. */
__noinline int choose_by_template(const struct packet *pkt, const struct service *svc,
				  struct edition *edition, __u32 now)
{
	struct settings *set = get_settings();
	struct connection *template;
	struct way way = {};
	int distance;

	if (!pkt || !svc || !edition)
		return NO_SERVER;
	distance = look_up_template(pkt, svc, edition, &way);
	template = distance < 0 || distance >= PROBE_SLOTS ? NULL : place(&way, distance, set);
	if (template && !is_over(template->expires, now) && is_served(svc, set, template->server))
		return template->server;
	return choose_by_hash(edition, other_bits(&way));
}

/* A datagram that is scheduled by itself counts as a connection for a moment,
 * which may reach a threshold. */
static __always_inline void pass_through(__u32 index)
{
	struct real_server *server = get_server(index);

	if (!server)
		return;
	__sync_fetch_and_add(&server->inactive, 1);
	mark_overload(server);
	__sync_fetch_and_sub(&server->inactive, 1);
	unmark_overload(server);
}

/* Whether a packet's template is named by a Call-ID that was not looked for yet. */
static __always_inline bool needs_call_id(const struct edition *edition, const struct packet *pkt)
{
	return edition->flags & FLAG_CALL_ID && edition->persistence && !pkt->call_id &&
	       flow_cport(&pkt->flow) != bpf_htons(FTP_DATA_PORT);
}

static __always_inline bool is_one_packet(const struct edition *edition, const struct packet *pkt)
{
	return edition->flags & FLAG_ONE_PACKET && flow_protocol(&pkt->flow) == IPPROTO_UDP;
}

#endif
