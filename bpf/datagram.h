/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * datagram.h: what is known of datagrams that come in fragments.
 *
 * One is known by source, destination and identification. It lies in the set that
 * the network of its source and its destination fall into, and takes a place from its
 * own network first. So do those that wait for their first fragment, of which a
 * network has no more than its share: a flood of halves ousts its own.
 */
#ifndef FAIRLEAD_DATAGRAM_H
#define FAIRLEAD_DATAGRAM_H

#include "conn.h"
#include "fragment_header.h"

enum {
	NO_SLOT = 0xff,
};

/* What of an address is one sender's: of IPv6, who has one address has 2^64. */
static __always_inline __u64 network(const struct address *addr)
{
	return addr->high ? addr->high : addr->low;
}

static __always_inline struct datagram_set *find_datagrams(const struct packet *pkt,
							   const struct settings *set)
{
	struct address source = { .low = network(&pkt->flow.caddr) };
	__u32 index = hash_words(&source, &pkt->flow.vaddr, 0, set) >> (64 - DATAGRAM_SETS_SHIFT);

	return bpf_map_lookup_elem(&datagrams, &index);
}

static __always_inline bool is_complete(const struct datagram *d)
{
	return d->total && d->seen >= d->total;
}

/* 0 if a datagram goes from and to where a packet does. */
static __always_inline __u64 party_difference(const struct datagram *d, const struct packet *pkt)
{
	return address_difference(&d->caddr, &pkt->flow.caddr) |
	       address_difference(&d->vaddr, &pkt->flow.vaddr);
}

static __always_inline bool is_datagram_of(const struct datagram *d, const struct packet *pkt,
					   const struct fragment_header *frag)
{
	return !(party_difference(d, pkt) | (d->id ^ frag->id)) &&
	       (!is_ipv4(pkt) || d->protocol == frag->protocol);
}

/* Looks for a datagram, under the lock of its set. */
static __always_inline void search_datagrams(struct datagram_set *all, const struct packet *pkt,
					     const struct fragment_header *frag, __u32 now)
{
	volatile struct datagram_search *s = &all->search;
	__u64 own = network(&pkt->flow.caddr);

	s->found = NO_SLOT;
	s->free = NO_SLOT;
	s->oldest_own = ~0U;
	s->oldest_other = ~0U;
	s->own = 0;
	s->waiting = 0;
	for (__u32 i = 0; i < DATAGRAM_SLOTS; i++) {
		const struct datagram *d = &all->slots[i];
		__u32 left = (d->expires - now) << 4 | i;

		if (d->state == DATAGRAM_NONE || is_over(d->expires, now)) {
			s->free = i;
			continue;
		}
		if (is_datagram_of(d, pkt, frag))
			s->found = i;
		if (is_complete(d))
			s->free = i;
		if (network(&d->caddr) != own) {
			if (left < s->oldest_other)
				s->oldest_other = left;
			continue;
		}
		if (left < s->oldest_own)
			s->oldest_own = left;
		s->own++;
		if (d->state == DATAGRAM_WAITING)
			s->waiting++;
	}
}

/* The slot for a datagram whose first fragment came. */
static __always_inline __u32 give_slot(const volatile struct datagram_search *s)
{
	if (s->free != NO_SLOT)
		return s->free;
	if (s->own >= DATAGRAM_SHARE || s->oldest_other == ~0U)
		return s->oldest_own & 15;
	return s->oldest_other & 15;
}

static __always_inline void name_datagram(struct datagram *d, const struct packet *pkt,
					  const struct fragment_header *frag)
{
	d->caddr = pkt->flow.caddr;
	d->vaddr = pkt->flow.vaddr;
	d->cport = 0;
	d->vport = 0;
	d->id = frag->id;
	d->out = 0;
	d->server = 0;
	d->first_end = 0;
	d->lowest = MAX_DATAGRAM;
	d->total = 0;
	d->seen = 0;
	d->held = 0;
	d->protocol = is_ipv4(pkt) ? frag->protocol : 0;
}

