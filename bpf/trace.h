/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * trace.h: what a trace notes of a packet on its way, in place of the empty
 * hooks of hooks.h.
 *
 * A CPU has room for one packet, which is in the program from its beginning to
 * its end; what was noted then goes to the director through a ring buffer.
 */
#ifndef FAIRLEAD_HOOKS_H
#define FAIRLEAD_HOOKS_H

#include "maps.h"
#include "schedule.h"

enum trace_limit {
	/* Traces at the same time. */
	MAX_TRACES = 8,
	/* Of a frame, bytes that are told. */
	MAX_TRACED_FRAME = 2048,
	/* Of a service, servers that are told. */
	MAX_TRACED_CANDIDATES = 512,
	/* Not yet read by the director, bytes. */
	TRACE_RING = 1 << 22,
};

/* What packets a trace picks; Go. An address is compared where its mask has
 * ones. */
struct trace_filter {
	__u64 until;		/* jiffies; then nobody asks any more */
	struct address caddr;
	struct address cmask;
	struct address vaddr;
	struct address vmask;
	__be16 ethertype;	/* 0: any */
	__be16 cport;		/* 0: any */
	__be16 vport;		/* 0: any */
	__u8 protocol;		/* 0: any */
	__u8 padding;
};

struct trace_filter_table {
	__u32 interval;		/* ns between packets of a trace on one CPU in
				 * the long run; 0: no limit */
	__u32 burst;		/* packets at once */
	__u32 slots;		/* of those below, up to the last one in use */
	__u32 padding;
	struct trace_filter filters[MAX_TRACES];
};

/* What one CPU counts of one trace. */
struct trace_account {
	__u64 debt;		/* ns of the coarse clock until which its packets
				 * are spent */
	__u64 limited;		/* packets not told because of the limit */
	__u64 full;		/* packets not told because the ring was full */
};

enum trace_choice {
	TRACE_NOT_ASKED,
	TRACE_SCHEDULED,
	TRACE_HASHED,
};

/* One packet. In the ring buffer it is followed by the frame as it came in, up
 * to a multiple of eight bytes; the candidates; and the frame as it left. */
struct trace_event {
	__u64 time;		/* CLOCK_MONOTONIC, ns */
	struct address caddr;
	struct address vaddr;
	__u64 word;		/* as in struct flow */
	struct service_key service;
	struct connection before;
	struct connection after;
	struct edition edition;	/* before the scheduler */
	__u64 cursor;		/* of the edition, after it */
	struct real_server server; /* which counted the packet */
	__u32 index;		/* of server, or NO_SERVER */
	__u32 now;		/* tick */
	__u32 picked;		/* traces, a bit each */
	__u32 ifindex;
	__u32 action;		/* XDP */
	enum verdict verdict;
	enum verdict parsed;	/* CONTINUE, or why no stage after the parser saw it */
	enum trace_choice choice;
	__u32 has_service;
	__u32 candidates;	/* that follow; the scheduler's or the hash's */
	__u32 in_length;	/* of the frame */
	__u32 in_told;
	__u32 out_length;	/* 0: none left */
	__u32 out_told;
};

struct trace_candidate {
	__u32 server;		/* index into real_servers */
	__u32 weight;
	__u32 active;
	__u32 inactive;
	__u32 overloaded;
};

enum {
	TRACE_CANDIDATES = MAX_TRACED_CANDIDATES * sizeof(struct trace_candidate),
	TRACE_TAIL = MAX_TRACED_FRAME + TRACE_CANDIDATES + MAX_TRACED_FRAME,
};

/* The packet that is on its way on this CPU. */
struct trace {
	__u32 running;
	__u32 used;		/* of the tail */
	struct trace_event event;
	__u8 tail[TRACE_TAIL];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace);
} traces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_filter_table);
} trace_filters SEC(".maps");

/* By trace. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TRACES);
	__type(key, __u32);
	__type(value, struct trace_account);
} trace_accounts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TRACE_RING);
} trace_events SEC(".maps");

static __always_inline struct trace *get_trace(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&traces, &zero);
}

/* That of the packet on its way, or NULL: none is told of. */
static __always_inline struct trace *running_trace(void)
{
	struct trace *trace = get_trace();

	return trace && trace->running ? trace : NULL;
}

static __always_inline void on_verdict(enum verdict v)
{
	struct trace *trace = running_trace();

	if (trace)
		trace->event.verdict = v;
}

static __always_inline void on_packet(__u32 server)
{
	struct trace *trace = running_trace();

	if (trace)
		trace->event.index = server;
}

static int note_candidate(__u32 i, void *ctx)
{
	const struct walk *walk = ctx;
	struct trace *trace = get_trace();
	struct trace_candidate *candidate;
	struct real_server *server;
	__u32 index, at;

	if (!trace || i >= MAX_TRACED_CANDIDATES)
		return 1;
	at = trace->used;
	if (at > MAX_TRACED_FRAME + TRACE_CANDIDATES - sizeof(*candidate))
		return 1;
	server = server_at(walk->edition, i, &index);
	if (!server)
		return 1;
	candidate = (void *)&trace->tail[at];
	candidate->server = index;
	candidate->weight = server->weight;
	candidate->active = server->active;
	candidate->inactive = server->inactive;
	candidate->overloaded = server->overloaded;
	trace->used = at + sizeof(*candidate);
	trace->event.candidates = i + 1;
	return 0;
}

/* Not static: see answer_icmp. */
__noinline int note_candidates(struct edition *edition)
{
	struct walk walk = { .edition = edition };
	struct trace *trace = get_trace();

	if (!edition || !trace)
		return 0;
	trace->event.edition = *edition;
	walk_servers(&walk, edition->servers, note_candidate);
	return 0;
}

static __always_inline void on_schedule(struct edition *edition)
{
	if (running_trace())
		note_candidates(edition);
}

static __always_inline void on_scheduled(const struct edition *edition)
{
	struct trace *trace = running_trace();

	if (!trace)
		return;
	trace->event.choice = TRACE_SCHEDULED;
	trace->event.cursor = edition->cursor;
}

static __always_inline void on_hashed(struct edition *edition)
{
	struct trace *trace = running_trace();

	if (!trace)
		return;
	if (trace->event.choice == TRACE_NOT_ASKED)
		note_candidates(edition);
	trace->event.choice = TRACE_HASHED;
}

#endif
