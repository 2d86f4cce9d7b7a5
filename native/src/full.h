/* SPDX-License-Identifier: MIT */
/*
 * How a new flow gets room while the flow table is full: the twin of
 * has_room() and make_way() in l4raw/core/full.py.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_FULL_H
#define L4RAW_SRC_FULL_H

#include "context.h"
#include "share.h"

/* Whether the flow of this entry may go for a newer one. */
L4_INLINE bool l4_may_go(const struct l4_context *context, struct l4_flow *entry)
{
	uint8_t state = l4_load(&entry->state);
	const struct l4_service *service;

	if (state == L4_FLOW_FREE || !l4_is_flow(state))
		return false;
	service = l4_service_at(context->tables, context->half, l4_load(&entry->service));
	return service && service->full == L4_FULL_EVICT_OLDEST;
}

/* For how long the flow of this entry was silent, in ms: the later one of both directions counts. */
L4_INLINE uint32_t l4_silent(const struct l4_tables *tables, struct l4_flow *entry)
{
	uint32_t now = l4_load(&l4_control_of(tables)->now);
	uint32_t silent = l4_elapsed(now, l4_load(&entry->last_seen)), other = l4_load(&entry->peer);
	struct l4_flow *peer = other ? l4_flow_at(tables, other - 1) : NULL;

	if (!peer)
		return silent;
	other = l4_elapsed(now, l4_load(&peer->last_seen));
	return other < silent ? other : silent;
}

/* The entry of the flow that may go and was silent longest, of those in these two buckets; or L4_NONE. */
L4_INLINE int64_t l4_oldest_in(const struct l4_context *context, struct l4_choice bucket, uint32_t *generation)
{
	uint32_t i, longest = 0;
	int64_t found = L4_NONE;

	for (i = 0; i < 2 * L4_SLOTS; i++) {
		uint32_t index = (i < L4_SLOTS ? bucket.first : bucket.second) * L4_SLOTS + i % L4_SLOTS;
		struct l4_flow *entry = l4_flow_at(context->tables, index);
		uint32_t lock = entry ? l4_load_acquire(&entry->lock) : 1, silent;

		/* An odd one: another thread is at work on it. */
		if ((lock & 1) || !l4_may_go(context, entry))
			continue;
		silent = l4_silent(context->tables, entry);
		if (found == L4_NONE || silent > longest) {
			found = index;
			longest = silent;
			*generation = lock;
		}
	}
	return found;
}

/* The entry of the flow that goes, from the first pair of buckets with one that may; or L4_NONE. */
L4_INLINE int64_t l4_oldest_near(const struct l4_context *context, uint32_t *generation)
{
	struct l4_choice bucket = l4_buckets_of(context->tables, context->headers.key.hash);
	uint32_t step, buckets = l4_control_of(context->tables)->buckets;
	int64_t found = L4_NONE;

	for (step = 0; step < L4_NEAR && found == L4_NONE; step++) {
		found = l4_oldest_in(context, bucket, generation);
		bucket.first = bucket.first + 1 < buckets ? bucket.first + 1 : 0;
		bucket.second = bucket.second + 1 < buckets ? bucket.second + 1 : 0;
	}
	return found;
}

/*
 * Have flows go until there is room for `entries`, if the service says so. False: another thread was in the way.
 * What it ends for a flow that then gets no entry for another reason stays ended.
 */
L4_APART bool l4_make_way(const struct l4_context *context, uint32_t entries)
{
	const struct l4_tables *tables = context->tables;
	const struct l4_service *service = l4_service_at(tables, context->half, context->service);
	const struct l4_control *control = l4_control_of(tables);
	uint32_t tries, generation = 0;
	int64_t index;

	if (!service || service->full != L4_FULL_EVICT_OLDEST)
		return true;
	/* Each one that goes has an entry or two. */
	for (tries = 0; tries < entries; tries++) {
		if (l4_load(&control->used) + entries <= control->flow_capacity)
			return true;
		index = l4_oldest_near(context, &generation);
		if (index == L4_NONE)
			return true;
		if (l4_free_flow(tables, (uint32_t)index, generation, L4_HOPS_IN_LIST))
			return false;
		l4_count_event(tables, L4_EVENT_EVICTED_OLDEST);
	}
	return true;
}

/* Reserve room for so many entries; who makes way for them, if nobody else does: see above. 0, L4_FULL or L4_BUSY. */
L4_INLINE int l4_reserve_for(const struct l4_context *context, uint32_t entries)
{
	const struct l4_tables *tables = context->tables;
	int result = l4_reserve(tables, entries) ? 0 : l4_make_room(tables, entries);

	if (result != L4_FULL)
		return result;
	if (!l4_make_way(context, entries))
		return L4_BUSY;
	return l4_reserve(tables, entries) ? 0 : L4_FULL;
}

#endif
