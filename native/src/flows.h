/* SPDX-License-Identifier: MIT */
/*
 * The flow table: how an entry is found, taken and published. The twin of
 * l4raw/core/flows.py: the same hash, the same places, the same choice among
 * free ones, so that the same frames leave the same bytes.
 *
 * Who writes what, with several queues in C and Python at work at once:
 *
 *   an entry's lock word   Bit 0 says that somebody writes the entry; above
 *       it is a generation, raised by 2 whenever the entry is filled or
 *       freed. It is taken by an atomic compare-and-exchange of the even
 *       value that was read before with the odd one after it: so whoever
 *       takes it knows that the entry is still what it was then. A store
 *       with release of an even value publishes and unlocks.
 *   the key, service, backend, next_hop, peer   Written by whoever has the
 *       lock, when a free entry is filled. They stay as they are until it is
 *       freed.
 *   state   Written by whoever has the lock; a change within the life of a
 *       flow leaves the generation as it is, since it is one byte that a
 *       reader sees either before or after.
 *   last_seen, packets, sequence   Written by l4_touch() without the lock, in
 *       words. Two queues that see frames of the same direction at once may
 *       lose a count. A flow that is freed between look-up and touch leaves
 *       two words in an entry that is free, or the next flow's; they mean
 *       nothing in the first, and are a time that is right and a count that
 *       is not in the second. Nothing is decided by the count. Should the next
 *       flow lose its place by that, l4_evict_at() in share.h finds the place
 *       to be nobody's.
 *   a flow is freed by whoever has the locks of all of its entries, with the
 *       generation that it saw when it decided so: l4_free_flow() in free.h.
 *       The pair of a NAT flow is freed at once, as it was made; so as long
 *       as one entry is what it was, its peer is too. The entry that is first
 *       in the table is taken first.
 *
 * A reader takes no lock. It reads the lock word with acquire, then the
 * entry, and then, after an acquire fence, the lock word again: the same even
 * value says that nothing but state, last_seen, sequence and packets can have
 * changed in between (a seqlock; Boehm, "Can seqlocks get along with programming
 * language memory models?", MSPC'12, section 4).
 *
 * Two threads must not insert the same key: whoever inserts has the key's
 * stripe, one of L4_STRIPES locks chosen by its hash, from before it looks
 * whether the key is there until its entry is published. Threads with
 * different stripes may want the same free entry; the lock word decides.
 * The pair of a NAT flow is filled while both entries are locked, and only
 * then published: no reader ever sees a half of it that has no peer.
 *
 * An entry's tag is written by whoever has the entry's lock: after it was
 * taken, and before it is published; 0 when it is freed. So whoever finds no
 * tag of a key has looked before that, and looks again under the stripe. A
 * tag is only where to look: the entry tells.
 *
 * The overflow area has one lock of its own: for whoever fills or frees an
 * entry there, because that sets marks of buckets, or says that they are none
 * any more. A bucket's mark is likewise set before the entry it stands for is
 * published, so who finds no mark has looked before that, and looks again
 * under the stripe.
 *
 * No lock is waited for: after L4_TRIES tries the answer is L4_BUSY, nothing
 * is changed, and the frame is a miss. So no order of locks can deadlock.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_FLOWS_H
#define L4RAW_SRC_FLOWS_H

#include "packet.h"

L4_ASSERT(__builtin_offsetof(struct l4_flow, sport_be) == 32, "ports are a word")
L4_ASSERT(__builtin_offsetof(struct l4_flow, lock) == 56, "lock and packets are the last word")

/* 2^64 divided by the golden ratio: l4raw/core/hashing.py. */
L4_INLINE uint64_t l4_spread(uint64_t value)
{
	return (value ^ value >> 32) * 0x9E3779B97F4A7C15ull;
}

/* Of an IPv4 key: the words of addresses that are always the same are in `base`. */
L4_INLINE uint64_t l4_hash_v4(const struct l4_hash_key *key, const uint64_t *src, const uint64_t *dst,
			      uint32_t ports_be, uint32_t protocol)
{
	return l4_spread(key->k[9] * l4_ntohl(ports_be) + key->k[10] * protocol + key->base +
			 key->k[4] * l4_ntohl(l4_second32(src[1])) + key->k[8] * l4_ntohl(l4_second32(dst[1])));
}

/* Of source and destination in two words each. An IPv4-mapped source stands for a whole IPv4 key. */
L4_INLINE uint64_t l4_hash(const struct l4_hash_key *key, const uint64_t *src, const uint64_t *dst, uint32_t ports_be,
			   uint32_t protocol)
{
	uint64_t sum = key->k[9] * l4_ntohl(ports_be) + key->k[10] * protocol;
	uint32_t i;

	if (l4_is_v4(src))
		return l4_hash_v4(key, src, dst, ports_be, protocol);
	sum += key->k[0];
	for (i = 0; i < 2; i++)
		sum += key->k[2 * i + 1] * l4_ntohl(l4_first32(src[i])) +
		       key->k[2 * i + 2] * l4_ntohl(l4_second32(src[i])) +
		       key->k[2 * i + 5] * l4_ntohl(l4_first32(dst[i])) +
		       key->k[2 * i + 6] * l4_ntohl(l4_second32(dst[i]));
	return l4_spread(sum);
}

