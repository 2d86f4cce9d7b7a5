/* SPDX-License-Identifier: MIT */
/*
 * How a flow gets into the table: stripes, free entries, publication. flows.h
 * says who may write what.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_INSERT_H
#define L4RAW_SRC_INSERT_H

#include "touch.h"

/* Try a lock that is one word: 0 free, 1 held. */
L4_INLINE bool l4_try_lock(uint32_t *lock)
{
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++) {
		if (!l4_exchange_one(lock))
			return true;
		l4_relax();
	}
	return false;
}

L4_INLINE void l4_unlock(uint32_t *lock)
{
	l4_store_release(lock, 0u);
}

/* Raise the generation and give back the entry that l4_take() took. */
L4_INLINE void l4_publish(struct l4_flow *entry)
{
	l4_store_release(&entry->lock, l4_load(&entry->lock) + 1);
}

/* Take this entry if it is free. */
L4_INLINE bool l4_take_if_free(struct l4_flow *entry)
{
	uint32_t generation = l4_load_acquire(&entry->lock);

	/* In this order: an entry found free after its lock word was read is free when that is taken. */
	return l4_load(&entry->state) == L4_FLOW_FREE && l4_take(entry, generation);
}

/* Bits of 0x80808080, counted. */
L4_INLINE uint32_t l4_how_many(uint32_t flags)
{
	return (flags >> 7) * 0x01010101u >> 24;
}

/* Index of the first free entry of the emptier of a key's buckets, or L4_FULL. */
L4_INLINE int64_t l4_free_of(const struct l4_tables *tables, struct l4_choice bucket)
{
	uint32_t first = (uint32_t)l4_tagged(l4_tags_of(tables, bucket.first), 0);
	uint32_t second = (uint32_t)l4_tagged(l4_tags_of(tables, bucket.second), 0);
	bool of_second = l4_how_many(second) > l4_how_many(first);

	if (!(first | second))
		return L4_FULL;
	return l4_first_of(bucket, of_second ? (uint64_t)second << 32 : first);
}

/* That entry, or NULL. */
L4_INLINE struct l4_flow *l4_next_free(const struct l4_tables *tables, struct l4_choice bucket)
{
	int64_t index = l4_free_of(tables, bucket);

	return index < 0 ? NULL : l4_flow_at(tables, (uint32_t)index);
}

/* Take that entry, and tag it. Its index, L4_FULL or L4_BUSY. */
L4_INLINE int64_t l4_take_free(const struct l4_tables *tables, uint64_t hash)
{
	struct l4_choice bucket = l4_buckets_of(tables, hash);
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++) {
		int64_t index = l4_free_of(tables, bucket);
		struct l4_flow *entry = index < 0 ? NULL : l4_flow_at(tables, (uint32_t)index);
		uint8_t *tag = index < 0 ? NULL : l4_tag_at(tables, (uint32_t)index);

		if (!entry || !tag)
			return L4_FULL;
		if (l4_take_if_free(entry)) {
			l4_store(tag, l4_tag_of(hash));
			return index;
		}
		l4_relax();
	}
	return L4_BUSY;
}

/* How many entries of the overflow block from `start` are free, and which is the first. */
L4_INLINE uint32_t l4_count_free(const struct l4_tables *tables, uint32_t start, uint32_t *index)
{
	uint32_t i, free = 0;

	for (i = 0; i < L4_OVERFLOW_SLOTS; i++) {
		struct l4_flow *entry = l4_flow_at(tables, start + L4_OVERFLOW_SLOTS - 1 - i);

		if (entry && l4_load(&entry->state) == L4_FLOW_FREE && !(l4_load(&entry->lock) & 1)) {
			*index = start + L4_OVERFLOW_SLOTS - 1 - i;
			free++;
		}
	}
	return free;
}

/* Take the first free entry of the emptier of a key's overflow blocks. Its index, L4_FULL or L4_BUSY. */
L4_INLINE int64_t l4_take_free_in_blocks(const struct l4_tables *tables, uint64_t hash)
{
	struct l4_choice block = l4_blocks_of(tables, hash);
	uint32_t tries, first = 0, second = 0;

	for (tries = 0; tries < L4_TRIES; tries++) {
		uint32_t of_first = l4_count_free(tables, block.first, &first);
		uint32_t of_second = l4_count_free(tables, block.second, &second);
		uint32_t index = of_second > of_first ? second : first;
		struct l4_flow *entry = l4_flow_at(tables, index);

		if ((!of_first && !of_second) || !entry)
			return L4_FULL;
		if (l4_take_if_free(entry))
			return index;
	}
	return L4_BUSY;
}

/*
 * Write all of a taken entry but its lock word. Field by field, so that `values` need not be in memory: to read
 * words from it that were written in parts would take longer.
 */
