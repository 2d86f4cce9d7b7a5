/* SPDX-License-Identifier: MIT */
/*
 * How a frame is noted in its flow's entry, and what its state is then: the
 * twin of l4raw/core/states.py. flows.h says who may write what.
 *
 * `sequence` of an entry is, for the client's entry of a half-open flow, its
 * place: share.h. For the backend's, it is what acknowledges the backend's SYN;
 * and when neither is half-open, what its sender has acknowledged last.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_TOUCH_H
#define L4RAW_SRC_TOUCH_H

#include "flows.h"

/* Whether a flow whose client is in this state has proved nothing yet. */
L4_INLINE bool l4_is_half_open(uint8_t state)
{
	return state == L4_FLOW_HALF_OPEN || state == L4_FLOW_UDP_NEW;
}

/* Whether less than half of the capacity is in use. */
L4_INLINE bool l4_is_half_empty(const struct l4_tables *tables)
{
	const struct l4_control *control = l4_control_of(tables);

	return 2 * l4_load(&control->used) < control->flow_capacity;
}

/* Whether it is the client's entry of a half-open flow, which has a place: Entry.has_place in l4raw/core/entry.py. */
L4_INLINE bool l4_has_place(const struct l4_flow *entry)
{
	return l4_is_half_open(l4_load(&entry->state)) && !l4_load(&entry->next_hop);
}

/* Free a place that has this value. False: it has another one by now. */
L4_INLINE bool l4_free_place(const struct l4_tables *tables, uint32_t number, uint32_t value)
{
	uint32_t *place = l4_half_open_at(tables, number);

	if (!place || !value || !l4_exchange_if(place, value, 0))
		return false;
	l4_add(&l4_control_of(tables)->half_open_used, -1u);
	return true;
}

/* Give back the place, if it has one, of an entry that is taken. Another flow may have it by now. */
L4_INLINE void l4_leave(const struct l4_tables *tables, uint32_t index, struct l4_flow *entry)
{
	if (l4_has_place(entry))
		l4_free_place(tables, l4_load(&entry->sequence), index + 1);
}

/* The state that follows a further frame with these TCP flags: after() in l4raw/core/states.py. */
L4_INLINE uint8_t l4_state_after(uint8_t state, uint8_t flags)
{
	if (state == L4_FLOW_ESTABLISHED || state == L4_FLOW_CLOSING)
		return flags & (L4_TCP_FIN | L4_TCP_RST) ? L4_FLOW_CLOSING : state;
	if (state == L4_FLOW_HALF_OPEN)
		return flags & (L4_TCP_FIN | L4_TCP_SYN | L4_TCP_RST) ? L4_FLOW_HALF_OPEN : L4_FLOW_ESTABLISHED;
	return L4_FLOW_UDP;
}

/* A frame, as it is noted in its flow's entry. */
struct l4_seen {
	uint32_t generation;       /* of the entry, when it was read */
	uint8_t from;              /* its state then */
	uint8_t to;
	uint32_t now;
	uint64_t sequence;         /* of 32 bits, written whole: see struct l4_key in packet.h */
	uint32_t packets;
	uint8_t of_peer;           /* what its peer's state becomes; L4_FLOW_FREE: it stays */
};

/* Whether `sequence` is its place also in this state. */
L4_INLINE bool l4_stays(const struct l4_flow *entry, uint8_t state)
{
	return l4_unlikely(l4_is_half_open(state)) && !l4_load(&entry->next_hop);
}

/* Move the entry from one state to another. False: another thread has it, or has just moved it itself, or freed it. */
L4_INLINE bool l4_move(const struct l4_tables *tables, uint32_t index, struct l4_flow *entry,
		       const struct l4_seen *seen)
{
	bool moved;

	if (!l4_take(entry, seen->generation))
		return false;
	moved = l4_load(&entry->state) == seen->from;
	if (moved) {
		l4_leave(tables, index, entry);
		/* First: who sees the new state must not take the place's number for one that was acknowledged. */
		if (!l4_stays(entry, seen->to))
			l4_store(&l4_words(entry)[6], l4_join32(seen->now, seen->sequence));
		l4_store_release(&entry->state, seen->to);
	}
	l4_store_release(&entry->lock, seen->generation);
	return moved;
}

/*
 * Note a frame of a flow. The lock is taken only when the state changes, a few
 * times in the life of a flow. A place stays; another `sequence` is in one
 * word with `last_seen`.
 */
L4_INLINE void l4_touch(const struct l4_tables *tables, uint32_t index, struct l4_flow *entry,
			const struct l4_seen *seen)
{
	bool stays = l4_stays(entry, seen->to);

	if (l4_unlikely(seen->from != seen->to) && !l4_move(tables, index, entry, seen))
		stays = true;
	if (l4_unlikely(stays))
		l4_store(&entry->last_seen, seen->now);
	else
		l4_store(&l4_words(entry)[6], l4_join32(seen->now, seen->sequence));
	l4_store(&entry->packets, seen->packets);
}

#endif
