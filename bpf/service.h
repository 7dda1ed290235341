/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * service.h: find the virtual service of a packet, in IPVS's order
 * (ip_vs_ctl.c, ip_vs_service_find): that of its firewall mark; exact; for TCP to a port that FTP may
 * have opened, the FTP service of that address; any port of that address.
 */
#ifndef FAIRLEAD_SERVICE_H
#define FAIRLEAD_SERVICE_H

#include "hash.h"
#include "mark.h"

enum {
	FTP_DATA_PORT = 20,
	FTP_PORT = 21,
};

enum {
	NO_SERVICE = -1,
};

/* The place where the search for a key begins. Its hash is that of a flow from
 * nowhere. */
static __always_inline __u32 home_of(const struct service_key *key, const struct settings *set)
{
	struct address nowhere = {};
	__u64 word = (__u64)key->protocol << 32 | (__u64)key->vport << 16;

	return hash_words(&nowhere, &key->vaddr, word, set) >> (64 - SERVICE_PLACES_SHIFT);
}

static __always_inline bool is_of_key(const struct service *svc, const struct service_key *key)
{
	return !(address_difference(&svc->key.vaddr, &key->vaddr) |
		 (svc->key.vport ^ key->vport) | (svc->key.protocol ^ key->protocol)) && svc->used;
}

/* The index of a key's service, or NO_SERVICE. Not static: see answer_icmp. */
__noinline int lookup_index(const struct service_key *key)
{
	const struct settings *set = get_settings();
	struct service_place *place;
	struct service *svc;
	__u32 at, index;

	if (!key)
		return NO_SERVICE;
	at = home_of(key, set);
	for (int i = 0; i < SERVICE_PROBES; i++) {
		index = (at + i) & (SERVICE_PLACES - 1);
		place = bpf_map_lookup_elem(&services, &index);
		if (!place)
			return NO_SERVICE;
		index = *(volatile __u32 *)&place->service;
		if (!index--)
			return NO_SERVICE;
		svc = bpf_map_lookup_elem(&service_table, &index);
		if (svc && is_of_key(svc, key))
			return index;
	}
	return NO_SERVICE;
}

/* A key's service, if it is at the place where the search begins, as nearly all are. */
static __always_inline struct service *lookup_at_home(const struct service_key *key,
						      const struct settings *set)
{
	__u32 at = home_of(key, set);
	const struct service_place *place = bpf_map_lookup_elem(&services, &at);
	struct service *svc;
	__u32 index;

	if (!place)
		return NULL;
	index = *(const volatile __u32 *)&place->service - 1;
	svc = bpf_map_lookup_elem(&service_table, &index);
	return svc && is_of_key(svc, key) ? svc : NULL;
}

static __always_inline struct service *lookup_service(const struct service_key *key)
{
	int index = lookup_index(key);

	return index == NO_SERVICE ? NULL : bpf_map_lookup_elem(&service_table, &index);
}

static __always_inline bool may_be_ftp(const struct packet *pkt, const struct settings *set)
{
	__u16 port = bpf_ntohs(flow_vport(&pkt->flow));

	return set->ftp_services && flow_protocol(&pkt->flow) == IPPROTO_TCP &&
	       (port == FTP_DATA_PORT || port >= set->first_unprivileged_port);
}

static __always_inline bool is_of_mark(const struct service *svc)
{
	return !svc->key.protocol;
}

static __noinline struct service *find_service(const struct packet *pkt, const struct settings *set)
{
	__u32 mark = find_mark(pkt, set);
	struct service_key key = { .vaddr = mark_address(mark, pkt) };
	struct service *svc = mark ? lookup_service(&key) : NULL;

	if (svc)
		return svc;
	key.vaddr = pkt->flow.vaddr;
	key.vport = flow_vport(&pkt->flow);
	key.protocol = flow_protocol(&pkt->flow);
	svc = lookup_service(&key);
	if (!svc && may_be_ftp(pkt, set)) {
		key.vport = bpf_htons(FTP_PORT);
		svc = lookup_service(&key);
	}
	if (!svc && set->any_port_services) {
		key.vport = 0;
		svc = lookup_service(&key);
	}
	return svc;
}

/* Whether a service that is not persistent is for a packet's port. */
static __always_inline bool serves_port(const struct service *svc, const struct packet *pkt)
{
	return is_of_mark(svc) || svc->key.vport == flow_vport(&pkt->flow);
}

/* Of a packet without a server: IPVS leaves what an FTP service was found for by
 * its port alone to the host, that is, any port but FTP's own (ip_vs_leave). */
static __always_inline bool leaves_to_host(const struct service *svc, const struct packet *pkt)
{
	return svc->key.vport == bpf_htons(FTP_PORT) && flow_vport(&pkt->flow) != svc->key.vport;
}

/* The edition that holds. */
static __always_inline struct edition *current_edition(const struct service *svc)
{
	__u32 index = *(const volatile __u32 *)&svc->edition;

	return bpf_map_lookup_elem(&editions, &index);
}

#endif
