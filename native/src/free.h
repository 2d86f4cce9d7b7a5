/* SPDX-License-Identifier: MIT */
/*
 * How a flow leaves the table: both of its entries, the reference to its
 * client's next hop, and the count of its backend's flows, at once or not at
 * all. The twin of Tables.free() in l4raw/core/tables.py. flows.h says who may
 * write what.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_FREE_H
#define L4RAW_SRC_FREE_H

#include "counts.h"
#include "hops.h"

/* What is taken to free a flow. `peer` is NULL where there is one entry. */
struct l4_ending {
	struct l4_flow *entry;
	struct l4_flow *peer;
	uint32_t index, peer_index;
	uint32_t generation;       /* of the entry, when somebody decided that it goes */
	uint32_t hop;              /* learned from the client; 0: none */
	uint32_t backend;
	uint8_t state;             /* enum l4_flow_state */
	uint32_t service;
	uint64_t client[2];        /* its address */
	uint32_t beyond;           /* how many of its entries are in the overflow area */
	uint32_t place;            /* it goes only if it is half-open, and this is its place; 0: in any case */
};

/* A port at rest is no flow: that one was counted when it ended. Nor is a client's choice. */
L4_INLINE bool l4_is_flow(uint8_t state)
{
	return state != L4_FLOW_RESTING && state != L4_FLOW_AFFINITY;
}

/* Take an entry that still is what it was at `generation`. 0; L4_NONE: it is not; or L4_BUSY. */
L4_INLINE int l4_take_as(struct l4_flow *entry, uint32_t generation)
{
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++) {
		if (l4_take(entry, generation))
			return 0;
		if ((l4_load(&entry->lock) & ~1u) != generation)
			return L4_NONE;
		l4_relax();
	}
	return L4_BUSY;
}

/* Let go an entry that l4_take() took, as it was. */
L4_INLINE void l4_let_go(struct l4_flow *entry, uint32_t generation)
{
	l4_store_release(&entry->lock, generation);
}

/* Read what has to go with the entry at `index`. False: it is free, or no more what it was. */
L4_INLINE bool l4_see_ending(const struct l4_tables *tables, uint32_t index, struct l4_ending *ending)
{
	uint32_t in_buckets = l4_control_of(tables)->buckets * L4_SLOTS;
	uint32_t peer = l4_load(&ending->entry->peer);
	struct l4_flow *from_client = ending->entry;

	ending->state = l4_load(&ending->entry->state);
	ending->service = l4_load(&ending->entry->service);
	ending->backend = l4_load(&ending->entry->backend);
	ending->hop = l4_load(&ending->entry->next_hop);
	ending->beyond = index >= in_buckets;
	ending->peer = NULL;
	if (peer) {
		ending->peer_index = peer - 1;
		ending->peer = l4_flow_at(tables, peer - 1);
		if (!ending->peer)
			return false;
		ending->beyond += peer - 1 >= in_buckets;
		/* One direction has it: the one that goes to the client. */
		if (ending->hop)
			from_client = ending->peer;
		else
			ending->hop = l4_load(&ending->peer->next_hop);
	}
	ending->client[0] = l4_load(&l4_words(from_client)[0]);
	ending->client[1] = l4_load(&l4_words(from_client)[1]);
	return ending->state != L4_FLOW_FREE && l4_unchanged(ending->entry, ending->generation);
}

/*
 * Take both entries, the first one in the table first. The peer is still the
 * peer if the entry is what it was: neither is freed without the other.
 */
L4_INLINE int l4_take_both(struct l4_ending *ending)
{
	bool entry_first = ending->entry < ending->peer;
	struct l4_flow *first = entry_first ? ending->entry : ending->peer;
	struct l4_flow *second = entry_first ? ending->peer : ending->entry;
	uint32_t of_peer = l4_load_acquire(&ending->peer->lock) & ~1u;
	uint32_t of_first = entry_first ? ending->generation : of_peer;
	uint32_t of_second = entry_first ? of_peer : ending->generation;
	int result = l4_take_as(first, of_first);

	if (result)
		return result;
	result = l4_take_as(second, of_second);
	if (result)
		l4_let_go(first, of_first);
	return result;
}

