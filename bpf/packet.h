/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * packet.h: parse a frame. All bounds checks on what came from the wire live
 * here; later stages touch only what this one vouched for.
 *
 * Understood: Ethernet with up to two VLAN tags, IPv4 with options, IPv6 with
 * extension headers, TCP, UDP and SCTP. What ICMP is about is read in icmp_quote.h.
 * The rest goes to the host.
 */
#ifndef FAIRLEAD_PACKET_H
#define FAIRLEAD_PACKET_H

#include <stdbool.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "packet_event.h"
#include "verifier.h"

enum {
	IPV4_MORE_FRAGMENTS = 0x2000,
	IPV4_DONT_FRAGMENT = 0x4000,
	IPV4_FRAGMENT_OFFSET = 0x1fff,
	IPV4_PLAIN = 0x45,	/* version 4, a header without options */
	IPV6_VERSION = 0x60,	/* the upper half of the first byte */
	VLAN_VID = 0x0fff,
	MAX_VLAN_TAGS = 2,
	/* Of an IP packet, bytes; IPv6 could have forty more. */
	MAX_LENGTH = 0xffff,
	/* Where the upper layer may begin, from the IP header: 8 extension
	 * headers of at most 2048 bytes. A bound for the verifier. */
	MAX_L4_OFFSET = sizeof(struct ipv6hdr) + MAX_EXTENSION_HEADERS * 2048,
};

struct vlan_header {
	__be16 tci;
	__be16 protocol;
};

enum {
	MAX_L2 = sizeof(struct ethhdr) + MAX_VLAN_TAGS * sizeof(struct vlan_header),
};

/* What names a connection; laid out as the head of struct connection. */
struct flow {
	struct address caddr;
	struct address vaddr;
	__u64 word;		/* cport, vport, protocol, then zeros */
};

/* What is known of a packet. No pointers into the frame: those would not
 * outlive a call that the verifier looks at by itself. Zeros before it is parsed. */
struct packet {
	struct flow flow;
	__u32 mark;		/* that it came with; 0: rules may tell one */
	__u16 length;		/* of the IP packet */
	__u16 size;		/* the same on the wire: of an aggregate's largest segment */
	__u16 l4;		/* where its upper layer begins, from l3 */
	union {
		__u16 mtu;	/* of the way that it should go */
		__u16 call_id;	/* before it has one: a hash of its Call-ID, if that was
				 * looked for; see call_id.h */
	};
	__be16 ethertype;	/* ETH_P_IP or ETH_P_IPV6 */
	__u16 vlan;		/* of the only tag, if that is 802.1Q; else 0 */
	__u8 l3;		/* where the IP packet begins in the frame */
	__u8 tags;		/* VLAN tags */
	__u8 event;		/* enum event */
	bool syn;		/* TCP with SYN, whatever else is set; SCTP with INIT */
	bool reply;		/* it comes from a real server */
	__u8 fragment;		/* enum fragment, and the slot of its datagram; 0: whole */
	union {
		__u16 uncounted;	/* of a fragment: bytes that go when it is put together
					 * with the first one. While it is parsed: where the
					 * header with its offset lies */
		__u16 quoted_l4;	/* of ICMP: where the quoted ports are, from l3 */
	};
};

/* What part of a datagram a packet is. */
enum fragment {
	FRAGMENT_SLOT = 15,
	FRAGMENT_FIRST = 16,
	FRAGMENT_LATER = 32,
};

enum {
	/* Above where a header of the upper layer may begin in a frame. */
	OFFSET_MASK = 0x7fff,
};
_Static_assert(MAX_L2 + MAX_L4_OFFSET <= OFFSET_MASK, "no offset is changed by the mask");

/* Where an upper layer begins in a frame, bounded by its own value: verifiers before Linux
 * 6.8 know nothing of a comparison for copies of the number that were made before it. */
static __always_inline __u32 bound_offset(__u32 offset)
{
	return forget(offset) & OFFSET_MASK;
}

static __always_inline __be16 flow_cport(const struct flow *flow)
{
	return flow->word;
}

static __always_inline __be16 flow_vport(const struct flow *flow)
{
	return flow->word >> 16;
}

static __always_inline __u8 flow_protocol(const struct flow *flow)
{
	return flow->word >> 32;
}

static __always_inline struct address map_ipv4(__be32 addr)
{
	return (struct address){ .high = 0, .low = (__u64)addr << 32 | 0xffff0000 };
}

static __always_inline bool is_mapped(const struct address *a)
{
	return !a->high && (__u32)a->low == 0xffff0000;
}

