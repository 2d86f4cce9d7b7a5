/* SPDX-License-Identifier: MIT */
/*
 * A new flow gets its backend and its entry, or a verdict says why not: the
 * twin of l4raw/core/admit.py. Nothing is half done: whatever is refused, or
 * missed, leaves flows and next hops as they were; of a cursor, a turn is lost if
 * another thread took one too, and of a client's flows one is, if the lock of that
 * was held all the time. But a half-open flow that made room for it is gone.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_ADMIT_H
#define L4RAW_SRC_ADMIT_H

#include "affinity.h"
#include "counts.h"
#include "full.h"
#include "remember.h"
#include "screen.h"

/* Remember a DSR flow, whose key is not in the table: l4_enter(). */
L4_INLINE int64_t l4_insert_one(struct l4_context *context, const struct l4_backend *backend, uint32_t number)
{
	struct l4_values values = l4_values_of(context->tables, &context->headers.key, backend->service, number);

	return l4_enter(context->tables, context, &context->headers.key, &values, NULL, NULL, 0);
}

/* Remember a NAT flow, whose replies go where this frame came from: l4_enter(). */
L4_INLINE int64_t l4_insert_pair(struct l4_context *context, const struct l4_backend *backend, uint32_t number,
				 const struct l4_key *reply_key)
{
	const struct l4_tables *tables = context->tables;
	struct l4_values values = l4_values_of(tables, &context->headers.key, backend->service, number);
	struct l4_values reply = l4_values_of(tables, reply_key, backend->service, number);
	uint64_t origin = l4_origin_of(context);

	if (!origin)
		return L4_BUSY;
	return l4_enter(tables, context, &context->headers.key, &values, reply_key, &reply, origin);
}

/* The address and port of a pool that have this number: Pool.end() in l4raw/core/snat.py. */
L4_INLINE bool l4_source_at(const struct l4_context *context, const struct l4_service *service, uint32_t number,
			    uint64_t *address, uint16_t *port_be)
{
	const struct l4_snat *range = NULL;
	uint32_t i;

	for (i = 0; i < L4_SNAT_RANGES && i < service->snat_ranges; i++) {
		const struct l4_snat *next = l4_snat_at(context->tables, context->half, service->snat_start + i);

		if (!next || next->start > number)
			break;
		range = next;
	}
	if (!range)
		return false;
	l4_copy(address, range->address, sizeof(range->address));
	*port_be = l4_htons((uint16_t)(range->port + (number - range->start)));
	return true;
}

/*
 * The same for fullnat, from the first address and port of the flow's walk
 * through the pool whose reply key is absent: Pool.walk() in l4raw/core/snat.py.
 * L4_REPLY_TAKEN: it is none of the first L4_PORT_TRIES.
 */
L4_INLINE int64_t l4_insert_from_pool(struct l4_context *context, const struct l4_service *service,
				      const struct l4_backend *backend, uint32_t number, struct l4_key *reply_key)
{
	uint64_t value = l4_spread(context->headers.key.hash), address[2];
	uint32_t at = l4_scale(value >> 32, service->snat_modulus);
	uint32_t step = 1 + l4_scale(value, service->snat_modulus - 1);
	uint32_t tries, generation;
	uint16_t port_be;
	int64_t index;

	for (tries = 0; tries < L4_PORT_TRIES; tries++) {
		if (at < service->snat_ports) {
			if (!l4_source_at(context, service, at, address, &port_be))
				return L4_BUSY;
			*reply_key = l4_reply_key(context->tables, &context->headers.key, backend, address, port_be);
			/* Without its stripe first, as most are taken when the pool fills. */
			index = l4_find(context->tables, reply_key, &generation);
			if (index == L4_NONE)
				index = l4_insert_pair(context, backend, number, reply_key);
			else if (index >= 0)
				index = L4_REPLY_TAKEN;
			if (index != L4_REPLY_TAKEN)
				return index;
		}
		at += step;
		if (at >= service->snat_modulus)
			at -= service->snat_modulus;
	}
	return L4_REPLY_TAKEN;
}

/* Remember a new flow as the mode of its service has it. `reply_key` is set where replies pass here too. */
L4_INLINE int64_t l4_remember(struct l4_context *context, const struct l4_service *service,
			      const struct l4_backend *backend, uint32_t number, struct l4_key *reply_key)
{
	const struct l4_key *key = &context->headers.key;

	if (service->mode == L4_FULLNAT)
		return l4_insert_from_pool(context, service, backend, number, reply_key);
	if (service->mode != L4_NAT)
		return l4_insert_one(context, backend, number);
	*reply_key = l4_reply_key(context->tables, key, backend, key->src, l4_first16(key->ports));
	return l4_insert_pair(context, backend, number, reply_key);
}

