/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* clock.h: the coarse clock of connections, in ticks. */
#ifndef FAIRLEAD_CLOCK_H
#define FAIRLEAD_CLOCK_H

#include <stdbool.h>
#include "maps.h"

/* Now. Jiffies are one load: the kernel's coarse clock costs more than all the
 * rest of an established connection's packet. */
static __always_inline __u32 now_tick(const struct settings *set)
{
	return (__u32)(bpf_jiffies64() >> TICK_JIFFIES_SHIFT) + set->clock_offset;
}

static __always_inline bool is_over(__u32 expires, __u32 now)
{
	return (__s32)(expires - now) <= 0;
}

#endif
