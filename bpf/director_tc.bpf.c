// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * director_tc.bpf.c: the director's program once more, for tc. What becomes of a
 * packet is the same, for the same stages decide it.
 */
#include "frame_tc.h"
#include "director.bpf.c"
