/* SPDX-License-Identifier: MIT */
/*
 * A new flow gets its entry, or two of them under NAT: the part of
 * l4raw/core/admit.py that comes last. The kernel does it too; it has its own
 * l4_reserve_for() and l4_take_place(), which end no other flow.
 *
 * Include memory.h and full.h first, or BPF's equivalents.
 */
#ifndef L4RAW_SRC_REMEMBER_H
#define L4RAW_SRC_REMEMBER_H

#include "pair.h"
#include "turns.h"

/* Whether there is no room for so many entries, and ports at rest have some. */
L4_INLINE bool l4_waits_for_rest(const struct l4_tables *tables, uint32_t entries)
{
	const struct l4_control *control = l4_control_of(tables);

	return l4_load(&control->resting) && l4_load(&control->used) + entries > control->flow_capacity;
}

/*
 * Give a flow its entry and, for NAT, that of its replies; see l4_insert_both(). `context`: of its frame, for who
 * makes room. The entry's index, or L4_FULL, L4_BUSY, L4_TAKEN, L4_REPLY_TAKEN or L4_NO_HOP.
 */
L4_INLINE int64_t l4_enter(const struct l4_tables *tables, const struct l4_context *context, const struct l4_key *key,
			   struct l4_values *values, const struct l4_key *reply_key, struct l4_values *reply,
			   uint64_t origin)
{
	uint32_t entries = reply_key ? 2 : 1;
	int64_t index = l4_begin(tables, key, reply_key);

	if (index)
		return index;
	values->packets = 1;
	/* Python makes ports at rest give way first. */
	index = l4_waits_for_rest(tables, entries) ? L4_FULL : l4_reserve_for(context, entries);
	if (!index) {
		values->sequence = l4_take_place(tables);
		if (!values->sequence)
			index = L4_BUSY;
		else if (reply_key)
			index = l4_insert_both(tables, key, values, reply_key, reply, origin);
		else
			index = l4_insert(tables, key, values);
		if (index < 0) {
			l4_drop_place(tables, values->sequence);
			l4_unreserve(tables, entries);
		}
	}
	l4_end(tables, key, reply_key);
	return index;
}

#endif
