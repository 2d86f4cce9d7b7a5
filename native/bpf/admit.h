/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * New flows that tables can answer: of a service under DSR or NAT whose
 * backend a ring or a cursor names, and that has neither limits nor affinity, as
 * long as there is room. (Under fullnat a port has to be found: the helper's.)
 * All else is the helper's, which begins anew. What did not come
 * about leaves nothing behind, but that a turn is lost, of the service's
 * cursor or of the half-open share, if another CPU was at work on the same.
 */
#ifndef L4RAW_BPF_ADMIT_H
#define L4RAW_BPF_ADMIT_H

#include "tables.h"
#include "../src/screen.h"
#include "../src/hops.h"
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

/* l4_learn(), verified by itself: see subprograms.h. */
__attribute__((noinline)) int64_t learn(uint64_t word)
{
	return l4_learn(NULL, word, L4_HOPS_IN_LIST);
}
#define l4_learn(tables, word, most) ((void)(tables), (void)(most), learn(word))
#define l4_lacks_hop(tables, word, most) ((void)(tables), (void)(word), (void)(most), false)

/* l4_take_for(), likewise. */
__attribute__((noinline)) int64_t take_for(uint64_t hash)
{
	return l4_take_for(NULL, hash);
}
#define l4_take_for(tables, hash) ((void)(tables), take_for(hash))

/*
 * l4_put_both() of a new flow, likewise. `peers`: what both entries say of each other, the first one in the lower half;
 * `whose`: service and backend, in 16 bits each; `more`: its place among half-open flows, and in the lowest 16 bits
 * the hop of its replies.
 */
__attribute__((noinline)) int put_both(const struct l4_key *key, const struct l4_key *reply_key, uint64_t peers,
				       uint32_t whose, uint64_t more)
{
	uint32_t index = (uint32_t)(peers >> 32) - 1;
	struct l4_flow *entry = l4_flow_at(NULL, index), *peer = l4_flow_at(NULL, (uint32_t)peers - 1);
	struct l4_values values, reply;

	if (!key || !reply_key || !entry || !peer)
		return false;
	values = l4_values_of(NULL, key, whose >> 16, whose);
	values.packets = 1;
	values.sequence = (uint32_t)(more >> 16);
	values.peer = (uint32_t)peers;
	reply = l4_values_of(NULL, reply_key, whose >> 16, whose);
	reply.next_hop = (uint16_t)more;
	reply.peer = (uint32_t)(peers >> 32);
	l4_fill_both(NULL, index, entry, key, &values, peer, reply_key, &reply);
	return true;
}
#define l4_put_both(tables, key, values, reply_key, reply) \
	((void)(tables), put_both(key, reply_key, (uint64_t)(reply)->peer << 32 | (values)->peer, \
				  (uint32_t)(values)->service << 16 | (values)->backend, \
				  (uint64_t)(values)->sequence << 16 | (reply)->next_hop))

#include "../src/remember.h"

/* Above an index: no other entry of its key's buckets is free. */
static const int64_t LAST = 1ll << 32;

/*
 * l4_free_of(), likewise. The overflow area is the helper's: this is asked before a place is taken, whose turn would be
 * lost.
 */
__attribute__((noinline)) int64_t free_for(uint64_t hash)
{
	struct l4_choice bucket = l4_buckets_of(NULL, hash);
	int64_t index = l4_free_of(NULL, bucket);
	uint32_t free = l4_how_many((uint32_t)l4_tagged(l4_tags_of(NULL, bucket.first), 0));

	if (bucket.second != bucket.first)
		free += l4_how_many((uint32_t)l4_tagged(l4_tags_of(NULL, bucket.second), 0));
	return index >= 0 && free == 1 ? index | LAST : index;
}

/* l4_enter() of a flow of one direction, likewise. */
__attribute__((noinline)) int64_t enter(const struct l4_key *key, uint32_t service, uint32_t backend)
{
	struct l4_values values;

	if (!key)
		return L4_BUSY;
	values = l4_values_of(NULL, key, service, backend);
	return free_for(key->hash) >= 0 ? l4_enter(NULL, NULL, key, &values, NULL, NULL, 0) : L4_FULL;
}

/* Of a frame whose source the backend sees. */
static __always_inline struct l4_key reply_key_of(const struct l4_key *key, const struct l4_backend *backend)
{
	return l4_reply_key(NULL, key, backend, key->src, l4_first16(key->ports));
}

/* l4_enter() of a NAT flow, likewise. `origin`: see l4_insert_both(). */
__attribute__((noinline)) int64_t enter_both(const struct l4_key *key, uint32_t half, uint32_t number, uint64_t origin)
{
	const struct l4_backend *backend = l4_backend_at(NULL, half & 1, number);
	struct l4_values values, reply;
	struct l4_key reply_key;
	int64_t index, other;

	/* When there is no hop left, the helper looks whether the client's is known; before a place is taken, too. */
	if (!key || !backend || !origin || !l4_has_hop(NULL))
		return L4_BUSY;
	reply_key = reply_key_of(key, backend);
	values = l4_values_of(NULL, key, backend->service, number);
	reply = l4_values_of(NULL, &reply_key, backend->service, number);
	index = free_for(key->hash);
	other = free_for(reply_key.hash);
	/* Both may want the same one. */
	if (index < 0 || other < 0 || ((uint32_t)index == (uint32_t)other && (other & LAST)))
		return L4_FULL;
	return l4_enter(NULL, NULL, key, &values, &reply_key, &reply, origin);
}

/* Whether a new flow is admitted here. A SYN may have its MSS lowered; a frame in mid-stream has an owner. */
static __always_inline bool is_for_tables(const struct l4_context *context, const struct l4_service *service)
{
	if (service->mode == L4_FULLNAT || service->rule >= L4_RULE_LEAST || !service->ring_size || service->affinity)
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
static __always_inline bool has_room(uint32_t entries)
{
	return l4_load(&control.half_open_used) < control.half_open_limit &&
	       l4_load(&control.used) + entries <= control.flow_capacity;
}

/* enter() or enter_both(), counted. False: it is not in the table. */
static __always_inline bool enter_and_count(struct l4_context *context, uint32_t number, bool is_nat)
{
	struct l4_usage *of_service = l4_usage_at(context->tables, context->service);
	uint64_t *of_backend = flows_of(number);
	const struct l4_key *key = &context->headers.key;

	if (!of_service || !of_backend)
		return false;
	l4_add(&of_service->flows, 1u);
	if ((is_nat ? enter_both(key, context->half, number, l4_origin_of(context)) :
		      enter(key, context->service, number)) < 0) {
		l4_add(&of_service->flows, -1u);
		return false;
	}
	l4_add(of_backend, 1ull);
	return true;
}

/* Once it is in the table. */
static __always_inline bool translate(struct l4_context *context)
{
	const struct l4_backend *backend = l4_backend_at(NULL, context->half, context->backend);
	struct l4_key reply_key;

	if (!backend)
		return false;
	reply_key = reply_key_of(&context->headers.key, backend);
	l4_nat_to(context, &reply_key);
	return true;
}

/*
 * l4_admit(), after l4_see(), of a service with this kind of mode: each kind is a program of its own. L4_FORWARD, or
 * L4_MISS.
 */
static __always_inline int admit(struct l4_context *context, bool is_nat)
{
	int number = l4_service_of(context);
	const struct l4_service *service = number < 0 ? NULL : l4_service_at(NULL, context->half, (uint32_t)number);
	uint32_t *cursor = service ? l4_cursor_at(NULL, (uint32_t)number) : NULL, turn = 0;
	struct l4_in_ring found;

	/* Where only changes are remembered, most need no room. */
	if (!service || !cursor || !is_for_tables(context, service) || l4_is_nat(service->mode) != is_nat ||
	    (!service->owners && !has_room(is_nat ? 2 : 1)))
		return L4_MISS;
	context->service = (uint32_t)number;
	if (l4_screen(context, service) != L4_UNDECIDED)
		return L4_MISS;
	if (service->rule == L4_RULE_CURSOR)
		turn = l4_add(cursor, 1u);
	found = l4_in_ring_of(context, service, turn);
	if (found.backend && l4_reach(context, found.backend) == L4_FORWARD &&
	    (!found.remembers || enter_and_count(context, found.backend, is_nat)) && (!is_nat || translate(context)))
		return L4_FORWARD;
	l4_turn_back(service, cursor, turn);
	return L4_MISS;
}

#endif
