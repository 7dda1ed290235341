// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * probe.bpf.c: the way of health checks. A check connects to the virtual address from a
 * network namespace of its own, and its packets go to one chosen real server, as a
 * client's would if a scheduler had chosen that one; what comes back from the virtual
 * address to the director's own is a check's, and goes back into the namespace. The
 * host's own stack could do neither if the host has the virtual address itself.
 *
 * No packet of a client meets these programs but those that XDP left to the host.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "maps.h"
#include "hooks.h"
#include "packet.h"
#include "hash.h"
#include "forward.h"
#include "xdp.h"
#include "tunnel.h"

enum probe_limit {
	/* Source ports of checks, TCP, UDP and echo identifiers, of both families; all
	 * that there can be. */
	MAX_PROBES = 1 << 16,
};

/* What names a probe. */
struct probe_key {
	__be16 port;		/* source port, or identifier of echo requests */
	__u8 protocol;
	__u8 ipv6;		/* 1, or 0 */
	__u32 padding;
};

/* Where the packets of a check go. It stays when the check is over, until its port is
 * used again: a RST may come late. */
struct probe {
	struct address caddr;	/* the director's own */
	struct address vaddr;
	__be16 vport;		/* 0: echo */
	__u16 padding;
	/* Index into real_servers and tunnels, which here are the probes' own, apart from
	 * the director's: a real server that is out of its service is probed, too. */
	__u32 server;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PROBES);
	__type(key, struct probe_key);
	__type(value, struct probe);
} probes SEC(".maps");

/* The end of the namespace's veth that is outside, and the MAC address of the one that
 * is inside; set at load. */
volatile const __u32 outside_ifindex;
volatile const __u8 inside_mac[6];

/* What comes after in a chain of programs, if there is one; else the kernel goes on. */
enum {
	TCX_GO_ON = -1,
};

enum {
	PROBE_ECHO = 8,
	PROBE_ECHO_REPLY = 0,
	PROBE_UNREACHABLE = 3,
	PROBE6_UNREACHABLE = 1,
	PROBE6_ECHO = 128,
	PROBE6_ECHO_REPLY = 129,
	/* Ethernet, IPv6, ICMP, and a quoted IPv6 header with ports. */
	ENOUGH = ETH_HLEN + 40 + 8 + 40 + 8,
};

struct icmp_echo {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

struct ports {
	__be16 source;
	__be16 dest;
};

/* What is known of a packet. */
struct sighting {
	struct address saddr;
	struct address daddr;
	__be16 sport;		/* of an echo request its identifier */
	__be16 dport;		/* of an echo reply its identifier */
	__u16 length;		/* of the packet */
	__u8 protocol;
	__u8 ipv6;
};

/* Reads an IP header without its options; how long it is, or 0. */
static __always_inline __u32 read_ip(struct sighting *seen, __be16 ethertype, void *l3, void *end)
{
	struct ipv6hdr *ip6 = l3;
	struct iphdr *ip = l3;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip + 1) > end || ip->ihl != sizeof(*ip) / 4)
			return 0;
		seen->saddr = map_ipv4(ip->saddr);
		seen->daddr = map_ipv4(ip->daddr);
		seen->protocol = ip->protocol;
		seen->length = bpf_ntohs(ip->tot_len);
		seen->ipv6 = 0;
		return sizeof(*ip);
	}
	if (ethertype != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end)
		return 0;
	__builtin_memcpy(&seen->saddr, &ip6->saddr, sizeof(seen->saddr));
	__builtin_memcpy(&seen->daddr, &ip6->daddr, sizeof(seen->daddr));
	seen->protocol = ip6->nexthdr;
	seen->length = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	seen->ipv6 = 1;
	return sizeof(*ip6);
}

static __always_inline bool is_echo(const struct sighting *seen, __u8 type, bool reply)
{
	if (seen->ipv6)
		return type == (reply ? PROBE6_ECHO_REPLY : PROBE6_ECHO);
	return type == (reply ? PROBE_ECHO_REPLY : PROBE_ECHO);
}

