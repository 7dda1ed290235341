// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * realserver.bpf.c: the tunnel end of a real server. Takes the outer headers off
 * packets to its VIPs and lets them go up the stack as if they had come without: on
 * XDP, before the kernel makes an skb, so that segments are merged (GRO) and their
 * checksums verified as those of any other packet.
 *
 * Of a packet that is not certainly one of a director's, nothing changes.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "checksum.h"
#include "packet.h"
#include "tunnel_header.h"

enum end_limit {
	MAX_END_ADDRESSES = 4096,
};

/* What became of a packet; tunnel_end.go names them, in this order. */
enum end_verdict {
	END_OTHER,		/* to the host: no packet of a tunnel to a VIP */
	END_DECAPSULATED,
	END_DIRECTOR,		/* to the host: from nobody who may */
	END_FRAGMENT,		/* to the host: the outer packet is one */
	END_OPTIONS,		/* to the host: GUE or GRE with what is not understood */
	END_CHECKSUM,		/* dropped: of GUE or GRE, wrong */
	END_CONGESTION,		/* dropped: marked on the way, and not to be marked (RFC 6040) */
	END_ADJUST,		/* dropped: the kernel refused to move the frame's head */
	END_VERDICTS,
};

/* How packets to a VIP come. */
struct end_vip {
	enum tunnel_type type;
	__be16 port;		/* gue */
	__u16 padding;
};

struct end_policy {
	__u32 directors;	/* how many are named; 0: any may send */
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_END_ADDRESSES);
	__type(key, struct address);
	__type(value, struct end_vip);
} end_vips SEC(".maps");

/* The host's own addresses, which outer packets go to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_END_ADDRESSES);
	__type(key, struct address);
	__type(value, __u32);
} end_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_END_ADDRESSES);
	__type(key, struct address);
	__type(value, __u32);
} end_directors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct end_policy);
} end_settings SEC(".maps");

/* By enum end_verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, END_VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} end_verdicts SEC(".maps");

/* A tunnel's packet. */
struct wrapping {
	struct address source;
	struct address destination;
	struct address vip;	/* of the inner packet */
	enum tunnel_type type;
	__u32 l3;		/* where the outer packet begins */
	__u32 l4;		/* and what is behind its IP header */
	__u32 inner;		/* and the inner packet */
	__u32 room;		/* bytes from l4 to the end of the outer packet */
	__be16 port;
	__be16 ethertype;	/* of the inner packet */
	__u8 protocol;		/* of the outer one */
	__u8 tos;		/* the same */
	bool checksum;		/* there is one to be verified */
};

static __always_inline bool may_be_outer(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_UDP ||
	       protocol == IPPROTO_GRE;
}

static __always_inline enum end_verdict read_outer(struct wrapping *w, void *data, void *end,
						   __be16 ethertype)
{
	void *l3 = data + (w->l3 & 31);
	struct iphdr *ip = l3;
	struct ipv6hdr *ip6 = l3;
	__u32 length;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		/* Directors send no options. */
		if ((void *)(ip + 1) > end || *(__u8 *)ip != 0x45 || !may_be_outer(ip->protocol))
			return END_OTHER;
		length = wire16(ip->tot_len);
		if (length < sizeof(*ip) || l3 + length > end)
			return END_OTHER;
		w->room = length - sizeof(*ip);
		w->l4 = w->l3 + sizeof(*ip);
		w->protocol = ip->protocol;
		w->tos = ip->tos;
		w->source = map_ipv4(ip->saddr);
		w->destination = map_ipv4(ip->daddr);
		return ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) ?
			       END_FRAGMENT : END_DECAPSULATED;
	}
	if (ethertype != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end || ip6->version != 6)
		return END_OTHER;
	w->room = wire16(ip6->payload_len);
	if (l3 + sizeof(*ip6) + w->room > end)
		return END_OTHER;
	w->l4 = w->l3 + sizeof(*ip6);
	w->protocol = ip6->nexthdr;
	w->tos = bpf_ntohl(*(__be32 *)ip6) >> 20;
	__builtin_memcpy(&w->source, &ip6->saddr, sizeof(w->source));
	__builtin_memcpy(&w->destination, &ip6->daddr, sizeof(w->destination));
	if (w->protocol == IPPROTO_FRAGMENT)
		return END_FRAGMENT;
	return may_be_outer(w->protocol) ? END_DECAPSULATED : END_OTHER;
}

