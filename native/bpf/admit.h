/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * New flows that tables can answer: of a DSR service whose backend a ring or
 * a cursor names, and that has neither limits nor affinity, as long as there
 * is room. All else is the helper's, which begins anew. What did not come
 * about leaves nothing behind, but that a turn is lost, of the service's
 * cursor or of the half-open share, if another CPU was at work on the same.
 */
#ifndef L4RAW_BPF_ADMIT_H
#define L4RAW_BPF_ADMIT_H

#include "tables.h"
#include "../src/screen.h"
#include "../src/turns.h"

/* Of share.h: no flow goes for a new one. 0: no place is free, or its lock is held. */
L4_INLINE uint32_t l4_take_place(const struct l4_tables *tables)
{
	uint32_t number;

	if (!l4_try_lock(&control.share_lock))
		return 0;
	number = l4_take_turn(tables);
	l4_unlock(&control.share_lock);
	return number;
}

/* Of full.h, likewise. */
L4_INLINE int l4_reserve_for(const struct l4_context *context, uint32_t entries)
{
	(void)context;
	return l4_reserve(NULL, entries) ? 0 : L4_FULL;
}

#include "../src/remember.h"

/* l4_enter(), verified by itself: see subprograms.h. */
__attribute__((noinline)) int64_t enter(const struct l4_key *key, uint32_t service, uint32_t backend)
{
	struct l4_values values;

	if (!key)
		return L4_BUSY;
	values = l4_values_of(NULL, key, service, backend);
	/* The overflow area is the helper's: asked before a place is taken, whose turn would be lost. */
	return l4_free_of(NULL, l4_buckets_of(NULL, key->hash)) < 0 ? L4_FULL : l4_enter(NULL, NULL, key, &values);
}

/* Whether a new flow is admitted here. A SYN may have its MSS lowered; a frame in mid-stream has an owner. */
static __always_inline bool is_for_tables(const struct l4_context *context, const struct l4_service *service)
{
	if (l4_is_nat(service->mode) || service->rule >= L4_RULE_LEAST || !service->ring_size || service->affinity)
		return false;
	if (service->flows || service->new_per_s || service->client_flows || service->client_new_per_s)
		return false;
	return !(service->mss_clamp && (context->headers.flags & L4_TCP_SYN)) &&
	       !(service->owners && !l4_opens(&context->headers));
}

/* Where all CPUs count the flows of a backend: see current_flows() in l4raw/engine/shared.py. */
static __always_inline uint64_t *flows_of(uint32_t backend)
{
	uint32_t at = control.first_cpu * control.backend_limit + backend;
	struct l4_traffic *first = backend < control.backend_limit ? bpf_map_lookup_elem(&traffic, &at) : NULL;

	return first ? &first->flows : NULL;
}

/* Whether there may be room: asked first, as in a flood there is none, and the helper needs the share's lock. */
static __always_inline bool has_room(void)
{
	return l4_load(&control.half_open_used) < control.half_open_limit &&
	       l4_load(&control.used) < control.flow_capacity;
}

/* l4_enter(), counted. False: it is not in the table. */
static __always_inline bool enter_and_count(struct l4_context *context, uint32_t number)
{
	struct l4_usage *of_service = l4_usage_at(context->tables, context->service);
	uint64_t *of_backend = flows_of(number);

	if (!of_service || !of_backend)
		return false;
	l4_add(&of_service->flows, 1u);
	if (enter(&context->headers.key, context->service, number) < 0) {
		l4_add(&of_service->flows, -1u);
		return false;
	}
	l4_add(of_backend, 1ull);
	return true;
}

/* l4_admit(), after l4_see(). L4_FORWARD, or L4_MISS. */
static __always_inline int admit(struct l4_context *context)
{
	int number = l4_service_of(context);
	const struct l4_service *service = number < 0 ? NULL : l4_service_at(NULL, context->half, (uint32_t)number);
	uint32_t *cursor = service ? l4_cursor_at(NULL, (uint32_t)number) : NULL, turn = 0;
	struct l4_in_ring found;

	/* Where only changes are remembered, most need no room. */
	if (!service || !cursor || !is_for_tables(context, service) || (!service->owners && !has_room()))
		return L4_MISS;
	context->service = (uint32_t)number;
	if (l4_screen(context, service) != L4_UNDECIDED)
		return L4_MISS;
	if (service->rule == L4_RULE_CURSOR)
		turn = l4_add(cursor, 1u);
	found = l4_in_ring_of(context, service, turn);
	if (found.backend && l4_reach(context, found.backend) == L4_FORWARD &&
	    (!found.remembers || enter_and_count(context, found.backend)))
		return L4_FORWARD;
	l4_turn_back(service, cursor, turn);
	return L4_MISS;
}

#endif
