// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * trace.bpf.c: the director's program once more, with hooks that look on. It
 * takes the place of the plain one while somebody traces. What becomes of a
 * packet is the same, for the same stages decide it.
 */
#include "trace.h"
#include "director.bpf.c"

static __always_inline bool under_mask(const struct address *a, const struct address *b,
				       const struct address *mask)
{
	return !(((a->high ^ b->high) & mask->high) | ((a->low ^ b->low) & mask->low));
}

static __always_inline bool is_picked(const struct trace_filter *filter, const struct packet *pkt,
				      __u64 jiffies)
{
	return jiffies < *(const volatile __u64 *)&filter->until &&
	       (!filter->ethertype || filter->ethertype == pkt->ethertype) &&
	       (!filter->protocol || filter->protocol == flow_protocol(&pkt->flow)) &&
	       (!filter->cport || filter->cport == flow_cport(&pkt->flow)) &&
	       (!filter->vport || filter->vport == flow_vport(&pkt->flow)) &&
	       under_mask(&filter->caddr, &pkt->flow.caddr, &filter->cmask) &&
	       under_mask(&filter->vaddr, &pkt->flow.vaddr, &filter->vmask);
}

/* One packet an interval in the long run, a burst at once. */
static __always_inline bool may_tell(__u32 i, const struct trace_filter_table *all)
{
	struct trace_account *account = bpf_map_lookup_elem(&trace_accounts, &i);
	__u64 interval = all->interval, most = interval * all->burst;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 from;

	if (!account)
		return false;
	from = account->debt > now ? account->debt : now;
	if (from - now + interval > most && interval) {
		account->limited++;
		return false;
	}
	account->debt = from + interval;
	return true;
}

/* A walk over the filters. */
struct picking {
	const struct trace_filter_table *all;
	const struct packet *pkt;
	__u64 jiffies;
	__u32 picked;
	__u32 padding;
};

static int pick_one(__u32 i, void *ctx)
{
	struct picking *picking = ctx;

	if (i >= MAX_TRACES)
		return 1;
	if (is_picked(&picking->all->filters[i], picking->pkt, picking->jiffies) &&
	    may_tell(i, picking->all))
		picking->picked |= 1 << i;
	return 0;
}

/* The traces that pick a packet and may tell of it, a bit each. Not static: see
 * answer_icmp. */
__noinline int pick(const struct packet *pkt)
{
	struct picking picking = { .pkt = pkt, .jiffies = bpf_jiffies64() };
	__u32 zero = 0;

	if (!pkt)
		return 0;
	picking.all = bpf_map_lookup_elem(&trace_filters, &zero);
	if (!picking.all)
		return 0;
	bpf_loop(picking.all->slots, pick_one, &picking, 0);
	return picking.picked;
}

/* Copies the frame to the end of the tail. Returns the bytes copied. */
static __always_inline __u32 note_frame(struct xdp_md *ctx, struct trace *trace, __u32 length)
{
	__u32 at = trace->used, last;

	if (length > MAX_TRACED_FRAME)
		length = MAX_TRACED_FRAME;
	/* Linux 6.1 does not learn from a comparison with 0 that a number is at
	 * least 1. */
	last = length - 1;
	asm volatile("" : "+r"(last));
	if (last >= MAX_TRACED_FRAME || at > TRACE_TAIL - MAX_TRACED_FRAME ||
	    bpf_xdp_load_bytes(ctx, 0, &trace->tail[at], last + 1))
		return 0;
	trace->used = at + ((length + 7) & ~7);
	return length;
}

/* The flow's entry as it is now; zeros if it has none. */
static __always_inline void note_connection(struct connection *into, const struct flow *flow,
					    const struct settings *set, __u32 now)
{
	struct way way = find_way(hash_flow(flow, set), set);
	struct connection *conn;
	__u32 control;

	conn = find_connection(&way, flow, set, now, &control);
	if (!conn)
		return;
	*into = *conn;
	if (is_stale(conn, control))
		*into = (struct connection){};
}

