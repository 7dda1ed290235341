// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * director.bpf.c: the programs of a director. They read as a table of contents;
 * each stage is a header of its own.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "maps.h"
#include "hooks.h"
#include "packet.h"
#include "conn.h"
#include "state.h"
#include "service.h"
#include "defence.h"
#include "peer.h"
#include "schedule.h"
#include "persist.h"
#include "icmp_quote.h"
#include "xdp.h"
#include "tunnel.h"
#include "path_mtu.h"
#include "stats.h"
#include "masquerade.h"
#include "icmp_masquerade.h"
#include "steady.h"
#include "first.h"
#include "sweep.h"
#include "fragment.h"
#include "oversized.h"

/* Where a packet goes. */
struct route {
	struct connection *conn; /* NULL: a new one, or none */
	struct connection *over; /* the flow's entry that gave way, or NULL */
	struct target to;
};

/* The table has no room for a flow: its packets go by hash, this one and, for
 * as long as the longest timeout, those that come without an entry. */
static __always_inline enum verdict admit_by_hash(const struct packet *pkt, const struct way *way,
						  struct service *svc, struct edition *edition,
						  const struct policy *policy, __u32 now,
						  __u32 *chosen)
{
	int server = edition->persistence ? choose_by_template(pkt, svc, edition, now) :
					    choose_by_hash(edition, other_bits(way));

	on_hashed(edition);
	if (server == NO_SERVER)
		return ANSWER_NO_SERVER;
	svc->overflow_until = (now + policy->timeouts[STATE_ESTABLISHED]) | 1;
	*chosen = server;
	return FORWARD_NO_ENTRY;
}

static __always_inline bool has_overflowed(const struct service *svc, __u32 now)
{
	return svc->overflow_until && !is_over(svc->overflow_until, now);
}

/* A packet without an entry gets a server: FORWARD and FORWARD_NO_ENTRY, or
 * why it gets none. Not static: see answer_icmp. */
__noinline int admit(const struct packet *pkt, const struct way *way, __u32 now, __u32 *chosen)
{
	struct settings *set = get_settings();
	struct edition *edition;
	struct policy *policy;
	struct service *svc;
	struct birth birth;
	int server;

	if (!pkt || !way || !chosen)
		return BUG_MAP;
	if (unlikely(pkt->fragment & FRAGMENT_LATER))
		return follow_datagram(pkt, chosen);
	svc = find_service(pkt, set);
	if (!svc)
		return PASS_NO_SERVICE;
	edition = current_edition(svc);
	if (!edition)
		return BUG_MAP;
	policy = get_policy(svc->policy, set);
	if (!may_begin(pkt, policy)) {
		if (!pkt->syn && !is_abort(pkt) && has_overflowed(svc, now))
			return admit_by_hash(pkt, way, svc, edition, policy, now, chosen);
		return PASS_NO_CONNECTION;
	}
	if (unlikely(needs_call_id(edition, pkt)))
		return DROP_NO_CALL_ID;
	if (drops_new(policy))
		return DROP_DEFENCE;
	if (flow_cport(&pkt->flow) == bpf_htons(FTP_DATA_PORT))
		return PASS_FTP;
	if (!edition->persistence && !serves_port(svc, pkt))
		return leaves_to_host(svc, pkt) ? PASS_FTP : ANSWER_NO_SERVER;

	birth.template = NO_PLACE;
	if (!edition->persistence || !use_template(pkt, svc, edition, now, &birth)) {
		on_schedule(edition);
		server = schedule(edition, &pkt->flow, now);
		on_scheduled(edition);
		if (server == NO_SERVER)
			return leaves_to_host(svc, pkt) ? PASS_FTP : ANSWER_NO_SERVER;
		birth.server = server;
		if (edition->persistence && !create_template(pkt, svc, edition, now, &birth))
			return admit_by_hash(pkt, way, svc, edition, policy, now, chosen);
	}
	*chosen = birth.server;
	if (is_one_packet(edition, pkt)) {
		pass_through(birth.server);
		let_go_unbound(birth.template, now);
	} else {
		begin_with(&birth, pkt, policy);
		if (create_connection(way, &pkt->flow, &birth, now) == NO_PLACE) {
			let_go_unbound(birth.template, now);
			return admit_by_hash(pkt, way, svc, edition, policy, now, chosen);
		}
	}
	count_connection(birth.server);
	return FORWARD;
}

