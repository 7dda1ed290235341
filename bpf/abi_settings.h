/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* abi_settings.h: the director as a whole, its interfaces and its clock. A part of abi.h. */
#ifndef FAIRLEAD_ABI_SETTINGS_H
#define FAIRLEAD_ABI_SETTINGS_H

enum xdp_mode {
	XDP_MODE_NATIVE = 1,
	XDP_MODE_GENERIC = 2,
	XDP_MODE_TC = 3,	/* not XDP: struct interface says how the program came there */
};

/* One interface that the program is attached to, at its index modulo
 * MAX_INTERFACES; Go. */
struct interface {
	__u32 ifindex;		/* 0: none here */
	__u32 tx_ifindex;	/* the same; 0: XDP_TX does not reach the wire (veth) */
	__u8 mac[6];		/* read as a word of eight bytes */
	__u16 padding;
	struct address address6; /* source of ICMPv6 time exceeded; or zero */
	enum xdp_mode mode;	/* for people */
	__be32 address4;	/* source of ICMP about a reply; or 0 */
	__u32 mtu;
	__u32 tail_padding[5];
};
_Static_assert(sizeof(struct interface) == 64 && __builtin_offsetof(struct interface, mode) == 32,
	       "one cache line, no hidden padding");

/* What the clock program tells. */
struct clock_reading {
	__u64 jiffies;
	__u64 ns;		/* CLOCK_MONOTONIC at the same moment */
};

struct settings {
	__u64 hash_keys[5];	/* random, odd; Go, once */
	__u32 group_mask;	/* groups of the connection table - 1; Go, once */
	__u32 group_shift;	/* 64 - binary logarithm of the groups; Go, once */
	__u32 services;		/* how many; 0 passes everything; Go */
	__u32 ftp_services;	/* of these, TCP with port 21; Go */
	__u32 any_port_services; /* of these, with port 0; Go */
	__u32 clock_offset;	/* ticks, added to the clock; Go, for tests */
	__u32 hz;		/* jiffies in a second; Go, once */
	enum abi abi;		/* of who made the maps; Go, once */
	enum limit probe_slots;	/* the same */
	__u32 icmp_interval;	/* ns between answers in the long run; 0: no limit; Go */
	__u32 icmp_burst;	/* answers at once; Go */
	__u32 first_unprivileged_port; /* IPVS looks for FTP from here on; Go */
	__u64 icmp_debt;	/* ns of the coarse clock until which answers are
				 * spent; plane */
	__u32 peer_filter;	/* bit n: the MAC address of a peer has n in the
				 * lower bits of its last byte; 0: no peers; Go */
	__u8 defence_turns[DEFENCE_PACKETS]; /* drop_entry: by the packets of an entry, how
				 * many such ones stay until one goes; plane */
	__u8 defence_padding[3];
	__u32 mark_rules;	/* upper half: the first one that holds, in mark_rules;
				 * lower half: how many; Go */
	__u32 local_addresses[2]; /* the same of local_addresses, for IPv4 and IPv6; Go */
	__u32 reserved[1];
	struct policy policy;	/* of the whole director */
};
_Static_assert(sizeof(struct settings) == 384 && __builtin_offsetof(struct settings, policy) == 128,
	       "no hidden padding, timeouts begin a cache line");

#endif
