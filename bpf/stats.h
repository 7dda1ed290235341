/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* stats.h: count. Each CPU has its own counters; Go adds them up. */
#ifndef FAIRLEAD_STATS_H
#define FAIRLEAD_STATS_H

#include "hooks.h"
#include "maps.h"

static __always_inline void count_packet(__u32 server, __u64 bytes)
{
	struct counters *c = bpf_map_lookup_elem(&server_counters, &server);

	if (!c)
		return;
	c->in_packets++;
	c->in_bytes += bytes;
	on_packet(server);
}

static __always_inline void count_reply(__u32 server, __u64 bytes)
{
	struct counters *c = bpf_map_lookup_elem(&server_counters, &server);

	if (!c)
		return;
	c->out_packets++;
	c->out_bytes += bytes;
	on_packet(server);
}

/* A connection, with its first packet if that has bytes. */
static __always_inline void count_first(__u32 server, __u32 bytes)
{
	struct counters *c = bpf_map_lookup_elem(&server_counters, &server);

	if (!c)
		return;
	c->connections++;
	c->in_packets += !!bytes;
	c->in_bytes += bytes;
}

static __always_inline void count_connection(__u32 server)
{
	struct counters *c = bpf_map_lookup_elem(&server_counters, &server);

	if (c)
		c->connections++;
}

static __always_inline void count_verdict(enum verdict v)
{
	__u32 index = v;
	__u64 *count = bpf_map_lookup_elem(&verdicts, &index);

	if (count)
		(*count)++;
	on_verdict(v);
}

#endif
