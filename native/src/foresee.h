/* SPDX-License-Identifier: MIT */
/*
 * What a new flow will read and write, on its way into the cache: the slot of
 * the ring, then the tags where its replies will be looked for, then the entry
 * that those will get. For a burst only (helper.c). Nothing here changes
 * anything or decides anything: a guess that is wrong costs a cache miss.
 *
 * Include memory.h first.
 */
#ifndef L4RAW_SRC_FORESEE_H
#define L4RAW_SRC_FORESEE_H

#include "admit.h"

/* The slot that names its backend; NULL: it is not looked for. `ahead`: new flows before it in the burst. */
L4_INLINE const uint16_t *l4_foresee_slot(const struct l4_context *context, uint32_t ahead)
{
	int number = l4_service_of(context);
	const struct l4_service *service;
	const uint32_t *cursor;
	const uint16_t *slot;

	if (number < 0)
		return NULL;
	service = l4_service_at(context->tables, context->half, (uint32_t)number);
	cursor = l4_cursor_at(context->tables, (uint32_t)number);
	if (!service || !cursor || service->mode != L4_NAT || !service->ring_size || service->rule >= L4_RULE_LEAST)
		return NULL;
	slot = l4_ring_at(context->tables, context->half,
			  service->ring_start + l4_slot_of(context, service, service->ring_size, l4_load(cursor) + ahead));
	__builtin_prefetch(slot, 0);
	return slot;
}

/* The buckets of the replies' entry, whose tags are on their way. */
L4_INLINE struct l4_choice l4_foresee_reply(const struct l4_context *context, uint32_t number)
{
	const struct l4_backend *backend = l4_backend_at(context->tables, context->half, number);
	struct l4_choice buckets = { 0, 0 };

	if (backend) {
		const struct l4_key *of = &context->headers.key;
		struct l4_key key = l4_reply_key(context->tables, of, backend, of->src, l4_first16(of->ports));

		buckets = l4_buckets_of(context->tables, key.hash);
	}
	__builtin_prefetch(&context->tables->tags[buckets.first], 0);
	__builtin_prefetch(&context->tables->tags[buckets.second], 0);
	return buckets;
}

/* An entry that will be freed, and its tag. */
L4_INLINE struct l4_flow *l4_foresee_free(const struct l4_tables *tables, uint32_t index)
{
	struct l4_flow *entry = l4_flow_at(tables, index);

	if (entry) {
		__builtin_prefetch(entry, 1);
		__builtin_prefetch(&tables->tags[index / L4_SLOTS], 1);
	}
	return entry;
}

/* The half-open flow that will make room for a new one; NULL: nobody goes. `ahead`: new flows before that one. */
L4_INLINE struct l4_flow *l4_foresee_end(const struct l4_tables *tables, uint32_t ahead)
{
	const struct l4_control *control = l4_control_of(tables);
	uint32_t value;

	if (l4_load(&control->half_open_used) + ahead < control->half_open_limit)
		return NULL;
	value = l4_in_place(tables, l4_place_at_turn(tables, l4_load(&control->oldest) + ahead));
	return value && value != L4_PLACE_TAKEN ? l4_foresee_free(tables, value - 1) : NULL;
}

/* Its other direction, once it is here itself. */
L4_INLINE void l4_foresee_peer(const struct l4_tables *tables, const struct l4_flow *entry)
{
	uint32_t peer = l4_load(&entry->peer);

	if (peer)
		l4_foresee_free(tables, peer - 1);
}

#endif
