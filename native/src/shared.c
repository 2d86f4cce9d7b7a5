/* SPDX-License-Identifier: MIT */
/*
 * How Python changes tables that queues read and write at the same time: by
 * the same inlined functions that they use, tried again until the lock was
 * free. See helper.h for what each promises.
 */
/* nanosleep() */
#define _POSIX_C_SOURCE 199309L
#include <sched.h>
#include <time.h>

#include "memory.h"
#include "affinity.h"
#include "counts.h"
#include "pair.h"
#include "share.h"
#include "helper.h"

/*
 * How often a lock is tried before L4_BUSY. Its holder does no more than a
 * few hundred instructions with it, but can lose its processor meanwhile: so
 * this gives up its own between tries, and sleeps when that was in vain, three
 * seconds in all at least.
 */
enum { YIELDS = 1000, NAPS = 30000, NAP_NS = 100000 };

static void rest_after(int tries)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };

	if (tries < YIELDS)
		sched_yield();
	else
		nanosleep(&nap, NULL);
}

#define PATIENTLY(result, busy, call)                                            \
	do {                                                                     \
		int tries = 0;                                                   \
                                                                                 \
		while (((result) = (call)) == (busy) && tries < YIELDS + NAPS) \
			rest_after(tries++);                                     \
	} while (0)

static struct l4_key key_of(const struct l4_tables *tables, const struct l4_flow *flow)
{
	const uint64_t src[2] = { l4_read64(flow->src), l4_read64(flow->src + 8) };
	const uint64_t dst[2] = { l4_read64(flow->dst), l4_read64(flow->dst + 8) };

	return l4_make_key(&tables->control->key, src, dst,
			   l4_ports(flow->sport_be, flow->dport_be), flow->protocol);
}

int64_t l4_flow_find(const struct l4_tables *tables, const struct l4_flow *flow)
{
	struct l4_key key = key_of(tables, flow);
	uint32_t generation;
	int64_t index;

	PATIENTLY(index, L4_BUSY, l4_find(tables, &key, &generation));
	return index;
}

int l4_flow_read(const struct l4_tables *tables, uint32_t index, struct l4_flow *copy)
{
	bool done;

	PATIENTLY(done, false, l4_read(tables, index, copy));
	return done ? 0 : L4_BUSY;
}

/* What a flow's image says besides the key, without a peer. */
static struct l4_values values_of(const struct l4_flow *flow)
{
	struct l4_values values;

	l4_copy(&values, &flow->sport_be, sizeof(values));
	values.peer = 0;
	return values;
}

static int64_t put(const struct l4_tables *tables, const struct l4_key *key, const struct l4_flow *flow,
		   const struct l4_key *reply_key, const struct l4_flow *reply)
{
	struct l4_values values = values_of(flow), other = values_of(reply ? reply : flow);
	uint32_t entries = reply ? 2 : 1;
	int64_t index = l4_begin(tables, key, reply_key);

	if (index)
		return index;
	/* There was room when Python looked: half-open flows that came meanwhile go for another one. */
	if (l4_has_place(flow) && flow->sequence)
		index = l4_make_room(tables, entries);
	else
		index = l4_reserve(tables, entries) ? 0 : L4_FULL;
	if (!index) {
		index = reply ? l4_insert_both(tables, key, &values, reply_key, &other, 0) :
				l4_insert(tables, key, &values);
		if (index < 0)
			l4_unreserve(tables, entries);
	}
	l4_end(tables, key, reply_key);
	return index;
}

int64_t l4_flow_put(const struct l4_tables *tables, const struct l4_flow *flow, const struct l4_flow *reply)
{
	struct l4_key key = key_of(tables, flow), reply_key = key_of(tables, reply ? reply : flow);
	int64_t index;

	PATIENTLY(index, L4_BUSY, put(tables, &key, flow, reply ? &reply_key : NULL, reply));
	return index;
}

