/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * fragment.h: a datagram that comes in fragments goes one way.
 *
 * The first fragment has the ports and passes the stages like a whole packet;
 * what became of it is noted with the datagram (datagram.h), and the later ones follow.
 * Nothing is put together here: that is for whom the datagram is for, as are overlaps
 * among the later ones. What could change the header that the first one was judged by is
 * dropped.
 *
 * A later fragment that comes before the first one is handed to the director,
 * through a ring buffer. It keeps the frame until it hears that the first one
 * has come, and then puts it through these stages again.
 */
#ifndef FAIRLEAD_FRAGMENT_H
#define FAIRLEAD_FRAGMENT_H

#include "datagram.h"
#include "mark.h"
#include "peer.h"
#include "stats.h"
#include "xdp.h"

/* The frame that a CPU is about to hand over. */
struct handover {
	struct held_fragment head;
	__u8 frame[MAX_HELD_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct handover);
} handovers SEC(".maps");

/* Whether a mark that some rule gives could be a fragment's, whose ports are not
 * known. */
static int visit_rule_of_addresses(__u32 i, void *ctx)
{
	struct mark_search *search = ctx;
	__u32 index = search->first + i;
	const struct mark_rule *rule = bpf_map_lookup_elem(&mark_rules, &index);

	if (!rule || !is_within(&search->flow->vaddr, &rule->vaddr, &rule->vaddr_mask) ||
	    !is_within(&search->flow->caddr, &rule->caddr, &rule->caddr_mask))
		return 0;
	search->mark = rule->mark;
	return 1;
}

/* Whether an address is a party. It is a copy: Linux 6.1 wants a key on the stack. */
static __always_inline bool is_party(struct address addr, enum party role)
{
	const __u32 *roles = bpf_map_lookup_elem(&parties, &addr);

	return roles && *roles & role;
}

/* Whether a fragment can be a service's, or a reply. Those of others are never looked
 * up, and never kept. A peer's are no client's. */
static __noinline int concerns_service(const struct packet *pkt, const struct settings *set,
				       bool from_peer)
{
	__u32 rules = *(const volatile __u32 *)&set->mark_rules;
	struct mark_search search = { .flow = &pkt->flow, .first = rules >> 16 };

	if (is_party(pkt->flow.caddr, PARTY_SERVER))
		return true;
	if (from_peer)
		return false;
	if (is_party(pkt->flow.vaddr, PARTY_VIRTUAL))
		return true;
	rules &= 0xffff;
	if (rules)
		bpf_loop(rules < MAX_MARK_RULES ? rules : MAX_MARK_RULES, visit_rule_of_addresses,
			 &search, 0);
	return search.mark != 0;
}

static __always_inline struct handover *name_handover(const struct packet *pkt, __u32 id,
						      __u32 ifindex)
{
	__u32 zero = 0;
	struct handover *h = bpf_map_lookup_elem(&handovers, &zero);

	if (!h)
		return NULL;
	h->head.caddr = pkt->flow.caddr;
	h->head.vaddr = pkt->flow.vaddr;
	h->head.id = id;
	h->head.ifindex = ifindex;
	h->head.length = 0;
	h->head.protocol = is_ipv4(pkt) ? flow_protocol(&pkt->flow) : 0;
	return h;
}

/* Hands a frame to the director. Not static: see answer_icmp. */
__noinline int hand_over(struct xdp_md *ctx, const struct packet *pkt,
			 const struct fragment_header *frag)
{
	__u32 length = bpf_xdp_get_buff_len(ctx);
	struct handover *h;

	if (!pkt || !frag)
		return BUG_MAP;
	h = name_handover(pkt, frag->id, ctx->ingress_ifindex);
	if (!h)
		return BUG_MAP;
	h->head.length = length;
	if (!copy_frame(ctx, &length, h->frame, MAX_HELD_FRAME) ||
	    bpf_ringbuf_output(&held_fragments, h, sizeof(h->head) + length, 0))
		return DROP_FRAGMENT_LOST;
	return HOLD_FRAGMENT;
}

/* Reads on where the parser stopped: CONTINUE for a fragment that the stages take
 * on, or where it leaves. Not static: see answer_icmp. */
__noinline int resolve_fragment(struct xdp_md *ctx, struct packet *pkt)
{
	struct settings *set = get_settings();
	struct fragment_header frag = {};
	enum verdict v;

	if (!pkt)
		return BUG_MAP;
	if (!has_ports(pkt, flow_protocol(&pkt->flow)) ||
	    !concerns_service(pkt, set, is_from_peer(ctx, set)))
		return PASS_FRAGMENT;
	if (!read_fragment(ctx, pkt, &frag))
		return PASS_MALFORMED;
	if (!frag.offset) {
		v = read_first_fragment(ctx, pkt, frag.protocol);
		/* The first one's headers are the datagram's, but for one of IPv6. */
		pkt->uncounted = is_ipv4(pkt) ? 0 : IPV6_FRAGMENT_HEADER;
		if (v == PASS_PROTOCOL || v == PASS_ICMP)
			return PASS_FRAGMENT;
		if (v != CONTINUE)
			return DROP_FRAGMENT_TINY;
	}
	v = meet_datagram(pkt, &frag, bpf_xdp_get_buff_len(ctx), now_tick(set));
	if (v == HOLD_FRAGMENT)
		v = hand_over(ctx, pkt, &frag);
	return v;
}

