/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * checksum_change.h: what a checksum becomes when addresses or ports change.
 *
 * That of IP, TCP and UDP is a sum, so the difference is added (RFC 1624, equation
 * 3). SCTP's is a CRC, which is linear over exclusive or: the checksum changes by
 * that of the changed bits, followed by as many zeros as bytes come after them. Zeros
 * multiply it by a power of x, and a power of x is the product of those whose
 * exponents are powers of two. So a packet of any length takes at most sixteen
 * multiplications, and nothing of its payload is read. A wrong checksum stays wrong.
 */
#ifndef FAIRLEAD_CHECKSUM_CHANGE_H
#define FAIRLEAD_CHECKSUM_CHANGE_H

#include "checksum.h"
#include "packet.h"

/* One's complement sums of what was and what is, in words of any size. */
static __always_inline __u64 sum_address(const struct address *a)
{
	return (__u64)(__u32)a->high + (a->high >> 32) + (__u32)a->low + (a->low >> 32);
}

/* The complement, so that adding it takes the address away. */
static __always_inline __u64 less_address(const struct address *a)
{
	struct address complement = { ~a->high, ~a->low };

	return sum_address(&complement);
}

static __always_inline __u16 fold_sum(__u64 sum)
{
	return ~fold(sum);
}

/* A checksum after a change. */
static __always_inline __sum16 change_sum(__sum16 check, __u64 change)
{
	return ~fold_sum((__u16)~check + change);
}

/* A sum in 32 bits, with room to add to it. */
static __always_inline __u32 narrow(__u64 sum)
{
	return (sum & 0xffff) + (__u32)(sum >> 16);
}

/* A checksum after a change that is narrow. */
static __always_inline __sum16 change_narrow(__sum16 check, __u32 change)
{
	return fold32((__u16)~check + change);
}

enum {
	CRC_BITS = 32,
	LENGTH_BITS = 16,
};

/* x^(8 * 2^i) modulo the polynomial of CRC32c (RFC 9260, appendix A), its
 * coefficients from the uppermost bit down. */
static const __u32 crc_powers[LENGTH_BITS] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c,
	0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
	0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
	0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/* The product of two polynomials modulo that of CRC32c. Not static: see
 * answer_icmp. */
__noinline __u32 crc_multiply(__u32 a, __u32 b)
{
	const __u32 polynomial = 0x82f63b78;
	__u32 product = 0;

	for (int i = 0; i < CRC_BITS; i++) {
		product ^= b & -(a >> (CRC_BITS - 1) & 1);
		a <<= 1;
		b = b >> 1 ^ (polynomial & -(b & 1));
	}
	return product;
}

/* What the checksum of a packet changes by when four bytes of it do, with that many
 * bytes behind them. */
static __always_inline __u32 crc_change(__u32 changed, __u32 behind)
{
	/* The remainder of the four bytes themselves: the lowest bit of the first
	 * one is the highest coefficient, as in the checksum, and they are
	 * multiplied by x^32. */
	__u32 crc = crc_multiply(changed, crc_powers[2]);

	for (int i = 0; i < LENGTH_BITS; i++)
		if (behind >> i & 1)
			crc = crc_multiply(crc, crc_powers[i]);
	return crc;
}

#endif