/* Bits that differ between two addresses: 0 if they are the same. Not a bool, so that what is
 * compared beside them takes one branch with them. */
static __always_inline __u64 address_difference(const struct address *a, const struct address *b)
{
	return (a->low ^ b->low) | (a->high ^ b->high);
}

/* Ports and flags; room is what the IP packet has from l4 on. */
static __always_inline enum verdict parse_upper(struct packet *pkt, void *l4, void *end,
						__u32 room, __u8 protocol)
{
	struct tcphdr *tcp = l4;
	struct sctp_header *sctp = l4;
	struct udphdr *udp = l4;
	__u8 flags;

	room = hide(room);
	pkt->l4 = pkt->length - room;
	switch (protocol) {
	case IPPROTO_TCP:
		if (unlikely((void *)(tcp + 1) > end || room < sizeof(*tcp) ||
			     tcp->doff < sizeof(*tcp) / 4))
			return PASS_MALFORMED;
		flags = ((__u8 *)tcp)[TCP_FLAGS_OFFSET];
		pkt->event = tcp_events[flags & 31];
		pkt->syn = flags & TCP_SYN;
		break;
	case IPPROTO_UDP:
		if ((void *)(udp + 1) > end || room < sizeof(*udp))
			return PASS_MALFORMED;
		pkt->event = EVENT_UDP;
		break;
	case IPPROTO_SCTP:
		if ((void *)(sctp + 1) > end || room < sizeof(*sctp))
			return PASS_MALFORMED;
		pkt->event = sctp_event(sctp, end, room);
		pkt->syn = pkt->event == EVENT_SCTP_INIT;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		pkt->flow.word = (__u64)protocol << 32;
		return PASS_ICMP;
	default:
		return PASS_PROTOCOL;
	}
	/* All begin with source and destination port. */
	pkt->flow.word = (__u64)protocol << 32 | (__u64)udp->dest << 16 | udp->source;
	return CONTINUE;
}

/* A fragment is for fragment.h to read on, from where its offset lies. */
static __always_inline enum verdict leave_fragment(struct packet *pkt, __u32 offset, __u8 protocol)
{
	pkt->uncounted = offset;
	pkt->flow.word = (__u64)protocol << 32;
	return PASS_FRAGMENT;
}

/* Whether a frame holds a packet of that length, in all its buffers. */
static __always_inline bool holds_packet(struct xdp_md *ctx, __u32 l3, __u32 length)
{
	return l3 + length <= bpf_xdp_get_buff_len(ctx);
}

static __always_inline enum verdict parse_ipv4(struct packet *pkt, struct xdp_md *ctx, void *l3,
					       void *end)
{
	struct iphdr *ip = l3;
	__u32 header;

	if ((void *)(ip + 1) > end)
		return PASS_MALFORMED;
	header = ip->ihl * 4;
	pkt->length = wire16(ip->tot_len);
	if (unlikely(ip->version != 4 || header < sizeof(*ip) || pkt->length < header ||
		     !holds_packet(ctx, pkt->l3, pkt->length)))
		return PASS_MALFORMED;
	pkt->size = pkt->length;
	pkt->flow.caddr = map_ipv4(ip->saddr);
	pkt->flow.vaddr = map_ipv4(ip->daddr);
	if (unlikely(ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)))
		return leave_fragment(pkt, 0, ip->protocol);
	/* Without options the ports lie at a fixed place, which is known sooner. */
	if (likely(header == sizeof(*ip)))
		return parse_upper(pkt, ip + 1, end, pkt->length - sizeof(*ip), ip->protocol);
	return parse_upper(pkt, l3 + header, end, pkt->length - header, ip->protocol);
}

/* What all extension headers begin with. */
struct extension_header {
	__u8 next;
	__u8 length;
	__be16 fragment;	/* of a fragment header: offset, flags */
};

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_AH;
}

static __always_inline __u32 extension_length(const struct extension_header *ext, __u8 protocol)
{
	switch (protocol) {
	case IPPROTO_FRAGMENT:
		return 8;
	case IPPROTO_AH:
		return (ext->length + 2) * 4;
	}
	return (ext->length + 1) * 8;
}

/* Copies a frame of at most so many bytes; afterwards the verifier knows that its length
 * is among them. */
static __always_inline bool copy_frame(struct xdp_md *ctx, __u32 *length, void *to, __u32 most)
{
	__u32 last = *length - 1;

	/* Linux 6.1 does not learn from a comparison with 0 that a number is at
	 * least 1. */
	asm volatile("" : "+r"(last));
	if (last >= most)
		return false;
	*length = last + 1;
	return !bpf_xdp_load_bytes(ctx, 0, to, *length);
}

