/* SPDX-License-Identifier: MIT */
/*
 * A DSR flow gets its entry: the part of l4raw/core/admit.py that comes last,
 * where one direction passes here. The kernel does it too; it has its own
 * l4_reserve_for() and l4_take_place(), which end no other flow.
 *
 * Include memory.h and full.h first, or BPF's equivalents.
 */
#ifndef L4RAW_SRC_REMEMBER_H
#define L4RAW_SRC_REMEMBER_H

#include "context.h"
#include "turns.h"

/* What an entry says of a new flow with this key. */
L4_INLINE struct l4_values l4_values_of(const struct l4_tables *tables, const struct l4_key *key, uint32_t service,
					uint32_t backend)
{
	return (struct l4_values){
		.ports = key->ports,
		.protocol = (uint8_t)key->protocol,
		.state = key->protocol == IPPROTO_TCP ? L4_FLOW_HALF_OPEN : L4_FLOW_UDP_NEW,
		.service = (uint16_t)service,
		.backend = (uint16_t)backend,
		.last_seen = l4_load(&l4_control_of(tables)->now),
	};
}

/* Whether there is no room for so many entries, and ports at rest have some. */
L4_INLINE bool l4_waits_for_rest(const struct l4_tables *tables, uint32_t entries)
{
	const struct l4_control *control = l4_control_of(tables);

	return l4_load(&control->resting) && l4_load(&control->used) + entries > control->flow_capacity;
}

/*
 * Give a flow of one direction its entry. `context`: of its frame, for who makes room. The entry's index, or L4_FULL
 * or L4_BUSY or L4_TAKEN.
 */
L4_INLINE int64_t l4_enter(const struct l4_tables *tables, const struct l4_context *context, const struct l4_key *key,
			   struct l4_values *values)
{
	int64_t index = l4_begin(tables, key, NULL);

	if (index)
		return index;
	values->packets = 1;
	/* Python makes ports at rest give way first. */
	index = l4_waits_for_rest(tables, 1) ? L4_FULL : l4_reserve_for(context, 1);
	if (!index) {
		values->sequence = l4_take_place(tables);
		index = values->sequence ? l4_insert(tables, key, values, NULL, NULL) : L4_BUSY;
		if (index < 0) {
			l4_drop_place(tables, values->sequence);
			l4_unreserve(tables, 1);
		}
	}
	l4_end(tables, key, NULL);
	return index;
}

#endif
