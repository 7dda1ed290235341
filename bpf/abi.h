/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * abi.h: every struct, enum and limit that the data plane shares with Go; the
 * limits and verdicts here, the others in parts of it (abi_*.h), by what they are of.
 *
 * bpf2go generates the Go side from the BTF of these types. So: no unions, no
 * bitfields, no anonymous structs, padding written out and zero. Who writes a
 * field is said beside it: "Go" is the control plane, "plane" the programs.
 */
#ifndef FAIRLEAD_ABI_H
#define FAIRLEAD_ABI_H

#include <linux/types.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "struct address and the flow word are laid out for little endian");

enum abi {
	/* Pinned maps of another version are not taken over. Raise it with
	 * every change of a struct or of what a field means. */
	ABI_VERSION = 8,
};

enum limit {
	/* Slots of a group: 8 x 64 bytes lie inside one page. */
	GROUP_SLOTS = 8,
	GROUP_SLOTS_SHIFT = 3,
	/* Groups that a flow may lie in. In a table two thirds full, one group
	 * in four has no room; sixteen in a row: one flow in 10^9. */
	PROBE_GROUPS = 16,
	PROBE_SLOTS = GROUP_SLOTS * PROBE_GROUPS,
	/* Per-CPU counters make this the dearest limit: 40 bytes x CPUs. */
	MAX_SERVERS = 16384,
	MAX_SERVICES = 4096,
	/* Places where services are looked for, and how many one may be looked for
	 * at. With at most one place in four taken, and a hash with secret keys, more
	 * than four are hardly ever needed. */
	SERVICE_PLACES_SHIFT = 14,
	SERVICE_PLACES = 1 << SERVICE_PLACES_SHIFT,
	SERVICE_PROBES = 64,
	/* Each service holds one; as many again wait until no packet can be
	 * at them any more. */
	MAX_EDITIONS = 2 * MAX_SERVICES,
	/* Slots for all server lists, old ones and new ones together. */
	MAX_LIST_SLOTS = 1 << 20,
	/* Slots of the tables of dh and sh, and of mh: the kernel's, as Debian and
	 * others build it (IP_VS_DH_TAB_BITS, IP_VS_SH_TAB_BITS, IP_VS_MH_TAB_INDEX;
	 * Kconfig's defaults). */
	HASH_TABLE_BITS = 8,
	HASH_TABLE_SLOTS = 1 << HASH_TABLE_BITS,
	MAGLEV_TABLE_SLOTS = 4093,
	TABLE_LINE_SLOTS = 32,
	/* Lines for all tables: 2048 of mh, or 32768 of dh and sh. */
	MAX_TABLE_LINES = 1 << 18,
	/* Servers that lblcr remembers for an address. */
	CACHE_SERVERS = 28,
	/* Addresses that lblc and lblcr remember, of all services. */
	MAX_CACHE_ENTRIES = 1 << 17,
	/* Templates that are named by a Call-ID, of all services; how long that
	 * may be (IP_VS_PEDATA_MAXLEN); and what of a datagram is searched for
	 * it, a power of two. */
	MAX_CALL_IDS = 1 << 17,
	CALL_ID_BYTES = 255,
	CALL_ID_SEARCHED = 1 << 12,
	/* Servers of one service; bounds every walk of a list. */
	MAX_LIST = 4096,
	/* Other directors that were named. */
	MAX_PEERS = 256,
	/* What those are known by, and real servers beside a local one. */
	MAX_PEER_MACS = MAX_SERVERS + MAX_PEERS,
	/* Rules that mark packets. A packet without a connection is compared with
	 * them one after the other: a few nanoseconds each. */
	MAX_MARK_RULES = 256,
	/* Addresses that clients of FullNAT connections come from, of both families. */
	MAX_LOCAL_ADDRESSES = 256,
	/* Interfaces are found by index modulo this. */
	MAX_INTERFACES = 4096,
	/* IPv6 extension headers before the upper layer (RFC 8200 allows more,
	 * nobody sends them). */
	MAX_EXTENSION_HEADERS = 8,
	/* Groups that one run of the sweeper looks at: about a millisecond. The
	 * entries of one run fit in sixteen bits. */
	SWEEP_GROUPS = 4096,
	/* In a second, the defence looks at one group of so many. */
	DEFENCE_SHARE = 32,
	/* Entries with fewer packets than this may be given up in defence. */
	DEFENCE_PACKETS = 9,
	DEFENCE_IDLE_SECONDS = 60,
	/* In the protocol of a template: no packet's flow is ever a template's. */
	TEMPLATE_PROTOCOL = 0x80,
	/* How much longer a template lives that runs out before its connections. */
	TEMPLATE_RETRY_SECONDS = 60,
	/* Clients whose next hops are kept. */
	MAX_CLIENT_HOPS = 4096,
	/* Datagrams in fragments that are known at the same time: sets, each of
	 * the sources of one network, by hash; and slots of a set. */
	DATAGRAM_SETS_SHIFT = 12,
	DATAGRAM_SETS = 1 << DATAGRAM_SETS_SHIFT,
	DATAGRAM_SLOTS = 15,
	/* Of these, what one source network gets before it takes from itself. */
	DATAGRAM_SHARE = 8,
	/* How long the fragments of a datagram follow its first one, from when
	 * that came; and how long those that came before it are kept. */
	DATAGRAM_SECONDS = 5,
	HELD_SECONDS = 1,
	/* The largest frame that is kept: what BPF_PROG_RUN takes in one page. */
	MAX_HELD_FRAME = 3456,
	/* Of one datagram, what is kept: pieces of 64 bytes, and one more a frame.
	 * 64 KiB in fragments of 128 bytes or more fit. */
	HELD_PIECE_SHIFT = 6,
	MAX_HELD_PIECES = 2080,
	/* On their way to the director, bytes. */
	HELD_RING = 1 << 22,
	/* The largest frame that the director fragments: a jumbo frame in a
	 * tunnel; and bytes on their way to it. */
	MAX_OVERSIZED_FRAME = 9344,
	OVERSIZED_RING = 1 << 21,
	/* Addresses whose fragments may be a service's. */
	MAX_PARTIES = MAX_SERVICES + MAX_SERVERS,
	/* One tick of a connection's clock is four jiffies: a 32-bit count of
	 * them reaches over the longest timeout, 31 days, on both sides of now
	 * with any HZ. */
	TICK_JIFFIES_SHIFT = 2,
};