static __always_inline bool is_icmp(const struct sighting *seen)
{
	return seen->protocol == (seen->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* Reads ports, or those of an echo message; false: it is something else. */
static __always_inline bool read_ports(struct sighting *seen, void *l4, void *end, bool reply)
{
	struct icmp_echo *echo = l4;
	struct ports *ports = l4;

	if (is_icmp(seen)) {
		if ((void *)(echo + 1) > end || !is_echo(seen, echo->type, reply))
			return false;
		seen->sport = reply ? 0 : echo->id;
		seen->dport = reply ? echo->id : 0;
		return true;
	}
	if (seen->protocol != IPPROTO_TCP && seen->protocol != IPPROTO_UDP)
		return false;
	if ((void *)(ports + 1) > end)
		return false;
	seen->sport = ports->source;
	seen->dport = ports->dest;
	return true;
}

static __always_inline bool equal_addresses(const struct address *a, const struct address *b)
{
	return a->high == b->high && a->low == b->low;
}

/* The probe that a packet from the namespace is of, or NULL. */
static __always_inline struct probe *find_probe(const struct sighting *seen)
{
	struct probe_key key = { .port = seen->sport, .protocol = seen->protocol, .ipv6 = seen->ipv6 };
	struct probe *probe = bpf_map_lookup_elem(&probes, &key);

	if (!probe || !equal_addresses(&probe->caddr, &seen->saddr) ||
	    !equal_addresses(&probe->vaddr, &seen->daddr) || probe->vport != seen->dport)
		return NULL;
	return probe;
}

/* The same packet the other way round. */
static __always_inline void turn(struct sighting *seen)
{
	struct address addr = seen->saddr;
	__be16 port = seen->sport;

	seen->saddr = seen->daddr;
	seen->daddr = addr;
	seen->sport = seen->dport;
	seen->dport = port;
}

/* The packet of a probe, as the stages know it. */
static __always_inline void describe(struct packet *pkt, const struct sighting *seen)
{
	pkt->flow.caddr = seen->saddr;
	pkt->flow.vaddr = seen->daddr;
	pkt->flow.word = (__u64)seen->protocol << 32 | (__u64)seen->dport << 16 | seen->sport;
	pkt->ethertype = seen->ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	pkt->length = seen->length;
	pkt->size = seen->length;
	pkt->l3 = ETH_HLEN;
}

/* Attached outside, to what comes out of the namespace. Nothing leaves but probes. */
SEC("xdp")
int probe_out(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct sighting seen = {};
	struct real_server *server;
	struct probe *probe;
	struct packet pkt = {};
	__u32 header;
	int v;

	if (data + ETH_HLEN > end)
		return XDP_DROP;
	header = read_ip(&seen, ((struct ethhdr *)data)->h_proto, data + ETH_HLEN, end);
	if (!header || !read_ports(&seen, data + ETH_HLEN + header, end, false))
		return XDP_DROP;
	probe = find_probe(&seen);
	server = probe ? get_server(probe->server) : NULL;
	if (!server)
		return XDP_DROP;
	describe(&pkt, &seen);
	if (server->hop & HOP_TUNNEL)
		v = encapsulate(ctx, &pkt, probe->server, 0);
	else
		v = forward(ctx, &pkt, &server->hops[0]);
	return v == FORWARD ? bpf_redirect(server->hops[0].ifindex, 0) : XDP_DROP;
}

/* Whether an ICMP error is about a probe: then what it quotes is one. */
static __always_inline bool is_about_probe(const struct sighting *outer, __be16 ethertype, void *l4, void *end)
{
	struct icmp_echo *icmp = l4;
	struct sighting quoted = {};
	__u32 header;

	if (!is_icmp(outer) || (void *)(icmp + 1) > end ||
	    icmp->type != (outer->ipv6 ? PROBE6_UNREACHABLE : PROBE_UNREACHABLE))
		return false;
	header = read_ip(&quoted, ethertype, icmp + 1, end);
	return header && read_ports(&quoted, (void *)(icmp + 1) + header, end, false) && find_probe(&quoted);
}

/* Attached to the interfaces that replies come in on. */
SEC("tc")
int probe_in(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct sighting seen = {};
	__be16 ethertype = skb->protocol;
	__u32 header;
	bool is_ours;

	if (data + ENOUGH > end) {
		if (bpf_skb_pull_data(skb, skb->len < ENOUGH ? skb->len : ENOUGH))
			return TCX_GO_ON;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	if (data + ETH_HLEN > end)
		return TCX_GO_ON;
	header = read_ip(&seen, ethertype, data + ETH_HLEN, end);
	if (!header)
		return TCX_GO_ON;
	is_ours = is_about_probe(&seen, ethertype, data + ETH_HLEN + header, end);
	if (!is_ours) {
		if (!read_ports(&seen, data + ETH_HLEN + header, end, true))
			return TCX_GO_ON;
		turn(&seen);
		is_ours = find_probe(&seen);
	}
	if (!is_ours)
		return TCX_GO_ON;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, 0, (const void *)inside_mac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	return bpf_redirect(outside_ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
