// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * bench.bpf.c: what `fairlead bench` measures the director against. Only the
 * benchmark loads these programs.
 *
 * BPF_PROG_RUN does not restore the packet between its runs, so each program
 * under test runs behind `next_packet`, which writes the packet anew, picks its
 * flow, and calls on. The bare program runs behind it too, and its time is
 * taken off. Of a frame that became longer in a tunnel, `next_packet` cuts off the
 * outer header; it then does as much before the bare program, by zero bytes, so that
 * this part of its own is taken off as well, and nothing of the director's.
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
	BENCH_PORT_BITS = 15,		/* a client's ports; then the next client */
	BENCH_FIRST_PORT = 1024,
	BENCH_MOST_FLOWS = 1 << 22,
};

/* The packets of a run. Offsets are from the start of the frame. */
struct bench_run {
	__u64 began;			/* the turn; CLOCK_MONOTONIC in ns, or 0: none yet */
	__u64 quickest;			/* what the quickest turn took, in ns */
	__u32 turn, left;		/* packets of a turn, and how many are to come */
	__u32 flows;			/* a power of two */
	__u32 stride;			/* odd: visits every flow, in no order */
	__u64 next;
	__u32 macs[3];			/* as in the frame */
	__u32 client_offset;		/* of the client address's last four bytes */
	__u32 client;			/* their value for the first client, host order */
	__u32 port_offset;		/* of the client's port */
	__u32 ttl_offset;		/* of TTL or hop limit */
	__u32 check_offset;		/* of the IPv4 header's checksum; 0: none */
	__u16 check;
	__u8 ttl;
	__u8 warm;			/* 1: see warm_home */
	__be16 ethertype;
	__u16 length;			/* of the frame */
	__u32 peer_offset;		/* of the other end's address, which translation changes */
	__u32 peer_words;		/* of that; 0: it is left alone */
	__u32 peer_port_offset;
	__be16 peer_port;
	__u16 tunnelled;		/* 1: the head is moved, be it by nothing */
	__be32 peer[4];
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

/* A place in the frame, or NULL; the offset is bounded for the verifier. */
static __always_inline void *frame_at(void *data, void *end, __u32 offset)
{
	void *p = data + (offset & 127);

	return p + sizeof(__u32) <= end ? p : NULL;
}

/* Restores the end that translation changes. */
static __always_inline bool write_peer(void *data, void *end, const struct bench_run *run)
{
	__be16 *port = frame_at(data, end, run->peer_port_offset);

	if (!port)
		return false;
	*port = run->peer_port;
	for (int i = 0; i < 4; i++) {
		__be32 *word = frame_at(data, end, run->peer_offset + 4 * i);

		if (i >= run->peer_words)
			break;
		if (!word)
			return false;
		*word = run->peer[i];
	}
	return true;
}

/*
 * Restores what forwarding changes and puts the next flow in.
 */
static __always_inline bool write_packet(void *data, void *end, struct bench_run *run)
{
	__u32 flow = run->next & (run->flows - 1);
	__u32 *macs = data;
	__be32 *client = frame_at(data, end, run->client_offset);
	__be16 *port = frame_at(data, end, run->port_offset);
	__be16 *check = frame_at(data, end, run->check_offset);
	__u8 *ttl = frame_at(data, end, run->ttl_offset);

	if (data + sizeof(struct ethhdr) > end || !client || !port || !check || !ttl)
		return false;
	for (int i = 0; i < 3; i++)
		macs[i] = run->macs[i];
	((struct ethernet *)data)->ethertype = run->ethertype;
	*client = bpf_htonl(run->client + (flow >> BENCH_PORT_BITS));
	*port = bpf_htons(BENCH_FIRST_PORT + (flow & ((1 << BENCH_PORT_BITS) - 1)));
	*ttl = run->ttl;
	if (run->check_offset)
		*check = run->check;
	return !run->peer_words || write_peer(data, end, run);
}

/*
 * Reads the home of an IPv4 flow in the connection table. First packets meet each
 * place once; this leaves what memory takes out of their cost, in every program's turn.
 */
static __always_inline bool warm_home(void *data, void *end, const struct bench_run *run)
{
	__be32 *client = frame_at(data, end, run->client_offset);
	__be32 *vip = frame_at(data, end, run->client_offset + sizeof(*client));
	__u32 *ports = frame_at(data, end, run->port_offset);
	const struct settings *set = get_settings();
	const struct connection *conn;
	struct flow flow;
	struct way way;

	if (!client || !vip || !ports)
		return false;
	flow.caddr = map_ipv4(*client);
	flow.vaddr = map_ipv4(*vip);
	flow.word = *ports | (__u64)IPPROTO_TCP << 32;
	way = find_way(hash_flow(&flow, set), set);
	conn = place(&way, 0, set);
	return conn && read_control(conn) != CONTROL_STATUS;
}

/* Ends a turn, and begins the next one. What the kernel takes to prepare a run is in none. */
static __always_inline void next_turn(struct bench_run *run)
{
	__u64 now = bpf_ktime_get_ns(), took = now - run->began;

	if (run->began && took < run->quickest)
		run->quickest = took;
	run->began = now;
	run->left = run->turn - 1;
}

SEC("xdp.frags")
int next_packet(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct bench_run *run = bpf_map_lookup_elem(&bench_runs, &zero);
	void *data, *end;
	int longer;

	if (!run)
		return XDP_ABORTED;
	if (unlikely(!run->left--))
		next_turn(run);
	longer = (int)hide(ctx->data_end - ctx->data) - run->length;
	if (run->tunnelled && bpf_xdp_adjust_head(ctx, longer))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (!write_packet(data, end, run) || (run->warm && !warm_home(data, end, run)))
		return XDP_ABORTED;
	/* A NIC leaves a frame in memory: an atomic operation drains the stores
	 * above, so that no load of the program waits for one. */
	__sync_fetch_and_add(&run->next, run->stride);
	bpf_tail_call(ctx, &bench_programs, 0);
	return XDP_ABORTED;
}

/* The least that forwarding takes: other MAC addresses. */
SEC("xdp.frags")
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
	server = schedule(edition, &pkt->flow, now);
	if (server == NO_SERVER)
		return NULL;
	entry.server = server;
	if (bpf_map_update_elem(&hash_connections, &pkt->flow, &entry, BPF_ANY))
		return NULL;
	return bpf_map_lookup_elem(&hash_connections, &pkt->flow);
}

/* The director with that table in place of its own: all else is the same. */
SEC("xdp.frags")
int director_with_hash_map(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	struct settings *set = get_settings();
	struct real_server *server;
	struct hash_entry *entry;
	const struct next_hop *hop;
	struct packet pkt = {};
	__u32 now;

	if (!in || !set->services)
		return XDP_ABORTED;
	if (parse_frame(&pkt, ctx, in) != CONTINUE)
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
	entry->state = next_state(CLIENT_ONLY, pkt.event, entry->state) & (STATES - 1);
	entry->expires = now + set->policy.timeouts[entry->state & (STATES - 1)];
	entry->packets++;
	entry->bytes += pkt.length;
	count_packet(entry->server, pkt.length);
	hop = find_hop(server);
	return finish(ctx, &pkt, set, in, forward(ctx, &pkt, hop), hop->ifindex);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