/* Offset 0 and no more to come is a whole packet (RFC 6946). */
static __always_inline bool is_fragment(const struct extension_header *ext)
{
	return ext->fragment & bpf_htons(0xfff9);
}

/* The extension header at an offset; NULL: it is not whole. */
static __always_inline struct extension_header *find_extension(const struct packet *pkt, void *l3,
							       __u32 *offset, void *end)
{
	struct extension_header *ext;

	*offset = forget(*offset);
	if (*offset > MAX_L4_OFFSET || *offset > pkt->length)
		return NULL;
	ext = l3 + *offset;
	return (void *)(ext + 1) > end ? NULL : ext;
}

/* What lies behind the extension headers. */
static __always_inline enum verdict parse_behind(struct packet *pkt, void *l3, __u32 offset,
						 void *end, __u8 protocol)
{
	offset = forget(offset);
	if (offset > MAX_L4_OFFSET || offset > pkt->length)
		return PASS_MALFORMED;
	return parse_upper(pkt, l3 + offset, end, pkt->length - offset, protocol);
}

static __always_inline enum verdict parse_ipv6(struct packet *pkt, struct xdp_md *ctx, void *l3,
					       void *end)
{
	struct ipv6hdr *ip = l3;
	__u32 offset = sizeof(*ip), length;
	__u8 next;

	if ((void *)(ip + 1) > end)
		return PASS_MALFORMED;
	/* A payload length of 0 is a jumbogram (RFC 2675): no Ethernet
	 * carries one. */
	length = sizeof(*ip) + wire16(ip->payload_len);
	if (ip->version != 6 || length == sizeof(*ip) || length > MAX_LENGTH ||
	    !holds_packet(ctx, pkt->l3, length))
		return PASS_MALFORMED;
	pkt->length = length;
	pkt->size = pkt->length;
	__builtin_memcpy(&pkt->flow.caddr, &ip->saddr, sizeof(struct address));
	__builtin_memcpy(&pkt->flow.vaddr, &ip->daddr, sizeof(struct address));
	next = ip->nexthdr;

	for (int i = 0; i < MAX_EXTENSION_HEADERS && unlikely(is_extension(next)); i++) {
		struct extension_header *ext;

		ext = find_extension(pkt, l3, &offset, end);
		if (!ext)
			return PASS_MALFORMED;
		if (next == IPPROTO_FRAGMENT && is_fragment(ext))
			return leave_fragment(pkt, offset, ext->next);
		offset += extension_length(ext, next);
		next = ext->next;
	}
	return parse_behind(pkt, l3, offset, end, next);
}

static __always_inline bool is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* An Ethernet header in words that are loaded and stored as a whole: struct
 * ethhdr is packed, which costs an instruction a byte. */
struct ethernet {
	__u32 destination_source[3];
	__be16 ethertype;
};

/* The MAC address says whether the frame is for this host: a switch floods,
 * and a peer director's frames pass by. */
static __always_inline bool for_this_host(const void *data, const struct interface *in)
{
	/* Six bytes of each, and two that the shift drops. */
	return !((*(const __u64 *)data ^ *(const __u64 *)in->mac) << 16);
}

/* CONTINUE, or why the packet is none of ours. */
static __always_inline enum verdict parse_frame(struct packet *pkt, struct xdp_md *ctx,
						const struct interface *in)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct vlan_header *tag = data + sizeof(struct ethhdr);
	__be16 ethertype;

	if ((void *)tag > end)
		return PASS_MALFORMED;
	if (unlikely(!for_this_host(data, in)))
		return PASS_OTHER_HOST;
	ethertype = ((struct ethernet *)data)->ethertype;
	for (int i = 0; i < MAX_VLAN_TAGS && unlikely(is_vlan(ethertype)); i++) {
		if ((void *)(tag + 1) > end)
			return PASS_MALFORMED;
		pkt->tags++;
		pkt->vlan = pkt->tags == 1 && ethertype == bpf_htons(ETH_P_8021Q) ?
			bpf_ntohs(tag->tci) & VLAN_VID : 0;
		ethertype = tag->protocol;
		tag++;
	}
	pkt->l3 = sizeof(struct ethhdr) + pkt->tags * sizeof(*tag);
	pkt->ethertype = ethertype;
	if (likely(ethertype == bpf_htons(ETH_P_IP)))
		return parse_ipv4(pkt, ctx, tag, end);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(pkt, ctx, tag, end);
	return PASS_NOT_IP;
}

#endif
