/* SPDX-License-Identifier: MIT */
/*
 * The two entries of a NAT flow, and the next hop that one of them learns from
 * the client's frame: all of it, or nothing. The kernel does it too.
 *
 * Both entries are taken first, then the hop is learned: what can fail has
 * been tried before anything is written that could not be taken back.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_PAIR_H
#define L4RAW_SRC_PAIR_H

#include "context.h"
#include "hops.h"

/*
 * The key of a NAT flow's replies: from the backend, at the port it listens on, to the source that it saw. `key`: of
 * the client's frame.
 */
L4_INLINE struct l4_key l4_reply_key(const struct l4_tables *tables, const struct l4_key *key,
				     const struct l4_backend *backend, const uint64_t *source, uint16_t sport_be)
{
	uint16_t port_be = backend->port_be ? backend->port_be : l4_second16(key->ports);
	const uint64_t from[2] = { l4_read64(backend->address), l4_read64(backend->address + 8) };

	return l4_make_key(&l4_control_of(tables)->key, from, source, l4_ports(port_be, sport_be), key->protocol);
}

/* Where this frame came from, as the word of a hop; 0: it is too short. */
L4_INLINE uint64_t l4_origin_of(const struct l4_context *context)
{
	if (!l4_has(context->data, context->end, sizeof(struct ethhdr)))
		return 0;
	return l4_where_word(context->data + offsetof(struct ethhdr, h_source), context->arm, 1);
}

/* What NAT makes of the frame of a new flow: the reply's key with source and destination exchanged. */
L4_INLINE void l4_nat_to(struct l4_context *context, const struct l4_key *reply_key)
{
	context->nat = true;
	l4_copy(context->dst, reply_key->src, sizeof(context->dst));
	l4_copy(context->src, reply_key->dst, sizeof(context->src));
	context->ports_be = reply_key->ports << 16 | reply_key->ports >> 16;
}

/* The hop of replies: the one that is known, or the one that `origin` says. Its index, L4_NO_HOP or L4_BUSY. */
L4_INLINE int64_t l4_hop_of(const struct l4_tables *tables, const struct l4_values *reply, uint64_t origin)
{
	int64_t hop;

	if (!origin)
		return reply->next_hop;
	hop = l4_learn(tables, origin, L4_HOPS_IN_LIST);
	return hop ? hop : L4_NO_HOP;
}

/*
 * Fill and publish the entries of a NAT flow, between l4_begin() and l4_end(), when there is room reserved. `origin`:
 * where its client is, from whom a hop is learned; 0: `reply` names one. Index of the first; or L4_FULL, L4_NO_HOP or
 * L4_BUSY, and nothing is left of it.
 */
L4_INLINE int64_t l4_insert_both(const struct l4_tables *tables, const struct l4_key *key, struct l4_values *values,
				 const struct l4_key *reply_key, struct l4_values *reply, uint64_t origin)
{
	int64_t index, other, hop;

	/* Before an entry of the overflow area is taken, which leaves marks. */
	if (origin && l4_lacks_hop(tables, origin, L4_HOPS_IN_LIST))
		return L4_NO_HOP;
	index = l4_take_for(tables, key->hash);
	if (index < 0)
		return index;
	other = l4_take_for(tables, reply_key->hash);
	if (other < 0) {
		l4_take_back(tables, (uint32_t)index);
		return other;
	}
	hop = l4_hop_of(tables, reply, origin);
	if (hop < 0) {
		l4_take_back(tables, (uint32_t)other);
		l4_take_back(tables, (uint32_t)index);
		return hop;
	}
	reply->next_hop = (uint16_t)hop;
	reply->peer = (uint32_t)index + 1;
	values->peer = (uint32_t)other + 1;
	return l4_put_both(tables, key, values, reply_key, reply) ? index : L4_FULL;
}

#endif