/* How a packet leaves the data plane. verdict.go tells each one's kind and
 * meaning to people, in this order. */
enum verdict {
	CONTINUE,		/* not a way out: the next stage goes on */

	/* to the host, untouched */
	PASS_NO_SERVICES,	/* no virtual service is configured */
	PASS_OTHER_HOST,	/* MAC address is not this interface's */
	PASS_NOT_IP,
	PASS_PROTOCOL,		/* neither TCP, UDP, SCTP nor ICMP */
	PASS_ICMP,		/* about no connection */
	PASS_FRAGMENT,		/* not of a service's datagram, nor of its address */
	PASS_MALFORMED,
	PASS_NO_SERVICE,
	PASS_NO_CONNECTION,	/* TCP without SYN, SCTP without INIT, nothing known of it */
	PASS_FTP,		/* IPVS leaves it to the host */
	PASS_PEER,		/* another director forwarded it to this host */
	PASS_LOCAL,		/* its real server is this host */

	/* to a real server */
	FORWARD,
	FORWARD_NO_ENTRY,	/* the table had no room: by hash */
	FORWARD_ICMP,		/* an error about a connection */
	FORWARD_IN_FRAGMENTS,	/* or to a client; the director makes them */
	FORWARD_NO_TOA,		/* FullNAT: without the option that tells the client's address */

	/* from a real server to its client */
	FORWARD_REPLY,		/* masquerading: with the virtual address again */

	/* kept by the director */
	HOLD_FRAGMENT,		/* until its datagram's first fragment comes */

	/* answered with ICMP */
	ANSWER_NO_SERVER,	/* port unreachable */
	ANSWER_NO_LOCAL_PORT,	/* FullNAT: the same, as the pool has no free port */
	ANSWER_TTL,		/* time exceeded */
	ANSWER_TOO_BIG,		/* fragmentation needed, packet too big */

	/* dropped */
	DROP_RATE_LIMIT,	/* would have been an ICMP answer */
	DROP_TOO_BIG,		/* may be fragmented, but nobody is there to do it */
	DROP_SERVER_REMOVED,	/* as IPVS: until the server is back */
	DROP_NO_NEXT_HOP,
	DROP_DEFENCE,		/* drop_packet: would have been a new connection */
	DROP_ICMP_CHECKSUM,	/* of an error about a connection; IPv4 */
	DROP_ICMP_ERROR,	/* nobody is told what is wrong with an error */
	DROP_NO_ROOM,		/* masquerading needs an entry for the way back */
	DROP_NO_WAY_BACK,	/* of a reply: no route to the client */
	DROP_FRAGMENT,		/* its datagram's first one was dropped or answered */
	DROP_FRAGMENT_TINY,	/* a first one without its whole header (RFC 1858, 7112) */
	DROP_FRAGMENT_OVERLAP,	/* what its datagram is taken for could change (RFC 5722) */
	DROP_FRAGMENT_LOST,	/* came before the first one, with no room to keep it */
	DROP_FRAGMENT_ALONE,	/* was kept, and the first one did not come */
	DROP_NO_CALL_ID,	/* its template would be named by one (SIP) */
	DROP_FRAGMENT_PORTS,	/* of SCTP, with ports to translate: its checksum is of the whole */

	BUG_MAP,		/* a look-up that cannot miss missed */
	BUG_ADJUST,		/* the kernel refused to move the frame's ends */
	VERDICTS,
};

/* An IPv6 address as in the header; IPv4 is mapped (::ffff:a.b.c.d). */
struct address {
	__u64 high;
	__u64 low;
};

#include "abi_connection.h"
#include "abi_policy.h"
#include "abi_service.h"
#include "abi_server.h"
#include "abi_settings.h"

#include "abi_fragment.h"

#endif