/* An index below `size` for 32 bits of a hash. */
L4_INLINE uint32_t l4_scale(uint64_t value, uint32_t size)
{
	return (uint32_t)((value & 0xffffffff) * size >> 32);
}

/* Both ports, as the word that they are in memory. */
L4_INLINE uint32_t l4_ports(uint16_t sport_be, uint16_t dport_be)
{
	return l4_join16(sport_be, dport_be);
}

/* `src` and `dst` are two words each. */
L4_INLINE struct l4_key l4_make_key(const struct l4_hash_key *with, const uint64_t *src, const uint64_t *dst,
				    uint32_t ports_be, uint32_t protocol)
{
	return (struct l4_key){
		.src = { src[0], src[1] },
		.dst = { dst[0], dst[1] },
		.ports = ports_be,
		.protocol = protocol,
		.hash = l4_hash(with, src, dst, ports_be, protocol),
	};
}

/* What an entry says of its flow, besides the key: see struct l4_flow. */
struct l4_values {
	uint32_t ports;            /* both, as the word that they are in memory */
	uint8_t protocol;
	uint8_t state;
	uint16_t service;
	uint16_t backend;
	uint16_t next_hop;
	uint32_t peer;
	uint32_t last_seen;
	uint32_t sequence;
	uint32_t lock;
	uint32_t packets;
};
L4_ASSERT(sizeof(struct l4_values) == sizeof(struct l4_flow) - 32, "all that follows the addresses")

/* The eight words of an entry of the table, which is aligned to them; a copy need not be. */
L4_INLINE uint64_t *l4_words(struct l4_flow *entry)
{
	return (uint64_t *)(void *)entry;
}

/* Whether the entry is in use and has this key, as far as can be told without its lock. */
L4_INLINE bool l4_same_key(struct l4_flow *entry, const struct l4_key *key)
{
	const uint64_t *words = l4_words(entry);

	/* Words that differ between flows come first; the upper halves of IPv4-mapped addresses never do. */
	if (l4_load(&words[1]) != key->src[1] || l4_load((const uint32_t *)(const void *)&words[4]) != key->ports)
		return false;
	return l4_load(&words[3]) == key->dst[1] && l4_load(&entry->protocol) == key->protocol &&
	       l4_load(&entry->state) != L4_FLOW_FREE && l4_load(&words[0]) == key->src[0] &&
	       l4_load(&words[2]) == key->dst[0];
}

/* Whether the entry still is what it was when its lock word was `generation`. */
L4_INLINE bool l4_unchanged(struct l4_flow *entry, uint32_t generation)
{
	l4_fence_acquire();
	return l4_load(&entry->lock) == generation;
}

/* `index`, which is the entry's, if it has this key, and its generation; or L4_NONE, or L4_BUSY. */
L4_INLINE int64_t l4_is_at(struct l4_flow *entry, uint32_t index, const struct l4_key *key, uint32_t *generation)
{
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++) {
		*generation = l4_load_acquire(&entry->lock);
		if (!l4_same_key(entry, key))
			return L4_NONE;
		if (!(*generation & 1) && l4_unchanged(entry, *generation))
			return index;
		l4_relax();
	}
	return L4_BUSY;
}

/* Likewise of the entry of that index, if there is one. */
L4_INLINE int64_t l4_find_at(const struct l4_tables *tables, uint32_t index, const struct l4_key *key,
			     uint32_t *generation)
{
	struct l4_flow *entry = l4_flow_at(tables, index);

	return entry ? l4_is_at(entry, index, key, generation) : L4_NONE;
}

/* Likewise of the overflow block that starts at `start`. */
L4_INLINE int64_t l4_find_in_block(const struct l4_tables *tables, uint32_t start, const struct l4_key *key,
				   uint32_t *generation)
{
	uint32_t i;

	for (i = 0; i < L4_OVERFLOW_SLOTS; i++) {
		int64_t index = l4_find_at(tables, start + i, key, generation);

		if (index != L4_NONE)
			return index;
	}
	return L4_NONE;
}

/* elapsed() in l4raw/core/timeouts.py. */
L4_INLINE uint32_t l4_elapsed(uint32_t now, uint32_t since)
{
	return now - since < 1u << 31 ? now - since : 0;
}

/* The two candidate buckets of a hash, or its two overflow blocks. */
struct l4_choice {
	uint32_t first, second;
};

L4_INLINE struct l4_choice l4_buckets_of(const struct l4_tables *tables, uint64_t hash)
{
	uint32_t buckets = l4_control_of(tables)->buckets;
	struct l4_choice choice = { l4_scale(hash >> 32, buckets), l4_scale(hash, buckets) };

	return choice;
}

