/* SPDX-License-Identifier: MIT */
/*
 * Next hops: the twin of l4raw/core/next_hops.py, with the same choice of a
 * free index. A learned one is found by (arm, MAC) in the list of its hash.
 *
 * Who writes what: the lists, the references, the free ones and the counts
 * belong to whoever has `hop_lock`. The first 8 bytes of a hop (MAC, arm,
 * known) are one word, stored at once, so that the packet path reads it
 * without the lock: it sees the hop as it was or as it is, never a mixture.
 *
 * A hop that a flow names cannot go, as the flow has a reference. When a flow
 * is freed, both of its entries are, and then the hop is released (free.h). So
 * a reader looks at the hop first and at the peer's lock word after an acquire
 * fence, in l4_flip(): if it saw the word of another hop in that place, which
 * is stored with release, it sees that the peer is gone.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_HOPS_H
#define L4RAW_SRC_HOPS_H

#include "insert.h"
#include "where.h"

/* A list is at most so long for C; the hash has a key, so nobody can make one longer. */
enum { L4_HOPS_IN_LIST = 16 };

L4_INLINE uint64_t l4_where_word(const uint8_t *mac, uint32_t arm, uint8_t known)
{
	struct l4_where where = { .arm = (uint8_t)arm, .known = known };
	uint64_t word;

	l4_copy(where.mac, mac, sizeof(where.mac));
	l4_copy(&word, &where, sizeof(word));
	return word;
}

/* The list of the learned hops whose word has the hash of `word`. */
L4_INLINE uint32_t *l4_list_of(const struct l4_tables *tables, uint64_t word)
{
	const struct l4_control *control = l4_control_of(tables);
	uint64_t hash = l4_spread(control->key.k[0] + control->key.k[1] * (word & 0xffffffff) +
				  control->key.k[2] * (word >> 32));

	return l4_head_at(tables, l4_scale(hash >> 32, control->head_limit));
}

/* A free index, with `hop_lock` held; 0: none. */
L4_INLINE uint32_t l4_take_hop(const struct l4_tables *tables)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t index = control->hop_free;
	struct l4_next_hop *hop = l4_next_hop_at(tables, index);

	if (index && hop) {
		l4_store(&control->hop_free, hop->next);
		l4_store(&control->hop_freed, control->hop_freed - 1);
		return index;
	}
	if (control->hop_count >= control->hop_limit)
		return 0;
	l4_store(&control->hop_count, control->hop_count + 1);
	return control->hop_count;
}

/* Whether an index is free. */
L4_INLINE bool l4_has_hop(const struct l4_tables *tables)
{
	const struct l4_control *control = l4_control_of(tables);

	return l4_load(&control->hop_free) || l4_load(&control->hop_count) < control->hop_limit;
}

/*
 * The learned hop that is where `word` says, with `hop_lock` held. Its index; 0: there is none; or L4_BUSY for a list
 * that is too long for this, which a caller that may take its time (`most`) does not see.
 */
L4_INLINE int64_t l4_hop_in(const struct l4_tables *tables, const uint32_t *head, uint64_t word, uint32_t most)
{
	uint32_t index = *head, i;

	for (i = 0; i < most && index; i++) {
		struct l4_next_hop *hop = l4_next_hop_at(tables, index);

		if (!hop)
			return L4_BUSY;
		if (l4_load(l4_where_of(hop)) == word)
			return index;
		index = hop->next;
	}
	return index ? L4_BUSY : 0;
}

/* One reference more for the hop of a client, with `hop_lock` held. Its index; 0: all are in use; or L4_BUSY. */
L4_INLINE int64_t l4_learn_locked(const struct l4_tables *tables, uint64_t word, uint32_t most)
{
	uint32_t *head = l4_list_of(tables, word), index;
	int64_t found = head ? l4_hop_in(tables, head, word, most) : L4_BUSY;
	struct l4_next_hop *hop;

	if (!head || found < 0)
		return L4_BUSY;
	index = found ? (uint32_t)found : l4_take_hop(tables);
	hop = l4_next_hop_at(tables, index);
	if (!index || !hop)
		return 0;
	if (found) {
		l4_store(&hop->references, hop->references + 1);
		return index;
	}
	l4_store(&hop->next, *head);
	l4_store(head, index);
	l4_store(&hop->references, 1u);
	l4_store_release(l4_where_of(hop), word);
	return index;
}

L4_INLINE int64_t l4_learn(const struct l4_tables *tables, uint64_t word, uint32_t most)
{
	struct l4_control *control = l4_control_of(tables);
	int64_t index;

	if (!l4_try_lock(&control->hop_lock))
		return L4_BUSY;
	index = l4_learn_locked(tables, word, most);
	l4_unlock(&control->hop_lock);
	return index;
}

/* Whether l4_learn() would find no index, as far as can be told before. */
L4_INLINE bool l4_lacks_hop(const struct l4_tables *tables, uint64_t word, uint32_t most)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t *head;
	int64_t found;

	if (l4_has_hop(tables))
		return false;
	head = l4_list_of(tables, word);
	if (!head || !l4_try_lock(&control->hop_lock))
		return false;
	found = l4_hop_in(tables, head, word, most);
	l4_unlock(&control->hop_lock);
	return !found;
}

/* Take a learned hop that nobody names any more out of its list, with `hop_lock` held. */
L4_INLINE void l4_forget_hop(const struct l4_tables *tables, uint32_t index, struct l4_next_hop *hop, uint32_t most)
{
	struct l4_control *control = l4_control_of(tables);
	uint32_t *link = l4_list_of(tables, l4_load(l4_where_of(hop)));
	struct l4_where gone = l4_where_is(tables, index);
	uint32_t i;

	if (!link)
		return;
	for (i = 0; *link != index && i < most; i++) {
		struct l4_next_hop *other = l4_next_hop_at(tables, *link);

		if (!other)
			return;
		link = &other->next;
	}
	if (*link != index)
		return;
	*link = hop->next;
	l4_store_release(l4_where_of(hop), l4_where_word((const uint8_t[6]){ 0 }, gone.arm, 0));
	hop->next = control->hop_free;
	control->hop_free = index;
	l4_store(&control->hop_freed, control->hop_freed + 1);
}

/* One reference less, with `hop_lock` held; the last one frees the hop. */
L4_INLINE void l4_release_locked(const struct l4_tables *tables, uint32_t index, uint32_t most)
{
	struct l4_next_hop *hop = l4_next_hop_at(tables, index);

	if (!hop)
		return;
	l4_store(&hop->references, hop->references - 1);
	if (!hop->references)
		l4_forget_hop(tables, index, hop, most);
}

/* The same. False: the lock was held, nothing is changed. */
L4_INLINE bool l4_release(const struct l4_tables *tables, uint32_t index, uint32_t most)
{
	struct l4_control *control = l4_control_of(tables);

	if (!l4_try_lock(&control->hop_lock))
		return false;
	l4_release_locked(tables, index, most);
	l4_unlock(&control->hop_lock);
	return true;
}

#endif
