/* SPDX-License-Identifier: MIT */
/*
 * How a frame is counted: the twin of count() in l4raw/engine/base.py.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_TRAFFIC_H
#define L4RAW_SRC_TRAFFIC_H

#include "l4raw_abi.h"

/* A frame of `size` bytes with this verdict; `backend` 0: it has none. */
L4_INLINE void l4_count_frame(const struct l4_tables *tables, uint32_t verdict, uint32_t backend, uint32_t size)
{
	struct l4_queue *queue = l4_queue_of(tables);
	struct l4_traffic *traffic = l4_traffic_at(tables, backend);

	if (!queue || verdict >= L4_VERDICT_COUNT)
		return;
	l4_count_up(&queue->verdicts[verdict], 1);
	if (!traffic || !backend)
		return;
	if (verdict >= L4_SENT) {
		l4_count_up(&traffic->dropped, 1);
		return;
	}
	l4_count_up(verdict == L4_FORWARD ? &traffic->packets : &traffic->reply_packets, 1);
	l4_count_up(verdict == L4_FORWARD ? &traffic->bytes : &traffic->reply_bytes, size);
}

#endif