/* What stands between the outer IP header and the inner packet. */
static __always_inline enum end_verdict read_shim(struct wrapping *w, void *data, void *end)
{
	void *l4 = data + (w->l4 & 127);
	struct gue *gue = l4;
	struct gre *gre = l4;

	w->inner = w->l4;
	w->checksum = false;
	w->port = 0;
	switch (w->protocol) {
	case IPPROTO_UDP:
		if ((void *)(gue + 1) > end || w->room < sizeof(*gue) ||
		    wire16(gue->udp.len) != w->room)
			return END_OTHER;
		w->type = TUNNEL_GUE;
		w->port = gue->udp.dest;
		w->inner += sizeof(*gue);
		w->ethertype = ethertype_of_protocol(gue->protocol);
		w->checksum = gue->udp.check;
		return gue->version || gue->flags ? END_OPTIONS : END_DECAPSULATED;
	case IPPROTO_GRE:
		if ((void *)&gre->checksum > end || w->room < GRE_BARE)
			return END_OTHER;
		w->type = TUNNEL_GRE;
		w->checksum = gre->flags & GRE_CHECKSUM;
		w->inner += w->checksum ? sizeof(*gre) : GRE_BARE;
		w->ethertype = gre->protocol;
		return gre->flags & ~GRE_CHECKSUM || gre->version ? END_OPTIONS : END_DECAPSULATED;
	default:
		w->type = TUNNEL_IPIP;
		w->ethertype = ethertype_of_protocol(w->protocol);
		return END_DECAPSULATED;
	}
}

/* Whether a whole packet lies in there. */
static __always_inline bool read_inner(struct wrapping *w, void *data, void *end)
{
	void *l3 = data + (w->inner & 127);
	__u32 headers = w->inner - w->l4;
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;
	__u32 room, length;

	if (w->room < headers)
		return false;
	room = w->room - headers;
	if (w->ethertype == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip + 1) > end || ip->version != 4)
			return false;
		length = wire16(ip->tot_len);
		w->vip = map_ipv4(ip->daddr);
		return ip->ihl >= 5 && length >= ip->ihl * 4 && length <= room;
	}
	if (w->ethertype != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end || ip6->version != 6)
		return false;
	__builtin_memcpy(&w->vip, &ip6->daddr, sizeof(w->vip));
	return sizeof(*ip6) + wire16(ip6->payload_len) <= room;
}

static __always_inline bool is_expected(const struct wrapping *w)
{
	struct end_vip *vip = bpf_map_lookup_elem(&end_vips, &w->vip);

	return vip && vip->type == w->type && vip->port == w->port &&
	       bpf_map_lookup_elem(&end_addresses, &w->destination);
}

static __always_inline bool is_from_director(const struct wrapping *w)
{
	__u32 zero = 0;
	struct end_policy *set = bpf_map_lookup_elem(&end_settings, &zero);

	return set && (!set->directors || bpf_map_lookup_elem(&end_directors, &w->source));
}

/* The sum of all that a checksum covers, itself included, is 0xffff. */
static __always_inline bool is_sound(struct xdp_md *ctx, const struct wrapping *w)
{
	int of_frame = sum_frame(ctx, w->l4, w->room);
	__u64 sum = of_frame;

	if (of_frame < 0)
		return false;
	if (w->type == TUNNEL_GUE) {
		sum += halves(w->source.high) + halves(w->source.low);
		sum += halves(w->destination.high) + halves(w->destination.low);
		/* A mapped address has 0xffff in it, which adds nothing. */
		sum += bpf_htons(w->room) + bpf_htons(IPPROTO_UDP);
	}
	return !fold(sum);
}