/* Empty an entry that is taken. */
L4_INLINE void l4_end_entry(const struct l4_tables *tables, uint32_t index, struct l4_flow *entry)
{
	l4_leave(tables, index, entry);
	l4_empty(tables, index, entry);
}

/* With the locks of the overflow area and of the next hops, where they are needed. */
L4_INLINE int l4_free_locked(const struct l4_tables *tables, struct l4_ending *ending, uint32_t most)
{
	int result = ending->peer ? l4_take_both(ending) : l4_take_as(ending->entry, ending->generation);

	if (result)
		return result;
	/* Its state may have changed since it was read, but not from here on. */
	if (ending->place && !(l4_has_place(ending->entry) && l4_load(&ending->entry->sequence) == ending->place)) {
		l4_let_go(ending->entry, ending->generation);
		if (ending->peer)
			l4_let_go(ending->peer, l4_load(&ending->peer->lock) & ~1u);
		return L4_NONE;
	}
	if (ending->peer)
		l4_end_entry(tables, ending->peer_index, ending->peer);
	l4_end_entry(tables, ending->index, ending->entry);
	l4_unreserve(tables, ending->peer ? 2 : 1);
	if (ending->beyond)
		l4_uncount_overflow(tables, ending->beyond);
	/* After the entries: who finds one of them meanwhile must not find another's hop. */
	if (ending->hop)
		l4_release_locked(tables, ending->hop, most);
	return 0;
}

/* Take those two locks, and free. */
L4_INLINE int l4_free_seen(const struct l4_tables *tables, struct l4_ending *ending, uint32_t most)
{
	struct l4_control *control = l4_control_of(tables);
	int result;

	if (ending->beyond && !l4_try_lock(&control->overflow_lock))
		return L4_BUSY;
	if (ending->hop && !l4_try_lock(&control->hop_lock)) {
		result = L4_BUSY;
	} else {
		result = l4_free_locked(tables, ending, most);
		if (ending->hop)
			l4_unlock(&control->hop_lock);
	}
	if (ending->beyond)
		l4_unlock(&control->overflow_lock);
	return result;
}

/* l4_free_flow(), if the flow is half-open and has this place; 0: in any case. */
L4_APART int l4_free_flow_at(const struct l4_tables *tables, uint32_t index, uint32_t generation, uint32_t place,
			      uint32_t most)
{
	struct l4_ending ending = {
		.entry = l4_flow_at(tables, index),
		.index = index,
		.generation = generation,
		.place = place,
	};
	struct l4_traffic *traffic;
	struct l4_clients *clients;
	int result;

	if (generation & 1)
		return L4_BUSY;
	if (!ending.entry || !l4_see_ending(tables, index, &ending))
		return L4_NONE;
	if (!l4_limit_lock(tables, ending.service, ending.client, &clients))
		return L4_BUSY;
	result = l4_free_seen(tables, &ending, most);
	if (!result && l4_is_flow(ending.state))
		l4_limit_drop(tables, ending.service, ending.client, clients, 0);
	if (clients)
		l4_unlock(&clients->lock);
	traffic = l4_traffic_at(tables, ending.backend);
	if (!result && traffic && l4_is_flow(ending.state))
		l4_count_up(&traffic->ended, 1);
	return result;
}

/*
 * Free the flow of the entry at `index`, if that still is what it was when its
 * lock word was `generation`, which is even. 0; L4_NONE: it is not, as another
 * thread was faster; or L4_BUSY: a lock was held, and nothing is changed.
 * `most`: how long a list of next hops may be, see hops.h.
 */
L4_INLINE int l4_free_flow(const struct l4_tables *tables, uint32_t index, uint32_t generation, uint32_t most)
{
	return l4_free_flow_at(tables, index, generation, 0, most);
}

#endif