/* What is known of a packet before it goes its way. */
static __always_inline void note_arrival(struct xdp_md *ctx, struct trace *trace,
					 const struct packet *pkt, const struct settings *set)
{
	struct trace_event *event = &trace->event;
	const struct service *svc;

	event->time = bpf_ktime_get_ns();
	event->now = now_tick(set);
	event->ifindex = ctx->ingress_ifindex;
	event->index = NO_SERVER;
	event->in_length = bpf_xdp_get_buff_len(ctx);
	event->in_told = note_frame(ctx, trace, event->in_length);
	if (event->parsed != CONTINUE)
		return;
	event->caddr = pkt->flow.caddr;
	event->vaddr = pkt->flow.vaddr;
	event->word = pkt->flow.word;
	note_connection(&event->before, &pkt->flow, set, event->now);
	svc = find_service(pkt, set);
	if (!svc)
		return;
	event->has_service = 1;
	event->service = svc->key;
}

/* Begins to note a packet, if a trace picks it. Not static: see answer_icmp. */
__noinline int begin_trace(struct xdp_md *ctx)
{
	struct interface *in = find_interface(ctx->ingress_ifindex);
	const struct settings *set = get_settings();
	struct trace *trace = get_trace();
	struct packet pkt = {};
	enum verdict parsed;
	__u32 picked;

	if (!in || !trace)
		return 0;
	trace->running = 0;
	parsed = parse_packet(ctx, &pkt, in);
	picked = pick(&pkt);
	if (!picked)
		return 0;
	__builtin_memset(&trace->event, 0, sizeof(trace->event));
	trace->running = 1;
	trace->used = 0;
	trace->event.picked = picked;
	trace->event.parsed = parsed;
	note_arrival(ctx, trace, &pkt, set);
	return 1;
}

/* What became of a packet. */
static __always_inline void note_departure(struct xdp_md *ctx, struct trace *trace, int action)
{
	struct trace_event *event = &trace->event;
	const struct settings *set = get_settings();
	const struct real_server *server;
	struct flow flow;

	event->action = action;
	if (action == XDP_TX || action == XDP_REDIRECT) {
		event->out_length = bpf_xdp_get_buff_len(ctx);
		event->out_told = note_frame(ctx, trace, event->out_length);
	}
	if (event->parsed != CONTINUE)
		return;
	flow.caddr = event->caddr;
	flow.vaddr = event->vaddr;
	flow.word = event->word;
	note_connection(&event->after, &flow, set, event->now);
	server = get_server(event->index);
	if (server)
		event->server = *server;
}

static int count_full(__u32 i, void *ctx)
{
	const __u32 *picked = ctx;
	struct trace_account *account = bpf_map_lookup_elem(&trace_accounts, &i);

	if (account && *picked & 1 << (i & (MAX_TRACES - 1)))
		account->full++;
	return 0;
}

/* Tells what was noted. Not static: see answer_icmp. */
__noinline int end_trace(struct xdp_md *ctx, int action)
{
	struct trace *trace = running_trace();
	__u32 size, picked;

	if (!trace)
		return 0;
	note_departure(ctx, trace, action);
	size = trace->used;
	picked = trace->event.picked;
	if (size <= TRACE_TAIL &&
	    bpf_ringbuf_output(&trace_events, &trace->event, sizeof(trace->event) + size, 0))
		bpf_loop(MAX_TRACES, count_full, &picked, 0);
	trace->running = 0;
	return 0;
}

/* A packet that nobody picked. Not static: see answer_icmp; and so that its frame
 * on the stack is gone before take_first() or take() has one. */
__noinline int take_untraced(struct xdp_md *ctx)
{
	return take_steady(ctx);
}

DIRECTOR_SECTION
int trace_director(struct xdp_md *ctx)
{
	bool picked = begin_trace(ctx);
	int action = picked ? NOT_TAKEN : take_untraced(ctx);

	if (action == NOT_TAKEN && !picked)
		action = take_first(ctx);
	if (action == NOT_TAKEN)
		action = take_any(ctx);
	if (picked)
		end_trace(ctx, action);
	return action;
}

/* Put the types, which no map has, into the BTF that Go's are made from. */
const struct trace_candidate *trace_candidates __attribute__((unused));
const enum trace_limit *trace_limits __attribute__((unused));