/* RFC 6040, 4.2: what routers marked on the way is the inner packet's. */
static __always_inline bool take_over_congestion(const struct wrapping *w, void *data, void *end)
{
	void *l3 = data + (w->inner & 127);
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;
	__u8 tos;

	if ((w->tos & ECN) != ECN_CE)
		return true;
	if (w->ethertype == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip + 1) > end)
			return false;
		tos = ip->tos;
		ip->tos = tos | ECN_CE;
		/* RFC 1624: the TOS is the lower byte of its word. */
		ip->check = fold((__u64)(__u16)~ip->check + (__u16)~bpf_htons(tos) +
				 bpf_htons(tos | ECN_CE));
	} else {
		if ((void *)(ip6 + 1) > end)
			return false;
		tos = bpf_ntohl(*(__be32 *)ip6) >> 20;
		*(__be32 *)ip6 |= bpf_htonl(ECN_CE << 20);
	}
	return tos & ECN;
}

/* Moves the Ethernet header, with its tags, to before the inner packet. */
static __always_inline enum end_verdict cut(struct xdp_md *ctx, const struct wrapping *w)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 l2[MAX_L2 + 2];

	if (data + MAX_L2 > end)
		return END_ADJUST;
	__builtin_memcpy(l2, data, MAX_L2);
	if (bpf_xdp_adjust_head(ctx, (int)(w->inner & 127) - (int)(w->l3 & 31)))
		return END_ADJUST;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + MAX_L2 > end)
		return END_ADJUST;
	switch (w->l3) {
	case sizeof(struct ethhdr):
		__builtin_memcpy(data, l2, sizeof(struct ethhdr));
		*(__be16 *)(data + 12) = w->ethertype;
		break;
	case sizeof(struct ethhdr) + sizeof(struct vlan_header):
		__builtin_memcpy(data, l2, sizeof(struct ethhdr) + sizeof(struct vlan_header));
		*(__be16 *)(data + 16) = w->ethertype;
		break;
	default:
		__builtin_memcpy(data, l2, MAX_L2);
		*(__be16 *)(data + 20) = w->ethertype;
	}
	return END_DECAPSULATED;
}

static __always_inline enum end_verdict decapsulate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct vlan_header *tag = data + sizeof(struct ethhdr);
	struct wrapping w = { .l3 = sizeof(struct ethhdr) };
	enum end_verdict v, shim;
	__be16 ethertype;

	if ((void *)tag > end)
		return END_OTHER;
	ethertype = ((struct ethernet *)data)->ethertype;
	for (int i = 0; i < MAX_VLAN_TAGS && is_vlan(ethertype); i++) {
		if ((void *)(tag + 1) > end)
			return END_OTHER;
		ethertype = tag->protocol;
		tag++;
		w.l3 += sizeof(*tag);
	}
	v = read_outer(&w, data, end, ethertype);
	if (v == END_FRAGMENT)
		return bpf_map_lookup_elem(&end_addresses, &w.destination) ? v : END_OTHER;
	if (v != END_DECAPSULATED)
		return v;
	shim = read_shim(&w, data, end);
	if (shim == END_OTHER || !read_inner(&w, data, end) || !is_expected(&w))
		return END_OTHER;
	if (shim != END_DECAPSULATED)
		return shim;
	if (!is_from_director(&w))
		return END_DIRECTOR;
	if (w.checksum && !is_sound(ctx, &w))
		return END_CHECKSUM;
	/* The call may have moved nothing, but the verifier does not know. */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!take_over_congestion(&w, data, end))
		return END_CONGESTION;
	return cut(ctx, &w);
}

SEC("xdp")
int realserver(struct xdp_md *ctx)
{
	enum end_verdict v = decapsulate(ctx);
	__u32 index = v;
	__u64 *count = bpf_map_lookup_elem(&end_verdicts, &index);

	if (count)
		(*count)++;
	switch (v) {
	case END_CHECKSUM:
	case END_CONGESTION:
	case END_ADJUST:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
}

/* Puts the enum into the BTF that Go's is made from. */
const enum end_verdict *end_verdict_names __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
