/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * icmp.h: answer a packet with an ICMP error that quotes it (RFC 792, RFC 4443,
 * RFC 1812 4.3.2). The frame turns into the answer and goes back where it came
 * from. Answers are rate-limited as the kernel limits its own.
 */
#ifndef FAIRLEAD_ICMP_H
#define FAIRLEAD_ICMP_H

#include "frame.h"
#include "checksum.h"
#include "maps.h"

/* Type and code of what we answer. */
enum {
	ICMP4_UNREACHABLE = 3,
	ICMP4_UNREACHABLE_PORT = 3,
	ICMP4_UNREACHABLE_TOO_BIG = 4,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP6_UNREACHABLE = 1,
	ICMP6_UNREACHABLE_PORT = 4,
	ICMP6_TOO_BIG = 2,
	ICMP6_TIME_EXCEEDED = 3,
};

/* The same of both families. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu;		/* too big: of the way; else 0 */
};

enum {
	/* Largest answers: RFC 1812 4.3.2.3, RFC 4443 2.4 (c). */
	ICMP4_MOST = 576,
	ICMP6_MOST = 1280,
	ICMP4_HEADERS = sizeof(struct iphdr) + sizeof(struct icmp_header),
	ICMP6_HEADERS = sizeof(struct ipv6hdr) + sizeof(struct icmp_header),
	ICMP_TTL = 64,
	ICMP_TOS = 0xc0,	/* network control, as the kernel's errors */
	DEBT_TRIES = 4,
};

/* Everything of the packet that the answer needs, since the frame's ends move. */
struct answer {
	__u8 l2[MAX_L2 + 2];
	__u32 l2_length;
	__u32 quoted;
	__u32 summed;		/* of that, as it is; the rest adds up to that: */
	__u32 rest;
	struct address source;
	struct address destination;
	__u8 type;
	__u8 code;
	__u16 mtu;
};

/*
 * One answer an interval in the long run, a burst at once: `icmp_debt` is when
 * the answers so far will have been earned.
 */
static __always_inline bool may_answer(struct settings *set, __u64 now)
{
	__u64 interval = set->icmp_interval;
	__u64 most = interval * set->icmp_burst;

	for (int i = 0; i < DEBT_TRIES; i++) {
		__u64 debt = *(volatile __u64 *)&set->icmp_debt;
		__u64 from = (__s64)(debt - now) > 0 ? debt : now;

		/* A debt beyond the burst is of a clock that was set back. */
		if (from - now > most)
			from = now;
		if (interval && from - now + interval > most)
			return false;
		if (__sync_bool_compare_and_swap(&set->icmp_debt, debt, from + interval))
			return true;
	}
	return false;
}

static __always_inline bool may_be_answered_ipv4(__be32 caddr)
{
	__u8 first = bpf_ntohl(caddr) >> 24;

	return first != 0 && first != 127 && first < 224;
}

/* No errors to those who can't be one host (RFC 1122 3.2.2, RFC 4443 2.4 (e)). */
static __always_inline bool may_be_answered(const struct packet *pkt)
{
	const struct address *caddr = &pkt->flow.caddr;

	if (pkt->ethertype == bpf_htons(ETH_P_IP))
		return may_be_answered_ipv4(caddr->low >> 32);
	return (caddr->high & 0xff) != 0xff &&
	       (caddr->high | (caddr->low & ~bpf_cpu_to_be64(1)));	/* :: and ::1 */
}

/* One's complement sum of the frame's `length` bytes from p on, which is
 * `most` at the most. */
static __always_inline __u64 sum_bytes(void *p, void *data_end, __u32 length, __u32 most)
{
	__u64 sum = 0;
	__u32 i;

	for (i = 0; i < most / 4; i++) {
		if (i >= length / 4 || p + i * 4 + 4 > data_end)
			break;
		sum += *(__u32 *)(p + i * 4);
	}
	p += length & 0x7fc;
	if (length & 2) {
		if (p + 2 > data_end)
			return sum;
		sum += *(__u16 *)p;
		p += 2;
	}
	if (length & 1 && p + 1 <= data_end)
		sum += *(__u8 *)p;
	return sum;
}

static __always_inline void write_l2(struct ethhdr *eth, const struct answer *a)
{
	const struct ethhdr *old = (const void *)a->l2;

	__builtin_memcpy(eth->h_dest, old->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, old->h_dest, ETH_ALEN);
}

/* The rest of the old link-layer header: ethertype and tags. */
static __always_inline bool write_tags(void *data, void *data_end, const struct answer *a)
{
	if (data + MAX_L2 > data_end)
		return false;
	switch (a->l2_length) {
	case sizeof(struct ethhdr):
		__builtin_memcpy(data + 12, a->l2 + 12, 2);
		return true;
	case sizeof(struct ethhdr) + sizeof(struct vlan_header):
		__builtin_memcpy(data + 12, a->l2 + 12, 6);
		return true;
	}
	__builtin_memcpy(data + 12, a->l2 + 12, 10);
	return true;
}