static __always_inline __u32 ticks(__u32 seconds, const struct settings *set)
{
	return (set->hz >> TICK_JIFFIES_SHIFT) * seconds;
}

/* A second first fragment takes the place of one that was forgotten by its
 * sender: identifications come again. */
static __always_inline bool is_superseded(const struct datagram *d, const struct settings *set,
					  __u32 now)
{
	return is_complete(d) || d->expires - now < ticks(DATAGRAM_SECONDS - 1, set);
}

static __always_inline bool is_same_first(const struct datagram *d, const struct packet *pkt,
					  const struct fragment_header *frag)
{
	return d->cport == flow_cport(&pkt->flow) && d->vport == flow_vport(&pkt->flow) &&
	       d->protocol == flow_protocol(&pkt->flow) && d->first_end == frag->length;
}

/* A datagram whose fragments contradict each other: the rest is dropped, too. */
static __always_inline enum verdict give_up_datagram(struct datagram *d)
{
	d->state = DATAGRAM_OVERLAP;
	return DROP_FRAGMENT_OVERLAP;
}

/* A first fragment, its datagram in slot d. */
static __always_inline enum verdict begin_datagram(struct datagram *d, bool known,
						   const struct packet *pkt,
						   const struct fragment_header *frag,
						   const struct settings *set, __u32 now)
{
	if (known && d->state != DATAGRAM_WAITING && is_superseded(d, set, now))
		known = false;
	if (known && d->state == DATAGRAM_OVERLAP)
		return DROP_FRAGMENT_OVERLAP;
	if (known && d->state != DATAGRAM_WAITING)
		return is_same_first(d, pkt, frag) ? CONTINUE : give_up_datagram(d);
	if (!known)
		name_datagram(d, pkt, frag);
	d->expires = now + ticks(DATAGRAM_SECONDS, set);
	if (known && d->lowest < frag->length)
		return give_up_datagram(d);
	d->cport = flow_cport(&pkt->flow);
	d->vport = flow_vport(&pkt->flow);
	d->protocol = flow_protocol(&pkt->flow);
	d->first_end = frag->length;
	d->seen = frag->length;
	d->state = DATAGRAM_DECIDING;
	return CONTINUE;
}

/* A later fragment of a datagram that waits for the decision about its first. */
static __always_inline enum verdict wait_for_first(struct datagram *d,
						   const struct fragment_header *frag, __u32 bytes)
{
	__u32 pieces = (bytes >> HELD_PIECE_SHIFT) + 2;

	if (frag->offset < d->lowest)
		d->lowest = frag->offset;
	if (bytes > MAX_HELD_FRAME || d->held + pieces > MAX_HELD_PIECES)
		return DROP_FRAGMENT_LOST;
	d->held += pieces;
	return HOLD_FRAGMENT;
}

/* Whether a later fragment fits what is known of its datagram. */
static __always_inline bool fits_datagram(struct datagram *d, const struct fragment_header *frag)
{
	__u32 end = frag->offset + frag->length;

	if (frag->offset < d->first_end || (d->total && end > d->total) ||
	    (d->total && !frag->more && end != d->total))
		return false;
	if (!frag->more)
		d->total = end;
	return true;
}

/* A later fragment of a known datagram. */
static __always_inline enum verdict continue_datagram(struct datagram *d, struct packet *pkt,
						      const struct fragment_header *frag,
						      __u32 bytes)
{
	if (d->state == DATAGRAM_WAITING)
		return wait_for_first(d, frag, bytes);
	if (d->state == DATAGRAM_OVERLAP || !fits_datagram(d, frag))
		return give_up_datagram(d);
	if (d->state == DATAGRAM_DECIDING)
		return wait_for_first(d, frag, bytes);
	d->seen += frag->length < MAX_DATAGRAM - d->seen ? frag->length : MAX_DATAGRAM - d->seen;
	if (d->state == DATAGRAM_PASS)
		return PASS_FRAGMENT;
	if (d->state != DATAGRAM_FOLLOW)
		return DROP_FRAGMENT;
	pkt->flow.word = (__u64)d->protocol << 32 | (__u64)d->vport << 16 | d->cport;
	pkt->event = EVENT_FRAGMENT;
	return CONTINUE;
}

