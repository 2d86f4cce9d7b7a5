/* SPDX-License-Identifier: MIT */
/*
 * Places of half-open flows, and who gets the next one: the part of
 * l4raw/core/share.py that ends no flow. So the kernel can do it too. share.h
 * tells what a place is.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_TURNS_H
#define L4RAW_SRC_TURNS_H

#include "insert.h"

/* The number of the place of a turn. */
L4_INLINE uint32_t l4_place_at_turn(const struct l4_tables *tables, uint32_t turn)
{
	return (turn & (l4_control_of(tables)->place_count - 1)) + 1;
}

/* What a place has: 0 if it is free. */
L4_INLINE uint32_t l4_in_place(const struct l4_tables *tables, uint32_t number)
{
	uint32_t *place = l4_half_open_at(tables, number);

	return place ? l4_load(place) : 0;
}

/* With the lock: the oldest turn follows, past places that are free. It never is ahead of the turn. */
L4_INLINE void l4_follow_turn(const struct l4_tables *tables, uint32_t most)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t turn = l4_load(&control->turn), oldest = l4_load(&control->oldest), i;

	if (turn - oldest > control->place_count)
		oldest = turn - control->place_count;
	for (i = 0; i < most && oldest != turn && !l4_in_place(tables, l4_place_at_turn(tables, oldest)); i++)
		oldest++;
	l4_store(&control->oldest, oldest);
}

/* The place at the turn, held now, with the lock. 0: it is not free, or there are as many as there may be. */
L4_INLINE uint32_t l4_take_turn(const struct l4_tables *tables)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t turn = l4_load(&control->turn), number = l4_place_at_turn(tables, turn);
	uint32_t *place = l4_half_open_at(tables, number);

	if (!place || l4_load(&control->half_open_used) >= control->half_open_limit || l4_load(place))
		return 0;
	l4_store(place, (uint32_t)L4_PLACE_TAKEN);
	l4_add(&control->half_open_used, 1u);
	l4_store(&control->turn, turn + 1);
	/* More than one for a turn, so that nobody has far to look for the oldest. */
	l4_follow_turn(tables, 2);
	return number;
}

/* Give back a place that l4_take_place() gave, and no flow has got. */
L4_INLINE void l4_drop_place(const struct l4_tables *tables, uint32_t number)
{
	l4_free_place(tables, number, L4_PLACE_TAKEN);
}

#endif