static __always_inline enum verdict write_ipv4(void *l3, void *data_end, const struct answer *a)
{
	struct iphdr *ip = l3;
	struct icmp_header *icmp = l3 + sizeof(*ip);
	__u64 sum = 0;

	if ((void *)(icmp + 1) > data_end)
		return BUG_ADJUST;
	*ip = (struct iphdr){
		.version = 4,
		.ihl = sizeof(*ip) / 4,
		.tos = ICMP_TOS,
		.tot_len = bpf_htons(ICMP4_HEADERS + a->quoted),
		.id = bpf_get_prandom_u32(),
		.ttl = ICMP_TTL,
		.protocol = IPPROTO_ICMP,
		.saddr = a->source.low >> 32,
		.daddr = a->destination.low >> 32,
	};
	for (int i = 0; i < sizeof(*ip) / 4; i++)
		sum += ((__u32 *)ip)[i];
	ip->check = fold(sum);

	*icmp = (struct icmp_header){
		.type = a->type,
		.code = a->code,
		.mtu = bpf_htonl(a->mtu),
	};
	icmp->checksum = fold(a->rest + sum_bytes(icmp, data_end, sizeof(*icmp) + a->summed,
						  ICMP4_MOST));
	return CONTINUE;
}

static __always_inline enum verdict write_ipv6(void *l3, void *data_end, const struct answer *a)
{
	struct ipv6hdr *ip = l3;
	struct icmp_header *icmp = l3 + sizeof(*ip);
	__u32 payload = sizeof(*icmp) + a->quoted;
	__u64 sum = 0;

	if ((void *)(icmp + 1) > data_end)
		return BUG_ADJUST;
	*ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(payload),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = ICMP_TTL,
	};
	__builtin_memcpy(&ip->saddr, &a->source, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &a->destination, sizeof(ip->daddr));

	*icmp = (struct icmp_header){
		.type = a->type,
		.code = a->code,
		.mtu = bpf_htonl(a->mtu),
	};
	/* Pseudo-header: both addresses, length, next header. */
	for (int i = 0; i < 8; i++)
		sum += ((__u32 *)&ip->saddr)[i];
	sum += bpf_htonl(payload);
	sum += bpf_htonl(IPPROTO_ICMPV6);
	sum += sum_bytes(icmp, data_end, sizeof(*icmp) + a->summed, ICMP6_MOST);
	icmp->checksum = fold(sum + a->rest);
	return CONTINUE;
}

static __always_inline void choose_type(struct answer *a, bool ipv4, enum verdict why)
{
	switch (why) {
	case ANSWER_TTL:
		a->type = ipv4 ? ICMP4_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED;
		break;
	case ANSWER_TOO_BIG:
		a->type = ipv4 ? ICMP4_UNREACHABLE : ICMP6_TOO_BIG;
		a->code = ipv4 ? ICMP4_UNREACHABLE_TOO_BIG : 0;
		break;
	default:
		a->type = ipv4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE;
		a->code = ipv4 ? ICMP4_UNREACHABLE_PORT : ICMP6_UNREACHABLE_PORT;
	}
}

/*
 * Turns the frame into the answer. Returns `why`, or why not. Of IPv6, the
 * director answers as itself about hops and sizes, as the VIP about the port.
 *
 * Not static: the verifier then looks at it once, by itself.
 */
__noinline int answer_icmp(struct xdp_md *ctx, const struct packet *pkt,
			   const struct interface *in, enum verdict why)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct answer a = {};
	__u32 headers, most;
	enum verdict v;
	bool ipv4;

	if (!pkt || !in || data + MAX_L2 > data_end)
		return BUG_ADJUST;
	if (!may_be_answered(pkt))
		return DROP_RATE_LIMIT;
	ipv4 = pkt->ethertype == bpf_htons(ETH_P_IP);
	headers = ipv4 ? ICMP4_HEADERS : ICMP6_HEADERS;
	most = (ipv4 ? ICMP4_MOST : ICMP6_MOST) - headers;
	a.source = pkt->flow.vaddr;
	a.destination = pkt->flow.caddr;
	a.l2_length = pkt->l3;
	a.quoted = pkt->length < most ? pkt->length : most;
	a.summed = a.quoted;
	if (is_unfinished(ctx, pkt, &a.rest))
		a.summed = pkt->l4;
	__builtin_memcpy(a.l2, data, MAX_L2);
	choose_type(&a, ipv4, why);
	if (why == ANSWER_TOO_BIG)
		a.mtu = pkt->mtu;
	if (ipv4 && pkt->reply && in->address4)
		a.source = map_ipv4(in->address4);
	if (!ipv4 && why != ANSWER_NO_SERVER && why != ANSWER_NO_LOCAL_PORT &&
	    (in->address6.high | in->address6.low))
		a.source = in->address6;

	if (!cut_frame(ctx, a.l2_length + a.quoted) || !extend_front(ctx, headers))
		return BUG_ADJUST;

	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (!write_tags(data, data_end, &a))
		return BUG_ADJUST;
	write_l2(data, &a);
	data += a.l2_length & 31;
	v = ipv4 ? write_ipv4(data, data_end, &a) : write_ipv6(data, data_end, &a);
	return v == CONTINUE ? why : v;
}

#endif
