// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * explain.bpf.c: what a packet can meet, told before it is run on a copy. Reads
 * the director's maps and writes none of them.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "conn.h"
#include "local.h"
#include "persist.h"
#include "service.h"
#include "xdp.h"

/* What the packet can meet. */
struct sight {
	struct address caddr;
	struct address vaddr;
	__be16 cport;
	__be16 vport;
	__u8 protocol;
	__u8 padding[3];
	enum verdict verdict;		/* of the parser: CONTINUE, or where the packet leaves */
	__u32 has_service;
	struct service_key service;
	__u32 groups[PROBE_GROUPS];	/* of the connection table: the flow's way */
	/* Of a persistent service: the template's name and way. */
	__u32 has_template;
	__u32 template_groups[PROBE_GROUPS];
	struct address template_caddr;
	struct address template_vaddr;
	__be16 template_vport;
	__u8 template_protocol;
	__u8 template_padding[5];
	/* Of a new connection whose server's replies are translated, once look_back has been
	 * asked: the way of their entry. */
	__u32 has_reply;
	__u32 reply_groups[PROBE_GROUPS];
};

/* The server that the packet in sight goes to, and what its connection begins with. */
struct choice {
	__u32 server;		/* index */
	enum connection_flag flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sight);
} sights SEC(".maps");

static __always_inline void tell_way(__u32 *groups, const struct way *way,
				     const struct settings *set)
{
	for (__u32 i = 0; i < PROBE_GROUPS; i++)
		groups[i] = (way->group + stride(way) * i) & set->group_mask;
}

static __always_inline void tell_template(struct sight *sight, const struct packet *pkt,
					  const struct service *svc, const struct settings *set)
{
	struct edition *edition = current_edition(svc);
	struct flow flow;
	struct way way;

	if (!edition || !edition->persistence)
		return;
	flow = template_flow(pkt, svc, edition);
	way = find_way(hash_flow(&flow, set), set);
	sight->has_template = 1;
	tell_way(sight->template_groups, &way, set);
	sight->template_caddr = flow.caddr;
	sight->template_vaddr = flow.vaddr;
	sight->template_vport = flow_vport(&flow);
	sight->template_protocol = flow_protocol(&flow);
}

DIRECTOR_SECTION
int look_ahead(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	struct settings *set = get_settings();
	struct service *svc;
	struct sight *sight;
	struct packet pkt = {};
	struct way way;
	__u32 zero = 0;

	sight = bpf_map_lookup_elem(&sights, &zero);
	if (!in || !sight)
		return XDP_ABORTED;
	sight->has_service = 0;
	sight->has_template = 0;
	sight->has_reply = 0;
	sight->verdict = parse_packet(ctx, &pkt, in);
	if (sight->verdict != CONTINUE)
		return XDP_PASS;
	sight->caddr = pkt.flow.caddr;
	sight->vaddr = pkt.flow.vaddr;
	sight->cport = flow_cport(&pkt.flow);
	sight->vport = flow_vport(&pkt.flow);
	sight->protocol = flow_protocol(&pkt.flow);
	way = find_way(hash_flow(&pkt.flow, set), set);
	tell_way(sight->groups, &way, set);
	svc = find_service(&pkt, set);
	if (svc) {
		sight->has_service = 1;
		sight->service = svc->key;
		tell_template(sight, &pkt, svc, set);
	}
	return XDP_PASS;
}

/* What names the replies of the connection that the packet in sight begins: with FullNAT, of
 * the local ports the one that it gets. False: there is none. */
static __always_inline bool foresee_replies(const struct sight *sight, const struct choice *choice,
					    const struct settings *set, struct flow *flow)
{
	const struct real_server *server = get_server(choice->server);
	struct connection conn = {
		.caddr = sight->caddr,
		.vaddr = sight->vaddr,
		.cport = sight->cport,
		.vport = sight->vport,
		.protocol = sight->protocol,
		.flags = choice->flags,
	};

	if (!server)
		return false;
	*flow = reply_flow(&conn, server);
	if (server->method != METHOD_FULLNAT)
		return true;
	return search_port(hash_entry(&conn, set), 0, flow, set, now_tick(set)) != NO_PORT;
}

SEC("syscall")
int look_back(struct choice *choice)
{
	struct settings *set = get_settings();
	struct flow flow = {};
	struct sight *sight;
	__u32 zero = 0;
	struct way way;

	sight = bpf_map_lookup_elem(&sights, &zero);
	if (!sight || !foresee_replies(sight, choice, set, &flow))
		return 0;
	way = find_way(hash_flow(&flow, set), set);
	sight->has_reply = 1;
	tell_way(sight->reply_groups, &way, set);
	return 0;
}

/* Puts the enums, which no type above has, into the BTF that Go's is made from. */
const enum connection_flag *connection_flags __attribute__((unused));
const enum sysctl *sysctls __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