/* Takes the route of the flow's entry, unless there is none or it gives way to
 * the packet. */
static __always_inline bool follow_connection(const struct packet *pkt, const struct way *way,
					      struct settings *set, __u32 now,
					      struct route *route)
{
	__u32 control;
	struct connection *conn = find_connection(way, &pkt->flow, set, now, &control);

	if (!conn)
		return false;
	if (!is_reply(conn) && gives_way(conn, pkt, set)) {
		route->over = conn;
		return false;
	}
	route->conn = conn;
	route->to.server = *(volatile __u32 *)&conn->server;
	return !is_stale(conn, control);
}

/* The real server of a packet, by its connection or by a new one. */
static __always_inline enum verdict find_route(struct xdp_md *ctx, struct packet *pkt,
					       struct settings *set, __u32 now,
					       struct route *route)
{
	struct way way = find_way(hash_flow(&pkt->flow, set), set);
	enum verdict v;

	if (follow_connection(pkt, &way, set, now, route))
		return FORWARD;
	route->conn = NULL;
	v = admit(pkt, &way, now, &route->to.server);
	if (unlikely(v == DROP_NO_CALL_ID) && read_call_id(ctx, pkt))
		v = admit(pkt, &way, now, &route->to.server);
	/* The scheduler still counts the old connection: IPVS ends it by a timer. */
	if (route->over)
		expire_connection(route->over);
	return v;
}

/* A connection keeps the method that it began with. */
static __always_inline bool goes_masqueraded(const struct route *route,
					     const struct real_server *server)
{
	return route->conn ? is_masqueraded(route->conn) : translates(server);
}

/* What a masqueraded packet has begun: as expect_replies says. */
static __always_inline int begin_masqueraded(const struct packet *pkt, enum verdict how,
					     __u32 method, __u32 now)
{
	if (how != FORWARD)
		return NO_PLACE;
	return method == METHOD_FULLNAT ? begin_local(pkt, now) : expect_replies(pkt, now);
}

/* Gives a packet to its real server's next hop, in an outer packet if there is a
 * tunnel: FORWARD, or why not. */
static __always_inline enum verdict send_on(struct xdp_md *ctx, struct packet *pkt,
					    const struct real_server *server, struct target *to)
{
	const struct next_hop *hop;
	__u32 word;

	count_packet(to->server, pkt->length);
	word = read_hop(server);
	hop = &server->hops[word & HOP_SECOND];
	to->out = hop->ifindex;
	if (!to->out)
		return hop->local ? PASS_LOCAL : DROP_NO_NEXT_HOP;
	if (word & HOP_TUNNEL)
		return encapsulate(ctx, pkt, to->server, word & HOP_SECOND);
	return forward(ctx, pkt, hop);
}

/* Takes a packet that has a route to its real server. */
static __always_inline enum verdict deliver(struct xdp_md *ctx, struct packet *pkt,
					    struct settings *set, __u32 now, struct route *route,
					    enum verdict how)
{
	struct real_server *server = get_server(route->to.server);
	bool masqueraded;
	int begun = 0;
	enum verdict v;

	if (!server)
		return BUG_MAP;
	if (server->state != SERVER_LISTED)
		return DROP_SERVER_REMOVED;
	masqueraded = goes_masqueraded(route, server);
	if (route->conn && unlikely(is_unanswered(pkt, route->conn->state)))
		__sync_fetch_and_add(&server->retries, 1);
	if (route->conn)
		update_connection(route->conn, masqueraded ? FROM_CLIENT : CLIENT_ONLY, pkt,
				  get_policy(server->policy, set), now);
	else if (masqueraded)
		begun = begin_masqueraded(pkt, how, server->method, now);
	if (masqueraded)
		return send_masqueraded(ctx, pkt, route->conn, begun, &route->to);
	v = send_on(ctx, pkt, server, &route->to);
	return v == FORWARD ? how : v;
}

