/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* abi_policy.h: how connections behave: timeouts, and values under net.ipv4.vs. A part of abi.h. */
#ifndef FAIRLEAD_ABI_POLICY_H
#define FAIRLEAD_ABI_POLICY_H

/* Values under net.ipv4.vs; nothing else has these names. */
enum sysctl {
	SYSCTL_CONN_REUSE_MODE,
	SYSCTL_EXPIRE_NODEST_CONN,
	SYSCTL_EXPIRE_QUIESCENT_TEMPLATE,
	SYSCTL_SLOPPY_TCP,
	SYSCTL_SLOPPY_SCTP,
	SYSCTL_DROP_ENTRY,
	SYSCTL_DROP_PACKET,
	SYSCTL_AM_DROPRATE,
	SYSCTL_SECURE_TCP,
	SYSCTL_AMEMTHRESH,
	SYSCTL_LBLC_EXPIRATION,
	SYSCTL_LBLCR_EXPIRATION,
	SYSCTL_SLOW_START,
	SYSCTL_SCHEDULE_ICMP,
	SYSCTL_MSS_CLAMP,
	SYSCTLS = 16,		/* room for more in the same layout */
};

/*
 * How connections behave: those of the whole director (in `settings`), or of one
 * service that has values of its own (in `policies`, with the director's in place
 * of those that it has not).
 */
struct policy {
	__u32 timeouts[STATES];	/* ticks, by enum connection_state; Go */
	__s32 sysctls[SYSCTLS];	/* by enum sysctl, as they were set; Go */
	/* What the modes of defence come to at the moment; Go. */
	__u32 secure;		/* secure_tcp */
	__u32 drop_entries;	/* drop_entry */
	__s32 drop_rate;	/* drop_packet: one of so many; 0: none */
	__s32 drop_counter;	/* until the next one is dropped; plane */
	/* Which values are the service's own, one bit each; Go. */
	__u32 own_timeouts;
	__u32 own_sysctls;
	__u32 reserved[10];
};
_Static_assert(sizeof(struct policy) == 256, "four cache lines");

#endif
