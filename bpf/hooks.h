/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hooks.h: where a trace looks on. The director's own program is built with
 * these, which are empty; the tracing one with those of trace.h, which is
 * included in place of this one.
 */
#ifndef FAIRLEAD_HOOKS_H
#define FAIRLEAD_HOOKS_H

#include "abi.h"

/* A packet leaves by this way out. */
static __always_inline void on_verdict(enum verdict v)
{
	(void)v;
}

/* A packet is counted at the real server that it goes to. */
static __always_inline void on_packet(__u32 server)
{
	(void)server;
}

/* A scheduler is about to look at the servers of an edition. */
static __always_inline void on_schedule(struct edition *edition)
{
	(void)edition;
}

/* It has chosen. */
static __always_inline void on_scheduled(const struct edition *edition)
{
	(void)edition;
}

/* A server of the edition was chosen by hash. */
static __always_inline void on_hashed(struct edition *edition)
{
	(void)edition;
}

#endif