/* The verdict for an entry that could not be made. */
L4_INLINE int l4_refuse(struct l4_context *context, const struct l4_service *service, int64_t why)
{
	if (why == L4_BUSY)
		return l4_miss_as(context, L4_MISS_BUSY);
	if (why == L4_TAKEN)
		return l4_miss_as(context, L4_MISS_CHANGED);
	if (why == L4_REPLY_TAKEN)
		return service->mode == L4_FULLNAT ? l4_miss_as(context, L4_MISS_PORTS) : L4_DROP_REPLY_KEY_TAKEN;
	if (why == L4_NO_HOP)
		return L4_DROP_NEXT_HOPS_FULL;
	if (l4_load(&l4_control_of(context->tables)->resting))
		return l4_miss_as(context, L4_MISS_REST);
	return L4_DROP_FLOWS_FULL;
}

/* The new flow did not come about. */
L4_INLINE void l4_uncount(const struct l4_context *context, uint32_t service, uint32_t level)
{
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++)
		if (l4_limit_finish(context->tables, service, context->headers.key.src, level))
			break;
}

/* A backend's number: the client's choice, or what the ring says. 0: `verdict` says why there is none. */
L4_INLINE uint32_t l4_choose(struct l4_context *context, const struct l4_service *service,
			     const struct l4_affinity *affinity, uint32_t *cursor, uint32_t *turn, bool *remembers,
			     int *verdict)
{
	struct l4_in_ring found = { l4_owner_of(context, service), false };

	if (affinity->backend)
		return affinity->backend;
	*remembers = !found.backend;
	if (found.backend)
		return found.backend;
	if (affinity->index == L4_BUSY || service->rule >= L4_RULE_LEAST) {
		*verdict = l4_miss_as(context, affinity->index == L4_BUSY ? L4_MISS_BUSY : L4_MISS_RULE);
		return 0;
	}
	if (!service->ring_size) {
		*verdict = L4_DROP_NO_BACKEND;
		return 0;
	}
	if (service->rule == L4_RULE_CURSOR)
		*turn = l4_add(cursor, 1u);
	found = l4_in_ring_of(context, service, *turn);
	if (!found.backend)
		*verdict = l4_miss_as(context, L4_MISS_CHANGED);
	*remembers = found.remembers;
	return found.backend;
}

/* The frame is left to Python, which takes the turn again. */
L4_INLINE void l4_leave_turn(const struct l4_service *service, const struct l4_affinity *affinity, uint32_t *cursor,
			     uint32_t turn)
{
	if (!affinity->backend)
		l4_turn_back(service, cursor, turn);
}

/* admit(): choose a backend for a new flow and remember the choice, or end with the verdict that refuses it. */
L4_INLINE int l4_admit(struct l4_context *context, uint32_t service_number)
{
	const struct l4_tables *tables = context->tables;
	const struct l4_service *service = l4_service_at(tables, context->half, service_number);
	uint32_t *cursor = l4_cursor_at(tables, service_number);
	const struct l4_backend *backend;
	struct l4_traffic *traffic;
	struct l4_affinity affinity = { .index = L4_NONE };
	uint32_t number, turn = 0;
	struct l4_key reply_key;
	int64_t index;
	bool remembers = true;
	int refused = L4_MISS;

	if (!service || !cursor)
		return l4_miss_as(context, L4_MISS_CHANGED);
	context->service = service_number;
	refused = l4_screen(context, service);
	if (refused != L4_UNDECIDED)
		return refused;
	if (service->affinity)
		affinity = l4_recall_choice(context, service);
	number = l4_choose(context, service, &affinity, cursor, &turn, &remembers, &refused);
	if (!number)
		return refused;
	refused = l4_reach(context, number);
	if (refused == L4_MISS)
		l4_leave_turn(service, &affinity, cursor, turn);
	if (refused != L4_FORWARD || !remembers)
		return refused;
	backend = l4_backend_at(tables, context->half, number);
	traffic = l4_traffic_at(tables, number);
	if (!backend || !traffic)
		return l4_miss_as(context, L4_MISS_CHANGED);

	refused = l4_limit_begin(tables, service, service_number, context->headers.key.src, 1);
	if (refused != L4_UNDECIDED) {
		if (refused != L4_MISS)
			return refused;
		l4_leave_turn(service, &affinity, cursor, turn);
		return l4_miss_as(context, L4_MISS_BUSY);
	}
	index = l4_remember(context, service, backend, number, &reply_key);
	if (index < 0) {
		int verdict = l4_refuse(context, service, index);

		l4_uncount(context, service_number, verdict == L4_MISS ? L4_LEVEL_OF_FLOW : 0);
		if (verdict == L4_MISS)
			l4_leave_turn(service, &affinity, cursor, turn);
		if (verdict != L4_DROP_FLOWS_FULL || service->full != L4_FULL_STATELESS)
			return verdict;
		l4_count_event(tables, L4_EVENT_STATELESS);
		return L4_FORWARD;
	}
	context->flow = index;
	l4_count_up(&traffic->flows, 1);
	if (service->affinity) {
		int why = l4_remember_choice(context, &affinity, number);

		if (why && l4_undo_flow(context))
			return l4_miss_as(context, why == L4_BUSY ? L4_MISS_BUSY : L4_MISS_CHANGED);
	}
	if (l4_is_nat(service->mode))
		l4_nat_to(context, &reply_key);
	return L4_FORWARD;
}

#endif