/* What the later fragments of a datagram do after a first one that left so. */
static __always_inline enum datagram_state follows_from(enum verdict v)
{
	switch (v) {
	case FORWARD:
	case FORWARD_NO_ENTRY:
	case FORWARD_REPLY:
	case FORWARD_IN_FRAGMENTS:
	case PASS_LOCAL:
		return DATAGRAM_FOLLOW;
	case PASS_NO_SERVICE:
	case PASS_NO_CONNECTION:
	case PASS_FTP:
	case PASS_PEER:
		return DATAGRAM_PASS;
	default:
		return DATAGRAM_DROP;
	}
}

/* Notes what became of a first fragment. If others of its datagram are kept, the
 * director hears of it. Not static: see answer_icmp. */
__noinline int note_first(const struct packet *pkt, __u32 server, __u32 out, enum verdict v)
{
	struct settings *set = get_settings();
	__u32 slot, id = 0, held = 0;
	struct datagram_set *all;
	struct handover *h;
	struct datagram *d;

	if (!pkt)
		return 0;
	all = find_datagrams(pkt, set);
	if (!all)
		return 0;
	slot = pkt->fragment & FRAGMENT_SLOT;
	bpf_spin_lock(&all->lock);
	d = own_datagram(all, slot, pkt);
	if (d && d->state != DATAGRAM_OVERLAP) {
		d->state = follows_from(v);
		d->server = server;
		d->out = out;
		held = d->held;
		d->held = 0;
		id = d->id;
	}
	bpf_spin_unlock(&all->lock);
	if (!held)
		return 0;
	h = name_handover(pkt, id, 0);
	if (h)
		bpf_ringbuf_output(&held_fragments, &h->head, sizeof(h->head), 0);
	return 0;
}

/* Takes away what would not have been counted of a client's datagram in one piece, as
 * IPVS counts it (which puts it together first). */
static __always_inline void uncount_fragment(const struct packet *pkt, struct connection *conn,
					     __u32 server)
{
	struct counters *c = bpf_map_lookup_elem(&server_counters, &server);
	__u32 packets = pkt->fragment & FRAGMENT_LATER ? 1 : 0;

	if (c) {
		c->in_packets -= packets;
		c->in_bytes -= pkt->uncounted;
	}
	if (conn) {
		conn->packets -= packets;
		conn->bytes -= pkt->uncounted;
	}
}

/* The same of a reply, which a connection does not count. */
static __always_inline void uncount_reply(const struct packet *pkt, __u32 index)
{
	struct counters *c = bpf_map_lookup_elem(&server_counters, &index);
	const struct real_server *server = get_server(index);

	if (!c || !server || server->state != SERVER_LISTED)
		return;
	c->out_packets -= pkt->fragment & FRAGMENT_LATER ? 1 : 0;
	c->out_bytes -= pkt->uncounted;
}

/* Ends the way of a fragment through the stages: it was counted at a server as a
 * packet of its own. No error is answered to a later one (RFC 1122, 3.2.2). */
static __always_inline enum verdict conclude_fragment(const struct packet *pkt,
						      struct connection *conn,
						      const struct target *to, enum verdict v)
{
	if (follows_from(v) == DATAGRAM_FOLLOW) {
		if (pkt->reply)
			uncount_reply(pkt, to->server);
		else
			uncount_fragment(pkt, conn, to->server);
	}
	if (pkt->fragment & FRAGMENT_FIRST) {
		note_first(pkt, to->server, to->out, v);
		return v;
	}
	switch (v) {
	case ANSWER_NO_SERVER:
	case ANSWER_NO_LOCAL_PORT:
	case ANSWER_TTL:
	case ANSWER_TOO_BIG:
		return DROP_FRAGMENT;
	default:
		return v;
	}
}

/* The interface by which the first fragment of a datagram left (0: none), or
 * RESUME_LATER if that is not known. */
static __always_inline int find_way_out(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	__u32 slot, now, out = 0, state = DATAGRAM_NONE;
	struct settings *set = get_settings();
	struct fragment_header frag = {};
	struct datagram_set *all;
	struct packet pkt = {};

	if (!in)
		return RESUME_LATER;
	if (parse_packet(ctx, &pkt, in) != PASS_FRAGMENT || !read_fragment(ctx, &pkt, &frag))
		return RESUME_LATER;
	all = find_datagrams(&pkt, set);
	if (!all)
		return RESUME_LATER;
	now = now_tick(set);
	bpf_spin_lock(&all->lock);
	search_datagrams(all, &pkt, &frag, now);
	slot = *(volatile __u32 *)&all->search.found;
	if (slot < DATAGRAM_SLOTS) {
		state = all->slots[slot].state;
		out = all->slots[slot].out;
	}
	bpf_spin_unlock(&all->lock);
	return state < DATAGRAM_FOLLOW ? RESUME_LATER : out;
}

#endif