enum {
	IS_ICMP = -2,		/* no XDP action: take_icmp takes the packet */
};

/* To the host, before there is anything to conclude. */
static __always_inline int leave_at_once(enum verdict v)
{
	count_verdict(v);
	return XDP_PASS;
}

/* Any packet but ICMP, by every stage. Parsed anew: nothing is shared with the short
 * way but the frame. Not static: see answer_icmp. */
__noinline int take(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	struct settings *set = get_settings();
	struct route route = {};
	struct packet pkt = {};
	enum verdict v;
	__u32 now;

	if (!in)
		return leave_at_once(BUG_MAP);
	if (!set->services)
		return leave_at_once(PASS_NO_SERVICES);
	now = now_tick(set);
	v = parse_packet(ctx, &pkt, in);
	if (unlikely(v == PASS_FRAGMENT))
		v = resolve_fragment(ctx, &pkt);
	if (v == CONTINUE && is_from_peer(ctx, set))
		v = leave_to_host(&pkt, set);
	if (v == CONTINUE)
		v = find_route(ctx, &pkt, set, now, &route);
	if (v == PASS_ICMP)
		return IS_ICMP;
	if (route.conn && is_reply(route.conn))
		v = send_back(ctx, &pkt, route.conn, &route.to, now);
	else if (v == FORWARD || v == FORWARD_NO_ENTRY)
		v = deliver(ctx, &pkt, set, now, &route, v);
	if (unlikely(v == FORWARD_IN_FRAGMENTS))
		v = hand_over_oversized(ctx, &pkt, route.to.out);
	if (unlikely(pkt.fragment))
		v = conclude_fragment(&pkt, route.conn, &route.to, v);
	return finish(ctx, &pkt, set, in, v, route.to.out);
}

/* The real server of the connection that an ICMP error is about: FORWARD and
 * FORWARD_NO_ENTRY, or why it has none. */
static __always_inline enum verdict find_quoted(struct packet *pkt, struct settings *set,
						__u32 now, struct route *route)
{
	struct way way = find_way(hash_flow(&pkt->flow, set), set);
	enum verdict v;
	__u32 control;

	route->conn = find_connection(&way, &pkt->flow, set, now, &control);
	if (route->conn) {
		route->to.server = *(const volatile __u32 *)&route->conn->server;
		if (!is_stale(route->conn, control))
			return FORWARD;
		route->conn = NULL;
	}
	if (!set->policy.sysctls[SYSCTL_SCHEDULE_ICMP])
		return PASS_ICMP;
	pkt->event = EVENT_QUOTED;
	pkt->syn = true;
	v = admit(pkt, &way, now, &route->to.server);
	switch (v) {
	case ANSWER_NO_SERVER:
		return DROP_ICMP_ERROR;
	case PASS_NO_SERVICE:
		return PASS_ICMP;
	default:
		return v;
	}
}

/* Takes an ICMP error that has a route to its real server, or about a real server's
 * packet to the client. */
static __always_inline enum verdict deliver_error(struct xdp_md *ctx, struct packet *pkt,
						  struct route *route, enum verdict how, __u32 now)
{
	const struct real_server *server = get_server(route->to.server);
	bool back = route->conn && is_reply(route->conn);
	enum verdict v;
	int begun = 0;

	if (!server)
		return BUG_MAP;
	if (!back && server->state != SERVER_LISTED)
		return DROP_SERVER_REMOVED;
	if (pkt->ethertype == bpf_htons(ETH_P_IP) && !icmp_checksum_holds(ctx, pkt))
		return DROP_ICMP_CHECKSUM;
	if (!route->conn && translates(server))
		begun = begin_masqueraded(pkt, how, server->method, now);
	if (back)
		v = send_error_back(ctx, pkt, route->conn, &route->to, now);
	else if (goes_masqueraded(route, server))
		v = send_masqueraded_error(ctx, pkt, route->conn, begun, &route->to);
	else
		v = send_on(ctx, pkt, server, &route->to);
	switch (v) {
	case FORWARD:
		return FORWARD_ICMP;
	case FORWARD_IN_FRAGMENTS:
		return DROP_TOO_BIG; /* every way carries what a sound error has */
	case ANSWER_NO_LOCAL_PORT:
	case ANSWER_TTL:
	case ANSWER_TOO_BIG:
		return DROP_ICMP_ERROR;
	default:
		return v;
	}
}

