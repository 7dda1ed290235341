/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* abi_fragment.h: datagrams that come in fragments; see datagram.h and fragment.h. */
#ifndef FAIRLEAD_ABI_FRAGMENT_H
#define FAIRLEAD_ABI_FRAGMENT_H

/* What is known of a datagram that comes in fragments. */
enum datagram_state {
	DATAGRAM_NONE,
	DATAGRAM_WAITING,	/* for its first fragment */
	DATAGRAM_DECIDING,	/* that one is on its way through the stages */
	DATAGRAM_FOLLOW,	/* it went to a real server, or back to a client */
	DATAGRAM_PASS,		/* it went to the host */
	DATAGRAM_DROP,		/* it was dropped or answered */
	DATAGRAM_OVERLAP,	/* fragments that contradict each other came */
};

/* A datagram that comes in fragments: one cache line. */
struct datagram {
	struct address caddr;
	struct address vaddr;
	__be16 cport;		/* from the first fragment on */
	__be16 vport;
	__u32 id;		/* as on the wire */
	__u32 expires;		/* tick */
	__u32 out;		/* interface that the first one left by */
	__u16 server;		/* index into real_servers */
	__u16 first_end;	/* bytes of the datagram in its first fragment */
	__u16 lowest;		/* offset of the first of those that were kept */
	__u16 total;		/* bytes of the datagram; 0: not known yet */
	__u16 seen;		/* of these, how many have passed */
	__u16 held;		/* pieces that the director keeps */
	__u8 protocol;		/* of the upper layer; IPv6: from the first fragment on */
	__u8 state;		/* enum datagram_state */
	__u16 padding;
};
_Static_assert(sizeof(struct datagram) == 64, "one cache line");

/* What a walk over a set finds, slots or NO_SLOT. Times until a datagram's is over
 * stand above its slot. */
struct datagram_search {
	__u32 found;
	__u32 free;
	__u32 oldest_own;	/* of the network of the fragment's source */
	__u32 oldest_other;
	__u32 own;		/* how many */
	__u32 waiting;		/* of these */
};

struct datagram_set {
	struct bpf_spin_lock lock;
	/* Of who has the lock. It lies here as the verifier follows every number
	 * on the stack through every path, and none in a map. */
	struct datagram_search search;
	__u32 padding[9];
	struct datagram slots[DATAGRAM_SLOTS];
};
_Static_assert(sizeof(struct datagram_set) == 1024, "whole cache lines");

/* Whose address one is, bits; see `parties`. */
enum party {
	PARTY_VIRTUAL = 1,	/* a service's */
	PARTY_SERVER = 2,	/* a masqueraded real server's */
};

/* What the director is told of fragments that came too early; behind it, the
 * frame that it is to keep. Without one: the datagram's first fragment came. */
struct held_fragment {
	struct address caddr;
	struct address vaddr;
	__u32 id;
	__u32 ifindex;		/* where it came in */
	__u32 length;		/* of the frame; 0: none */
	__u8 protocol;		/* IPv6: 0, it names no datagram */
	__u8 padding[3];
};
_Static_assert(sizeof(struct held_fragment) == 48, "no hidden padding");

/* What resume_fragment returns: the interface by which the first fragment left, 0
 * for none; or, for a fragment that is to be kept on, this. */
enum resumption {
	RESUME_LATER = -1,
};

/* What the director is told of a packet that it is to fragment; behind it, the
 * frame as it would leave. */
struct oversized {
	__u32 ifindex;		/* where it leaves */
	__u32 length;		/* of the frame */
	__u16 mtu;		/* the largest packet that fits */
	__u16 l3;		/* where the packet begins in the frame: in a tunnel,
				 * behind the outer headers */
	__u16 tag;		/* 802.1Q, that is no part of the frame; 0: none */
	__u16 padding;
};
_Static_assert(sizeof(struct oversized) == 16, "no hidden padding");

/* How many frames left by a way that only Go knows. */
struct verdict_count {
	enum verdict verdict;
	__u32 frames;
};

#endif
