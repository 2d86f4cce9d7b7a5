/* SPDX-License-Identifier: MIT */
/*
 * Places of half-open flows, and who goes when there are as many as there may
 * be: the twin of l4raw/core/share.py.
 *
 * A place is a word: the index of an entry plus 1, 0, or L4_PLACE_TAKEN. Who
 * has the share's lock takes one: the one at the turn. He holds it until the
 * flow is in the table, which is then named. Whoever has the entry's lock gives
 * it back, by an atomic compare-and-exchange: so a place is given back once.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_SHARE_H
#define L4RAW_SRC_SHARE_H

#include "free.h"
#include "turns.h"

/* Count an event for this thread's queue. */
L4_INLINE void l4_count_event(const struct l4_tables *tables, uint32_t event)
{
	if (event < L4_EVENT_COUNT)
		l4_count_up(&l4_queue_of(tables)->events[event], 1);
}

/*
 * The place of the oldest half-open flow, with the lock; places that somebody is about to fill are passed over.
 * L4_NONE: there is none; L4_BUSY: it is none of the next L4_LOOK.
 */
L4_INLINE int64_t l4_oldest_place(const struct l4_tables *tables)
{
	const struct l4_control *control = l4_control_of(tables);
	uint32_t at, look, number, value;

	l4_follow_turn(tables, L4_LOOK);
	at = l4_load(&control->oldest);
	for (look = 0; look < L4_LOOK; look++, at++) {
		if (at == l4_load(&control->turn))
			return L4_NONE;
		number = l4_place_at_turn(tables, at);
		value = l4_in_place(tables, number);
		if (value && value != L4_PLACE_TAKEN)
			return number;
	}
	return L4_BUSY;
}

/* A place that is held now, with the lock; or 0, and in `oldest` the place whose flow must go first, if one was found. */
L4_INLINE uint32_t l4_next_place(const struct l4_tables *tables, int64_t *oldest)
{
	const struct l4_control *control = l4_control_of(tables);
	uint32_t number = l4_take_turn(tables);

	if (number)
		return number;
	/* There are as many as there may be; or the turn has come round. */
	*oldest = l4_load(&control->half_open_used) >= control->half_open_limit ?
			  l4_oldest_place(tables) :
			  l4_place_at_turn(tables, l4_load(&control->turn));
	return 0;
}

/* Have the flow go that has a place. False: another thread is at work on it. */
L4_INLINE bool l4_evict_at(const struct l4_tables *tables, uint32_t number)
{
	uint32_t value = l4_in_place(tables, number), generation;
	struct l4_flow *entry = value && value != L4_PLACE_TAKEN ? l4_flow_at(tables, value - 1) : NULL;
	int result;

	if (!entry)
		return !value;
	generation = l4_load_acquire(&entry->lock);
	if (generation & 1)
		return false;
	result = l4_free_flow_at(tables, value - 1, generation, number, L4_HOPS_IN_LIST);
	if (!result)
		l4_count_event(tables, L4_EVENT_EVICTED_HALF_OPEN);
	/* It is established by now, or gone; or a race has left the place to nobody, and the entry does not know it. */
	else if (result == L4_NONE)
		l4_free_place(tables, number, value);
	return result != L4_BUSY;
}

/* A place for a new flow, from 1 on, held; the oldest half-open flow has gone if there was no room. 0: in vain, for now. */
L4_APART uint32_t l4_take_place(const struct l4_tables *tables)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t tries, number;
	int64_t oldest;

	for (tries = 0; tries < L4_TRIES; tries++) {
		oldest = L4_BUSY;
		if (!l4_try_lock(&control->share_lock))
			return 0;
		number = l4_next_place(tables, &oldest);
		l4_unlock(&control->share_lock);
		if (number)
			return number;
		/* Without the share's lock, as it takes others. */
		if (oldest < 0 || !l4_evict_at(tables, (uint32_t)oldest))
			return 0;
	}
	return 0;
}

/* Have the oldest half-open flow go. 0; L4_NONE: there is none; or L4_BUSY. */
L4_INLINE int l4_evict_half_open(const struct l4_tables *tables)
{
	struct l4_control *control = l4_control_of(tables);
	int64_t number;

	if (!l4_try_lock(&control->share_lock))
		return L4_BUSY;
	number = l4_oldest_place(tables);
	l4_unlock(&control->share_lock);
	if (number < 0)
		return (int)number;
	return l4_evict_at(tables, (uint32_t)number) ? 0 : L4_BUSY;
}

/*
 * l4_reserve(); while the table is full, half-open flows make room. 0: it is reserved; L4_FULL: none of them is left;
 * or L4_BUSY.
 */
L4_APART int l4_make_room(const struct l4_tables *tables, uint32_t entries)
{
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++) {
		if (l4_reserve(tables, entries))
			return 0;
		if (l4_evict_half_open(tables) == L4_NONE)
			return L4_FULL;
	}
	return L4_BUSY;
}

#endif