void l4_flow_touch(const struct l4_tables *tables, uint32_t index, const struct l4_flow *was,
		   const struct l4_flow *is)
{
	struct l4_flow *entry = l4_flow_at(tables, index);
	struct l4_seen seen = {
		.generation = was->lock,
		.from = was->state,
		.to = is->state,
		.now = is->last_seen,
		.sequence = is->sequence,
		.packets = is->packets,
	};

	if (entry)
		l4_touch(tables, index, entry, &seen);
}

int l4_half_open_evict(const struct l4_tables *tables)
{
	int result;

	PATIENTLY(result, L4_BUSY, l4_evict_half_open(tables));
	return result;
}

uint32_t l4_place_take(const struct l4_tables *tables)
{
	uint32_t place;

	PATIENTLY(place, 0, l4_take_place(tables));
	return place;
}

void l4_place_drop(const struct l4_tables *tables, uint32_t place)
{
	l4_drop_place(tables, place);
}

int l4_choice_renew(const struct l4_tables *tables, uint32_t index, uint32_t generation, uint32_t backend,
		    uint32_t now)
{
	return l4_renew(tables, index, generation, backend, now);
}

int l4_flow_free(const struct l4_tables *tables, uint32_t index, uint32_t generation)
{
	int result;

	PATIENTLY(result, L4_BUSY, l4_free_flow(tables, index, generation, tables->control->hop_limit));
	return result;
}

static uint64_t where_word(const uint8_t *mac, uint32_t arm)
{
	static const uint8_t none[6];

	return l4_where_word(mac ? mac : none, arm, mac != NULL);
}

int64_t l4_hop_pin(const struct l4_tables *tables, uint32_t arm, const uint8_t *mac)
{
	struct l4_next_hop *hop;
	uint32_t index;
	bool held;

	PATIENTLY(held, false, l4_try_lock(&tables->control->hop_lock));
	if (!held)
		return L4_BUSY;
	index = l4_take_hop(tables);
	hop = l4_next_hop_at(tables, index);
	if (index && hop) {
		hop->references = 0;
		hop->next = 0;
		l4_store_release(l4_where_of(hop), where_word(mac, arm));
	}
	l4_unlock(&tables->control->hop_lock);
	return index;
}

void l4_hop_set(const struct l4_tables *tables, uint32_t index, const uint8_t *mac)
{
	struct l4_next_hop *hop = l4_next_hop_at(tables, index);

	if (index && hop)
		l4_store_release(l4_where_of(hop), where_word(mac, l4_where_is(tables, index).arm));
}

int64_t l4_hop_learn(const struct l4_tables *tables, uint32_t arm, const uint8_t *mac)
{
	int64_t index;

	PATIENTLY(index, L4_BUSY, l4_learn(tables, l4_where_word(mac, arm, 1), tables->control->hop_limit));
	return index;
}

int l4_hop_release(const struct l4_tables *tables, uint32_t index)
{
	bool done;

	PATIENTLY(done, false, l4_release(tables, index, tables->control->hop_limit));
	return done ? 0 : L4_BUSY;
}

int l4_limit_take(const struct l4_tables *tables, uint32_t service, const uint8_t *address, uint32_t more)
{
	const uint64_t words[2] = { l4_read64(address), l4_read64(address + 8) };
	uint32_t half = l4_load_acquire(&tables->control->generation) & 1;
	const struct l4_service *of = l4_service_at(tables, half, service);
	int verdict;

	if (!of)
		return L4_MISS;
	PATIENTLY(verdict, L4_MISS, l4_limit_begin(tables, of, service, words, more));
	return verdict == L4_UNDECIDED ? L4_FORWARD : verdict;
}

int l4_limit_end(const struct l4_tables *tables, uint32_t service, const uint8_t *address)
{
	const uint64_t words[2] = { l4_read64(address), l4_read64(address + 8) };
	bool done;

	PATIENTLY(done, false, l4_limit_finish(tables, service, words, 0));
	return done ? 0 : L4_BUSY;
}