/* A packet of ICMP. Not static: see answer_icmp. */
__noinline int take_icmp(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	struct settings *set = get_settings();
	struct route route = {};
	struct packet pkt = {};
	enum verdict v;
	__u32 now;

	if (!in)
		return leave_at_once(BUG_MAP);
	pull_frame(ctx, MAX_L2 + MAX_CHECKED);
	v = parse_packet(ctx, &pkt, in);
	if (v != PASS_ICMP)	/* take() has seen that it is */
		return leave_at_once(v);
	if (!is_from_peer(ctx, set))
		v = read_quote(ctx, &pkt);
	now = now_tick(set);
	if (v == CONTINUE)
		v = find_quoted(&pkt, set, now, &route);
	if (v == PASS_ICMP)
		learn_path(ctx, &pkt);
	if (v == FORWARD || v == FORWARD_NO_ENTRY)
		v = deliver_error(ctx, &pkt, &route, v, now);
	return finish(ctx, &pkt, set, in, v, route.to.out);
}

/* Any packet that has no short way. */
static __always_inline int take_any(struct xdp_md *ctx)
{
	int action = take(ctx);

	return action == IS_ICMP ? take_icmp(ctx) : action;
}

/* A steady packet. Returns NOT_TAKEN, or the XDP action. */
static __always_inline int take_steady(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	struct settings *set = get_settings();

	if (unlikely(!in || has_metadata(ctx) || is_from_peer(ctx, set)))
		return NOT_TAKEN;
	return follow_steady(ctx, in, set, now_tick(set));
}

DIRECTOR_SECTION
int director(struct xdp_md *ctx)
{
	int action;

	pull_frame(ctx, PULLED);
	action = take_steady(ctx);
	if (unlikely(action == NOT_TAKEN))
		action = take_first(ctx);
	if (unlikely(action == NOT_TAKEN))
		action = take_any(ctx);
	return leave_program(ctx, action);
}

/* Whether a fragment that the director keeps may go its way, through the program
 * above; not run on any interface. Returns what enum resumption says. */
DIRECTOR_SECTION
int resume_fragment(struct xdp_md *ctx)
{
	return find_way_out(ctx);
}

/* Counts frames that left by a way that only the director knows. */
SEC("syscall")
int count_frames(struct verdict_count *count)
{
	__u32 index = count->verdict;
	__u64 *counter = bpf_map_lookup_elem(&verdicts, &index);

	/* Packets may come in between. */
	if (counter)
		__sync_fetch_and_add(counter, count->frames);
	return 0;
}

/* Ends the connections or templates of SWEEP_GROUPS groups whose time is over, and
 * those that end early. It runs to its end even if the director is killed, so that no slot and no count is lost.
 * Returns entries expired in the upper half and in use in the lower. */
SEC("syscall")
int sweep(struct sweep_range *range)
{
	struct sweep sweep = {
		.first = range->first,
		.defended = range->defended,
		.abandoned = range->abandoned,
		.part = range->part,
	};
	struct settings *set = get_settings();

	sweep.now = now_tick(set);
	bpf_loop(SWEEP_GROUPS, sweep_group, &sweep, 0);
	return sweep.expired << 16 | sweep.used;
}

/* Tells the director what time it is here. Returns the tick. */
SEC("syscall")
int read_clock(struct clock_reading *reading)
{
	struct settings *set = get_settings();

	reading->jiffies = bpf_jiffies64();
	reading->ns = bpf_ktime_get_ns();
	return now_tick(set);
}

/* Puts the enums, which no map has, into the BTF that Go's are made from. */
const enum resumption *resumptions __attribute__((unused));
const enum party *roles_of_parties __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