L4_INLINE void l4_fill(struct l4_flow *entry, const struct l4_key *key, const struct l4_values *values)
{
	uint64_t *words = l4_words(entry);

	l4_store(&words[0], key->src[0]);
	l4_store(&words[1], key->src[1]);
	l4_store(&words[2], key->dst[0]);
	l4_store(&words[3], key->dst[1]);
	l4_store((uint32_t *)(void *)&words[4], key->ports);
	l4_store(&entry->protocol, values->protocol);
	l4_store(&entry->state, values->state);
	l4_store(&entry->service, values->service);
	l4_store(&entry->backend, values->backend);
	l4_store(&entry->next_hop, values->next_hop);
	l4_store(&entry->peer, values->peer);
	l4_store(&entry->last_seen, values->last_seen);
	l4_store(&entry->sequence, values->sequence);
	l4_store(&entry->packets, values->packets);
}

/* Entries of the overflow area: taken with the area's lock, which sets the marks. */
L4_INLINE int64_t l4_take_overflow(const struct l4_tables *tables, uint64_t hash)
{
	struct l4_control *control = l4_control_of(tables);
	struct l4_choice bucket = l4_buckets_of(tables, hash);
	uint8_t *first = l4_mark_at(tables, bucket.first), *second = l4_mark_at(tables, bucket.second);
	int64_t index;

	if (!first || !second || !l4_try_lock(&control->overflow_lock))
		return L4_BUSY;
	index = l4_take_free_in_blocks(tables, hash);
	if (index >= 0) {
		l4_store_release(first, l4_load(&control->mark));
		l4_store_release(second, l4_load(&control->mark));
		l4_store(&control->overflowed, l4_load(&control->overflowed) + 1);
	}
	l4_unlock(&control->overflow_lock);
	return index;
}

/* Take a free entry for a key with this hash; it stays locked. Its index, L4_FULL or L4_BUSY. */
L4_INLINE int64_t l4_take_for(const struct l4_tables *tables, uint64_t hash)
{
	int64_t index = l4_take_free(tables, hash);

	return index == L4_FULL && L4_OVERFLOWS ? l4_take_overflow(tables, hash) : index;
}

/* Count `entries` more as in use, if there is room. They are given back by l4_unreserve(). */
L4_INLINE bool l4_reserve(const struct l4_tables *tables, uint32_t entries)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t tries, used;

	/* Not added and taken back: meanwhile another queue would be refused although there is room. */
	for (tries = 0; tries < L4_TRIES; tries++) {
		used = l4_load(&control->used);
		if (used + entries > control->flow_capacity)
			return false;
		if (l4_exchange_if(&control->used, used, used + entries))
			return true;
	}
	if (l4_add(&control->used, entries) + entries <= control->flow_capacity)
		return true;
	l4_add(&control->used, -entries);
	return false;
}

L4_INLINE void l4_unreserve(const struct l4_tables *tables, uint32_t entries)
{
	l4_add(&l4_control_of(tables)->used, -entries);
}

/* Free the taken entry with this index, and give it back. Its key stays and means nothing any more. */
L4_INLINE void l4_empty(const struct l4_tables *tables, uint32_t index, struct l4_flow *entry)
{
	uint8_t *tag = l4_tag_at(tables, index);

	l4_store(&entry->state, (uint8_t)L4_FLOW_FREE);
	l4_store(&entry->service, (uint16_t)0);
	l4_store(&l4_words(entry)[5], (uint64_t)0);
	l4_store(&l4_words(entry)[6], (uint64_t)0);
	l4_store(&entry->packets, 0u);
	/* The overflow area has no tags. */
	if (tag)
		l4_store(tag, (uint8_t)0);
	l4_publish(entry);
}

/*
 * So many entries of the overflow area are gone, and its lock is held. With
 * the last one all marks are, as from now on another value is one: nothing is
 * there to be found. After 255 times old marks are marks again, and cost
 * look-ups until the next time.
 */
L4_INLINE void l4_uncount_overflow(const struct l4_tables *tables, uint32_t entries)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t left = l4_load(&control->overflowed) - entries;

	l4_store(&control->overflowed, left);
	if (!left)
		l4_store_release(&control->mark, (uint8_t)(l4_load(&control->mark) % 255 + 1));
}

/*
 * Give back an entry that l4_take_for() took, as it was. One in the overflow
 * area was counted; should its lock be held, the count stays one too high, so
 * marks are kept that could go: it costs look-ups, and nothing else.
 */
