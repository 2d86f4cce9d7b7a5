/* SPDX-License-Identifier: MIT */
/*
 * Where a frame is sent: a next hop, as the packet path reads it. hops.h says
 * who may write one.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_WHERE_H
#define L4RAW_SRC_WHERE_H

#include "l4raw_abi.h"

/* The first 8 bytes of a next hop: where it is, and whether that is known. */
struct l4_where {
	uint8_t mac[6];
	uint8_t arm;
	uint8_t known;
};
L4_ASSERT(sizeof(struct l4_where) == 8, "where a hop is fits in one word")

L4_INLINE uint64_t *l4_where_of(struct l4_next_hop *hop)
{
	return (uint64_t *)(void *)hop;
}

/* `index` 0, or one that does not exist, is nowhere. */
L4_INLINE struct l4_where l4_where_is(const struct l4_tables *tables, uint32_t index)
{
	struct l4_where where = { .known = 0 };
	struct l4_next_hop *hop = l4_next_hop_at(tables, index);
	uint64_t word;

	if (hop) {
		word = l4_load(l4_where_of(hop));
		l4_copy(&where, &word, sizeof(where));
	}
	return where;
}

#endif