/* A later fragment of an unknown datagram: it waits, if there is room. */
static __always_inline enum verdict await_datagram(struct datagram_set *all,
						   const struct packet *pkt,
						   const struct fragment_header *frag,
						   const struct settings *set, __u32 bytes,
						   __u32 now)
{
	__u32 slot = *(volatile __u32 *)&all->search.free;
	struct datagram *d;

	if (slot >= DATAGRAM_SLOTS || all->search.waiting >= DATAGRAM_SHARE || bytes > MAX_HELD_FRAME)
		return DROP_FRAGMENT_LOST;
	d = &all->slots[slot];
	name_datagram(d, pkt, frag);
	d->expires = now + ticks(HELD_SECONDS, set);
	d->state = DATAGRAM_WAITING;
	return wait_for_first(d, frag, bytes);
}

/*
 * What becomes of a fragment, of a frame of so many bytes, by what is known of its
 * datagram: CONTINUE, HOLD_FRAGMENT or where it leaves. Not static: see
 * answer_icmp.
 */
__noinline int meet_datagram(struct packet *pkt, const struct fragment_header *frag, __u32 bytes,
			     __u32 now)
{
	struct settings *set = get_settings();
	struct datagram_set *all;
	bool is_known = true;
	enum verdict v;
	__u32 slot;

	if (!pkt || !frag)
		return BUG_MAP;
	all = find_datagrams(pkt, set);
	if (!all)
		return BUG_MAP;
	bpf_spin_lock(&all->lock);
	search_datagrams(all, pkt, frag, now);
	slot = *(volatile __u32 *)&all->search.found;
	if (slot >= DATAGRAM_SLOTS) {
		is_known = false;
		slot = give_slot(&all->search);
	}
	slot = forget(slot);
	if (slot >= DATAGRAM_SLOTS)
		slot = 0;
	if (!frag->offset)
		v = begin_datagram(&all->slots[slot], is_known, pkt, frag, set, now);
	else if (is_known)
		v = continue_datagram(&all->slots[slot], pkt, frag, bytes);
	else
		v = await_datagram(all, pkt, frag, set, bytes, now);
	bpf_spin_unlock(&all->lock);
	if (v == CONTINUE)
		pkt->fragment = (frag->offset ? FRAGMENT_LATER : FRAGMENT_FIRST) | slot;
	return v;
}

/* The datagram of a fragment that the stages took on; NULL: another one has its
 * slot by now. Under the lock. */
static __always_inline struct datagram *own_datagram(struct datagram_set *all, __u32 slot,
						     const struct packet *pkt)
{
	struct datagram *d;

	/* Linux 6.1 learns nothing from "not 15", which the compiler would ask of
	 * four bits. */
	slot = hide(slot);
	if (slot >= DATAGRAM_SLOTS)
		return NULL;
	d = &all->slots[slot];
	return party_difference(d, pkt) | (d->cport ^ flow_cport(&pkt->flow)) |
			       (d->vport ^ flow_vport(&pkt->flow)) ?
		       NULL :
		       d;
}

/* The server of a later fragment whose flow has no connection: one packet, or a
 * full table. Not static: see answer_icmp. */
__noinline int follow_datagram(const struct packet *pkt, __u32 *chosen)
{
	struct settings *set = get_settings();
	struct datagram_set *all;
	struct datagram *d;
	__u32 slot;

	if (!pkt || !chosen)
		return BUG_MAP;
	all = find_datagrams(pkt, set);
	if (!all)
		return BUG_MAP;
	slot = pkt->fragment & FRAGMENT_SLOT;
	bpf_spin_lock(&all->lock);
	d = own_datagram(all, slot, pkt);
	*chosen = d ? d->server : 0;
	bpf_spin_unlock(&all->lock);
	return d ? FORWARD : DROP_FRAGMENT;
}

#endif