L4_INLINE void l4_take_back(const struct l4_tables *tables, uint32_t index)
{
	struct l4_control *control = l4_control_of(tables);
	struct l4_flow *entry = l4_flow_at(tables, index);
	bool beyond = L4_OVERFLOWS && index >= control->buckets * L4_SLOTS;
	uint8_t *tag = beyond ? NULL : l4_tag_at(tables, index);

	if (tag)
		l4_store(tag, (uint8_t)0);
	if (entry)
		l4_store_release(&entry->lock, l4_load(&entry->lock) & ~1u);
	if (beyond && l4_try_lock(&control->overflow_lock)) {
		l4_uncount_overflow(tables, 1);
		l4_unlock(&control->overflow_lock);
	}
}

L4_INLINE uint32_t *l4_stripe_of(const struct l4_tables *tables, uint64_t hash)
{
	return l4_stripe_at(tables, l4_scale(hash >> 32, L4_STRIPES));
}

/* Let go what l4_begin() took. */
L4_INLINE void l4_end(const struct l4_tables *tables, const struct l4_key *key, const struct l4_key *reply)
{
	uint32_t *first = l4_stripe_of(tables, key->hash);
	uint32_t *second = reply ? l4_stripe_of(tables, reply->hash) : first;

	if (second && second != first)
		l4_unlock(second);
	if (first)
		l4_unlock(first);
}

/*
 * Begin to insert `key` and, for NAT, `reply`: take their stripes, and see
 * that they are not in the table. 0; or L4_TAKEN, L4_REPLY_TAKEN or L4_BUSY,
 * and nothing is held.
 */
L4_INLINE int l4_begin(const struct l4_tables *tables, const struct l4_key *key, const struct l4_key *reply)
{
	uint32_t *first = l4_stripe_of(tables, key->hash);
	uint32_t *second = reply ? l4_stripe_of(tables, reply->hash) : first;
	uint32_t generation = 0;
	int64_t found, other;

	if (!first || !second || !l4_try_lock(first))
		return L4_BUSY;
	if (second != first && !l4_try_lock(second)) {
		l4_unlock(first);
		return L4_BUSY;
	}
	found = l4_find(tables, key, &generation);
	other = reply ? l4_find(tables, reply, &generation) : L4_NONE;
	if (found == L4_NONE && other == L4_NONE) {
		if (reply)
			l4_prefetch(l4_next_free(tables, l4_buckets_of(tables, reply->hash)));
		return 0;
	}
	l4_end(tables, key, reply);
	if (found == L4_BUSY || other == L4_BUSY)
		return L4_BUSY;
	return found >= 0 ? L4_TAKEN : L4_REPLY_TAKEN;
}

/* Say whose the place is that a new half-open flow has. */
L4_INLINE void l4_name_place(const struct l4_tables *tables, const struct l4_values *values, uint32_t index)
{
	uint32_t *place = l4_is_half_open(values->state) ? l4_half_open_at(tables, values->sequence) : NULL;

	if (place)
		l4_store_release(place, index + 1);
}

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

/* Fill and publish both entries of a NAT flow, which are taken. `index`: the first one's. */
L4_INLINE void l4_fill_both(const struct l4_tables *tables, uint32_t index, struct l4_flow *entry,
			    const struct l4_key *key, const struct l4_values *values, struct l4_flow *peer,
			    const struct l4_key *reply_key, const struct l4_values *reply)
{
	l4_fill(entry, key, values);
	l4_fill(peer, reply_key, reply);
	l4_name_place(tables, values, index);
	l4_publish(peer);
	l4_publish(entry);
}

/* The same: each names the other, and so says where it is. False: they are none of the table's. */
L4_INLINE bool l4_put_both(const struct l4_tables *tables, const struct l4_key *key, const struct l4_values *values,
			   const struct l4_key *reply_key, const struct l4_values *reply)
{
	uint32_t index = reply->peer - 1;
	struct l4_flow *entry = l4_flow_at(tables, index), *peer = l4_flow_at(tables, values->peer - 1);

	if (!entry || !peer)
		return false;
	l4_fill_both(tables, index, entry, key, values, peer, reply_key, reply);
	return true;
}

/*
 * Fill and publish the entry of a flow of one direction, between l4_begin() and l4_end(), when there is room
 * reserved. Its index; or L4_FULL or L4_BUSY, and nothing is left of it.
 */
L4_INLINE int64_t l4_insert(const struct l4_tables *tables, const struct l4_key *key, const struct l4_values *values)
{
	int64_t index = l4_take_for(tables, key->hash);
	struct l4_flow *entry = index < 0 ? NULL : l4_flow_at(tables, (uint32_t)index);

	if (!entry)
		return index < 0 ? index : L4_FULL;
	l4_fill(entry, key, values);
	l4_name_place(tables, values, (uint32_t)index);
	l4_publish(entry);
	return index;
}

#endif
