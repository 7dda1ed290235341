/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * maps.h: the map definitions. Everything that nearly every packet meets lies
 * in flat arrays.
 *
 * Maps that are mapped into the director's memory (BPF_F_MMAPABLE) are written
 * by it field by field, each store atomic in itself.
 */
#ifndef FAIRLEAD_MAPS_H
#define FAIRLEAD_MAPS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* The connection table; Go sets its size before it loads. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct connection_group);
} connections SEC(".maps");

/* By group, as the connection table; as many. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bond_group);
} bonds SEC(".maps");

/* Where services are looked for by protocol, VIP and port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SERVICE_PLACES);
	__type(key, __u32);
	__type(value, struct service_place);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service);
} service_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_EDITIONS);
	__type(key, __u32);
	__type(value, struct edition);
} editions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct real_server);
} real_servers SEC(".maps");

/* What goes around packets to a real server, by its index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct tunnel_pair);
} tunnels SEC(".maps");

/* Server lists, each a run of slots in the order of the walk. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_LIST_SLOTS);
	__type(key, __u32);
	__type(value, struct list_slot);
} lists SEC(".maps");

/* How the connections of services with values of their own behave: at one more
 * than the index of the service. The first is not used. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SERVICES + 1);
	__type(key, __u32);
	__type(value, struct policy);
} policies SEC(".maps");

/* The tables of dh, sh and mh, each a run of lines. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_TABLE_LINES);
	__type(key, __u32);
	__type(value, struct table_line);
} tables SEC(".maps");

/* Who served a virtual address, for lblc and lblcr. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_CACHE_ENTRIES);
	__type(key, struct cache_key);
	__type(value, struct cache_entry);
} caches SEC(".maps");

/* The Call-IDs that templates are named by, by the template's slot in the
 * connection table. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_CALL_IDS);
	__type(key, __u32);
	__type(value, struct call_id);
} call_ids SEC(".maps");

/* By the index of the real server. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct counters);
} server_counters SEC(".maps");

/* What to add to a real server's counters, or to the sum of those of a service's
 * servers, to get what is shown: zeroing, reuse of a slot and servers that went
 * are booked here. A service's carry goes with its edition: it changes in the
 * same store as the list. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct counters);
} server_carry SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_EDITIONS);
	__type(key, __u32);
	__type(value, struct counters);
} edition_carry SEC(".maps");

/* Two lists, of which one holds: settings.mark_rules. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * MAX_MARK_RULES);
	__type(key, __u32);
	__type(value, struct mark_rule);
} mark_rules SEC(".maps");

/* Two lists, of which one holds: settings.local_addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * MAX_LOCAL_ADDRESSES);
	__type(key, __u32);
	__type(value, struct local_address);
} local_addresses SEC(".maps");

/* By enum verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

/* Two more maps, which Go calls settings and interfaces; to the programs they are variables,
 * whose place they know. They are hidden so that Go's types are made from the structs alone. The
 * second is large, and takes no room in the object file: it lies in .bss. */
__hidden struct settings the_settings SEC(".data.settings");
__hidden struct interface the_interfaces[MAX_INTERFACES];

/* By a hash of the addresses; see route.h. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_CLIENT_HOPS);
	__type(key, __u32);
	__type(value, struct client_hop);
} client_hops SEC(".maps");

/* MAC addresses of peers, as the word that read_source makes of a frame. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PEER_MACS);
	__type(key, __u64);
	__type(value, __u32);
} peer_macs SEC(".maps");

/* The peers that were named, and the last MAC address that each was known by (0:
 * none yet): for the director that comes next. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PEERS);
	__type(key, struct address);
	__type(value, __u64);
} peers SEC(".maps");

/* Datagrams that come in fragments. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DATAGRAM_SETS);
	__type(key, __u32);
	__type(value, struct datagram_set);
} datagrams SEC(".maps");

/* Addresses whose fragments may be a service's: bits of enum party. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PARTIES);
	__type(key, struct address);
	__type(value, __u32);
} parties SEC(".maps");

/* Fragments on their way to the director, which keeps them. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, HELD_RING);
} held_fragments SEC(".maps");

/* Packets on their way to the director, which fragments them. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, OVERSIZED_RING);
} oversized_packets SEC(".maps");

static __always_inline struct settings *get_settings(void)
{
	return &the_settings;
}

static __always_inline struct real_server *get_server(__u32 index)
{
	return bpf_map_lookup_elem(&real_servers, &index);
}

/* Whether addresses are translated on the way to a real server, and back. */
static __always_inline bool translates(const struct real_server *server)
{
	return server->method == METHOD_MASQUERADING || server->method == METHOD_FULLNAT;
}

/* How the connections of a service or a real server behave, by the policy that
 * is written there. */
static __always_inline struct policy *get_policy(__u32 index, struct settings *set)
{
	struct policy *own = NULL;

	if (index)
		own = bpf_map_lookup_elem(&policies, &index);
	return own ? own : &set->policy;
}

#endif
