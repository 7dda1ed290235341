// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * bench.bpf.c: what `fairlead bench` measures the director against. Only the
 * benchmark loads these programs.
 *
 * BPF_PROG_RUN does not restore the packet between its runs, so each program
 * under test runs behind `next_packet`, which writes the packet anew, picks its
 * flow, and calls on. The bare program runs behind it too, and its time is
 * taken off.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "conn.h"
#include "state.h"
#include "service.h"
#include "schedule.h"
#include "xdp.h"

enum bench_limit {
	BENCH_FRAME = 80,		/* Ethernet, IPv6, TCP; padded */
	BENCH_PORT_BITS = 15,		/* a client's ports; then the next client */
	BENCH_FIRST_PORT = 1024,
	BENCH_MOST_FLOWS = 1 << 22,
};

/* The packets of a run. */
struct bench_run {
	__u32 flows;			/* a power of two */
	__u32 stride;			/* odd: visits every flow, in no order */
	__u64 next;
	__u64 sent;
	__u32 client;			/* offset of the client address's last two bytes */
	__u32 port;			/* offset of the client's port */
	__u8 frame[BENCH_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench_run);
} bench_runs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bench_programs SEC(".maps");

/* Two bytes of the frame; the offset is bounded for the verifier. */
static __always_inline bool write_at(void *data, void *end, __u32 offset, __be16 value)
{
	__be16 *p = data + (offset & 127);

	if ((void *)(p + 1) > end)
		return false;
	*p = value;
	return true;
}

SEC("xdp")
int next_packet(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, flow;
	struct bench_run *run = bpf_map_lookup_elem(&bench_runs, &zero);

	if (!run || data + BENCH_FRAME > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, run->frame, BENCH_FRAME);
	flow = run->next & (run->flows - 1);
	run->next += run->stride;
	if (!write_at(data, end, run->client, bpf_htons(1 + (flow >> BENCH_PORT_BITS))) ||
	    !write_at(data, end, run->port, bpf_htons(BENCH_FIRST_PORT +
						       (flow & ((1 << BENCH_PORT_BITS) - 1)))))
		return XDP_ABORTED;
	/* A NIC leaves a frame in memory. An atomic operation drains the stores
	 * above, so that no load of the program waits for one. */
	__sync_fetch_and_add(&run->sent, 1);
	bpf_tail_call(ctx, &bench_programs, 0);
	return XDP_ABORTED;
}

/* The least that forwarding takes: other MAC addresses. */
SEC("xdp")
int bare(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct real_server *server = get_server(0);

	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end || !server)
		return XDP_ABORTED;
	write_macs(data, find_hop(server));
	return XDP_TX;
}

/* The table of most balancers: a kernel hash map from the flow to its entry. */
struct hash_entry {
	__u32 expires;
	__u32 server;
	__u64 packets;
	__u64 bytes;
	__u8 state;
	__u8 padding[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BENCH_MOST_FLOWS);
	__type(key, struct flow);
	__type(value, struct hash_entry);
} hash_connections SEC(".maps");

static __always_inline struct hash_entry *enter_in_hash_map(const struct packet *pkt,
							    const struct settings *set, __u32 now)
{
	struct hash_entry entry = { .expires = now };
	struct service *svc = find_service(pkt, set);
	struct edition *edition = svc ? current_edition(svc) : NULL;
	int server;

	if (!edition)
		return NULL;
	server = schedule(edition);
	if (server == NO_SERVER)
		return NULL;
	entry.server = server;
	if (bpf_map_update_elem(&hash_connections, &pkt->flow, &entry, BPF_ANY))
		return NULL;
	return bpf_map_lookup_elem(&hash_connections, &pkt->flow);
}

/* The director with that table in place of its own: all else is the same. */
SEC("xdp")
int director_with_hash_map(struct xdp_md *ctx)
{
	struct packet pkt = { .ifindex = ctx->ingress_ifindex };
	struct interface *in = find_interface(pkt.ifindex);
	struct settings *set = get_settings();
	struct real_server *server;
	struct hash_entry *entry;
	const struct next_hop *hop;
	__u32 now;

	if (!in || !set || !set->services ||
	    parse_packet(&pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end, in) != CONTINUE)
		return XDP_ABORTED;
	now = now_tick(set);
	entry = bpf_map_lookup_elem(&hash_connections, &pkt.flow);
	if (!entry)
		entry = enter_in_hash_map(&pkt, set, now);
	if (!entry)
		return XDP_ABORTED;
	server = get_server(entry->server);
	if (!server || server->state != SERVER_LISTED)
		return XDP_ABORTED;
	entry->state = next_state(&pkt, entry->state) & (STATES - 1);
	entry->expires = now + set->timeouts[entry->state];
	entry->packets++;
	entry->bytes += pkt.length;
	count_packet(entry->server, pkt.length);
	hop = find_hop(server);
	return finish(ctx, &pkt, set, in, forward(ctx, &pkt, hop), hop->ifindex);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
