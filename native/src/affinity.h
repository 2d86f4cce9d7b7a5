/* SPDX-License-Identifier: MIT */
/*
 * A client's new flows go where its last one went: the twin of
 * l4raw/core/affinity.py, which says how a choice is stored.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_AFFINITY_H
#define L4RAW_SRC_AFFINITY_H

#include "context.h"
#include "share.h"

/* What the flow table says of a client and a service. */
struct l4_affinity {
	struct l4_key key;
	int64_t index;             /* L4_NONE: nothing; or L4_BUSY */
	uint32_t generation;
	uint32_t backend;          /* 0: what it says holds no more */
};

/* recall() */
L4_APART struct l4_affinity l4_recall_choice(const struct l4_context *context, const struct l4_service *service)
{
	const struct l4_tables *tables = context->tables;
	const struct l4_control *control = l4_control_of(tables);
	const uint64_t vip[2] = { l4_read64(service->vip), l4_read64(service->vip + 8) };
	struct l4_affinity choice = {
		.key = l4_make_key(&control->key, context->headers.key.src, vip,
				   l4_ports(l4_htons((uint16_t)context->service), 0), 0),
	};
	const struct l4_backend *backend;
	struct l4_flow *entry;
	uint32_t number, last_seen;

	choice.index = l4_find(tables, &choice.key, &choice.generation);
	entry = choice.index < 0 ? NULL : l4_flow_at(tables, (uint32_t)choice.index);
	if (!entry)
		return choice;
	number = l4_load(&entry->backend);
	last_seen = l4_load(&entry->last_seen);
	if (!l4_unchanged(entry, choice.generation)) {
		choice.index = L4_BUSY;
		return choice;
	}
	backend = l4_backend_at(tables, context->half, number);
	if (l4_load(&control->now) - last_seen <= service->affinity && backend && backend->takes_flows)
		choice.backend = number;
	return choice;
}

/* FlowTable.renew() in l4raw/core/flows.py. Without the lock as long as the backend stays: see l4_touch(). */
L4_INLINE bool l4_renew(const struct l4_tables *tables, uint32_t index, uint32_t generation, uint32_t backend,
			uint32_t now)
{
	struct l4_flow *entry = l4_flow_at(tables, index);

	if (!entry || l4_load_acquire(&entry->lock) != generation)
		return false;
	if (l4_load(&entry->backend) == backend) {
		l4_store(&entry->last_seen, now);
		return true;
	}
	if (!l4_take(entry, generation))
		return false;
	l4_store(&entry->backend, (uint16_t)backend);
	l4_store(&entry->last_seen, now);
	l4_publish(entry);
	return true;
}

/* A new entry. 0; or L4_TAKEN or L4_BUSY. */
L4_INLINE int l4_insert_choice(const struct l4_tables *tables, const struct l4_key *key, const struct l4_values *values)
{
	const struct l4_control *control = l4_control_of(tables);
	int64_t index = L4_FULL;
	int why;

	if (l4_load(&control->used) < control->flow_capacity - control->flow_capacity / L4_FLOWS_ALONE) {
		why = l4_begin(tables, key, NULL);
		if (why)
			return why;
		if (l4_reserve(tables, 1)) {
			index = l4_insert(tables, key, values);
			if (index < 0)
				l4_unreserve(tables, 1);
		}
		l4_end(tables, key, NULL);
	}
	if (index == L4_FULL)
		l4_count_event(tables, L4_EVENT_NO_AFFINITY);
	return index == L4_BUSY ? L4_BUSY : 0;
}

/* remember(): 0; or L4_TAKEN, if another thread chose meanwhile, or L4_BUSY. */
L4_APART int l4_remember_choice(const struct l4_context *context, const struct l4_affinity *choice,
				 uint32_t backend)
{
	const struct l4_tables *tables = context->tables;
	uint32_t now = l4_load(&l4_control_of(tables)->now);
	struct l4_values values = {
		.ports = choice->key.ports,
		.state = L4_FLOW_AFFINITY,
		.service = (uint16_t)context->service,
		.backend = (uint16_t)backend,
		.last_seen = now,
	};

	if (choice->index >= 0)
		return l4_renew(tables, (uint32_t)choice->index, choice->generation, backend, now) || choice->backend ?
			       0 : L4_TAKEN;
	return l4_insert_choice(tables, &choice->key, &values);
}

/* Another thread chose meanwhile: this flow, of which nothing is sent, goes. False: it could not, and stays. */
L4_APART bool l4_undo_flow(const struct l4_context *context)
{
	struct l4_flow *entry = l4_flow_at(context->tables, (uint32_t)context->flow);
	uint32_t tries;

	for (tries = 0; entry && tries < L4_TRIES; tries++)
		if (!l4_free_flow(context->tables, (uint32_t)context->flow, l4_load_acquire(&entry->lock),
				  L4_HOPS_IN_LIST))
			return true;
	return false;
}

#endif