/* The tag of an entry whose key has this hash. */
L4_INLINE uint8_t l4_tag_of(uint64_t hash)
{
	uint8_t tag = (uint8_t)(hash >> 32);

	return tag ? tag : 1;
}

/* The tag's byte of an entry of the buckets. */
L4_INLINE uint8_t *l4_tag_at(const struct l4_tables *tables, uint32_t index)
{
	uint32_t *tags = l4_tags_at(tables, index / L4_SLOTS);

	return tags ? (uint8_t *)tags + index % L4_SLOTS : NULL;
}

/* The tags of a bucket's entries, the first one's in the lowest byte. */
L4_INLINE uint32_t l4_tags_of(const struct l4_tables *tables, uint32_t bucket)
{
	return l4_little32(l4_tags_in(tables, bucket));
}

/* Which bytes of a word are this tag, or are free (tag 0): 0x80 in each of them. */
L4_INLINE uint64_t l4_tagged(uint64_t tags, uint8_t tag)
{
	/* Bytes of 0, where the tag is the wanted one. */
	uint64_t other = tags ^ tag * 0x0101010101010101u, low = 0x7f7f7f7f7f7f7f7fu;

	return ~(((other & low) + low) | other | low);
}

/* Those of both buckets whose tag is that of the hash: the second one's in the upper half. */
L4_INLINE uint64_t l4_candidates(const struct l4_tables *tables, struct l4_choice bucket, uint64_t hash)
{
	return l4_tagged(l4_tags_of(tables, bucket.first) | (uint64_t)l4_tags_of(tables, bucket.second) << 32,
			 l4_tag_of(hash));
}

/* Index of the first of the candidates, of which there are some. */
L4_INLINE uint32_t l4_first_of(struct l4_choice bucket, uint64_t candidates)
{
	uint32_t slot = l4_lowest_byte(candidates);

	return (slot < L4_SLOTS ? bucket.first : bucket.second) * L4_SLOTS + slot % L4_SLOTS;
}

/* Their first entries. */
L4_INLINE struct l4_choice l4_blocks_of(const struct l4_tables *tables, uint64_t hash)
{
	const struct l4_control *control = l4_control_of(tables);
	uint32_t entries = control->buckets * L4_SLOTS;
	uint32_t blocks = (control->flow_entries - entries) / L4_OVERFLOW_SLOTS;
	uint64_t value = l4_spread(hash);
	struct l4_choice choice = {
		entries + l4_scale(value >> 32, blocks) * L4_OVERFLOW_SLOTS,
		entries + l4_scale(value, blocks) * L4_OVERFLOW_SLOTS,
	};

	return choice;
}

L4_INLINE bool l4_is_marked(const struct l4_tables *tables, uint32_t bucket)
{
	uint8_t *mark = l4_mark_at(tables, bucket);

	return mark && l4_load_acquire(mark) == l4_load(&l4_control_of(tables)->mark);
}

/* Index of the entry with this key, and its generation; or L4_NONE, or L4_BUSY. */
L4_INLINE int64_t l4_find(const struct l4_tables *tables, const struct l4_key *key, uint32_t *generation)
{
	struct l4_choice bucket = l4_buckets_of(tables, key->hash), block;
	uint64_t candidates = l4_candidates(tables, bucket, key->hash);
	int64_t index;
	uint32_t i;

	for (i = 0; i < 2 * L4_SLOTS && candidates; i++) {
		index = l4_find_at(tables, l4_first_of(bucket, candidates), key, generation);
		if (index != L4_NONE)
			return index;
		candidates &= candidates - 1;
	}
	if (!l4_is_marked(tables, bucket.first) || !l4_is_marked(tables, bucket.second))
		return L4_NONE;
	block = l4_blocks_of(tables, key->hash);
	index = l4_find_in_block(tables, block.first, key, generation);
	if (index != L4_NONE)
		return index;
	return l4_find_in_block(tables, block.second, key, generation);
}

/* Copy an entry as it was at one moment. False: it changed meanwhile, or is being written. */
L4_INLINE bool l4_read(const struct l4_tables *tables, uint32_t index, struct l4_flow *copy)
{
	struct l4_flow *entry = l4_flow_at(tables, index);
	uint64_t words[sizeof(*copy) / 8];
	uint32_t generation, i;

	if (!entry)
		return false;
	generation = l4_load_acquire(&entry->lock);
	/* The state before `sequence`: see l4_move(). */
	for (i = 0; i < sizeof(*copy) / 8; i++)
		words[i] = l4_load_acquire(&l4_words(entry)[i]);
	l4_copy(copy, words, sizeof(*copy));
	return !(generation & 1) && l4_unchanged(entry, generation);
}

/* Take an entry that was free, or that nobody wrote, when its lock word was `generation`. */
L4_INLINE bool l4_take(struct l4_flow *entry, uint32_t generation)
{
	if ((generation & 1) || !l4_exchange_if(&entry->lock, generation, generation | 1))
		return false;
	/* What is written from here on must not be seen by one who still sees the even value. */
	l4_fence_release();
	return true;
}

#endif
