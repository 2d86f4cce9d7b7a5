/* SPDX-License-Identifier: MIT */
/*
 * How many flows a service and a client may have: the twin of
 * l4raw/core/limits.py.
 *
 * A client's bucket has a lock, which is tried like all others. A service's
 * counters are words of their own: exact, whoever else counts meanwhile.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_COUNTS_H
#define L4RAW_SRC_COUNTS_H

#include "insert.h"

/* What a flow adds to a level; ms after which any level has leaked away; and by which a stamp may be ahead. */
enum { L4_LEVEL_OF_FLOW = 1000, L4_LEAK_MS = 1000, L4_AHEAD_MS = 10000 };

/* A client of a service: its bucket, and how it is known there. */
struct l4_client_key {
	uint32_t bucket;
	uint32_t tag;
};

L4_INLINE struct l4_client_key l4_client_of(const struct l4_tables *tables, uint32_t service, const uint64_t *address)
{
	const struct l4_control *control = l4_control_of(tables);
	uint64_t hash = l4_hash(&control->key, address, address, l4_ports(0, l4_htons((uint16_t)service)), 0);
	struct l4_client_key key = { l4_scale(hash >> 32, control->client_limit), (uint32_t)hash };

	if (!key.tag)
		key.tag = 1;
	return key;
}

/* The time of who counts at `now`, which the stamp of a level may be ahead of: on_time() in limits.py. */
L4_INLINE uint32_t l4_on_time(uint32_t now, uint32_t stamp, uint32_t level)
{
	return level && stamp - now < L4_AHEAD_MS ? stamp : now;
}

/* What is left of a level after `silent` ms, when `rate` leak away each of them. */
L4_INLINE uint32_t l4_leaked(uint32_t level, uint32_t rate, uint32_t silent)
{
	uint64_t gone = (uint64_t)rate * (silent < L4_LEAK_MS ? silent : L4_LEAK_MS);

	return level > gone ? level - (uint32_t)gone : 0;
}

/* Whether a further flow would pass the brim; a rate of 0 has none. */
L4_INLINE bool l4_over(uint32_t level, uint32_t rate)
{
	return rate && (uint64_t)level + L4_LEVEL_OF_FLOW > (uint64_t)rate * L4_LEAK_MS;
}

/* The client's own place, or the first that says nothing; NULL: there is none. */
L4_INLINE struct l4_client *l4_place_of(struct l4_clients *clients, uint32_t tag, uint32_t now)
{
	struct l4_client *unused = NULL;
	uint32_t i, silent;

	for (i = 0; i < L4_CLIENT_PLACES; i++) {
		struct l4_client *place = &clients->places[i];

		if (place->tag == tag)
			return place;
		silent = l4_on_time(now, place->stamp, place->level) - place->stamp;
		if (!unused && (!place->tag || (!place->flows && silent >= L4_LEAK_MS)))
			unused = place;
	}
	return unused;
}

/* One more in a level that is a word with its time. L4_UNDECIDED, or a verdict, or L4_MISS. */
L4_INLINE int l4_fill_level(struct l4_usage *usage, uint32_t rate, uint32_t now)
{
	uint64_t *word = (uint64_t *)(void *)usage, before, after;
	struct l4_usage was;
	uint32_t tries, time;

	if (!rate)
		return L4_UNDECIDED;
	for (tries = 0; tries < L4_TRIES; tries++) {
		before = l4_load(word);
		l4_copy(&was, &before, sizeof(before));
		time = l4_on_time(now, was.stamp, was.level);
		was.level = l4_leaked(was.level, rate, time - was.stamp);
		if (l4_over(was.level, rate))
			return L4_DROP_SERVICE_RATE;
		was.level += L4_LEVEL_OF_FLOW;
		was.stamp = time;
		l4_copy(&after, &was, sizeof(after));
		if (l4_exchange_both_if(word, before, after))
			return L4_UNDECIDED;
	}
	return L4_MISS;
}

/* Count a new flow of a service; or `more` is 0. L4_UNDECIDED, or a verdict, or L4_MISS; then it is not counted. */
L4_INLINE int l4_count_flow(struct l4_usage *usage, const struct l4_service *service, uint32_t now, uint32_t more)
{
	uint32_t flows = more ? l4_add(&usage->flows, 1u) : 0;
	int verdict = more && service->flows && flows >= service->flows ?
			      L4_DROP_SERVICE_FLOWS :
			      l4_fill_level(usage, service->new_per_s, now);

	if (more && verdict != L4_UNDECIDED)
		l4_add(&usage->flows, -1u);
	return verdict;
}

/* The same for its client too, whose bucket is locked. */
L4_INLINE int l4_count_client(struct l4_usage *usage, const struct l4_service *service, struct l4_clients *clients,
			      uint32_t tag, uint32_t now, uint32_t more)
{
	struct l4_client *place = l4_place_of(clients, tag, now), was = { .tag = tag };
	uint32_t rate = service->client_new_per_s, at = now;
	int verdict;

	if (place) {
		if (place->tag == tag) {
			was = *place;
			at = l4_on_time(now, was.stamp, was.level);
		}
		was.level = l4_leaked(was.level, rate, at - was.stamp);
		if (more && service->client_flows && was.flows >= service->client_flows)
			return L4_DROP_CLIENT_FLOWS;
		if (l4_over(was.level, rate))
			return L4_DROP_CLIENT_RATE;
	}
	verdict = l4_count_flow(usage, service, now, more);
	if (verdict != L4_UNDECIDED || !place)
		return verdict;
	place->tag = tag;
	place->flows = was.flows + more;
	place->stamp = at;
	place->level = rate ? was.level + L4_LEVEL_OF_FLOW : 0;
	l4_add(&usage->tracked, more);
	return L4_UNDECIDED;
}

/*
 * Counts.take(), or with `more` 0 Counts.ask(): L4_UNDECIDED, or the verdict that refuses a flow; or L4_MISS, and
 * nothing is counted.
 */
L4_INLINE int l4_limit_begin(const struct l4_tables *tables, const struct l4_service *service, uint32_t number,
			     const uint64_t *address, uint32_t more)
{
	struct l4_usage *usage = l4_usage_at(tables, number);
	uint32_t now = l4_load(&l4_control_of(tables)->now);
	struct l4_client_key client;
	struct l4_clients *clients;
	int verdict;

	if (!usage)
		return L4_MISS;
	if (!service->client_new_per_s && (!more || !service->client_flows))
		return l4_count_flow(usage, service, now, more);
	client = l4_client_of(tables, number, address);
	clients = l4_clients_at(tables, client.bucket);
	if (!clients || !l4_try_lock(&clients->lock))
		return L4_MISS;
	verdict = l4_count_client(usage, service, clients, client.tag, now, more);
	l4_unlock(&clients->lock);
	return verdict;
}

/*
 * Lock the bucket of a client whose flows of this service may be counted; NULL if none are. False: it was held.
 * l4_limit_drop() counts down meanwhile.
 */
L4_INLINE bool l4_limit_lock(const struct l4_tables *tables, uint32_t number, const uint64_t *address,
			     struct l4_clients **clients)
{
	struct l4_usage *usage = l4_usage_at(tables, number);

	*clients = NULL;
	if (!usage || !l4_load(&usage->tracked))
		return true;
	*clients = l4_clients_at(tables, l4_client_of(tables, number, address).bucket);
	return !*clients || l4_try_lock(&(*clients)->lock);
}

/* What is new of a service's level is not: the flow will come again. */
L4_INLINE void l4_level_back(struct l4_usage *usage, uint32_t level)
{
	uint64_t *word = (uint64_t *)(void *)usage, before, after;
	struct l4_usage was;
	uint32_t tries;

	for (tries = 0; tries < L4_TRIES; tries++) {
		before = l4_load(word);
		l4_copy(&was, &before, sizeof(before));
		was.level -= was.level < level ? was.level : level;
		l4_copy(&after, &was, sizeof(after));
		if (l4_exchange_both_if(word, before, after))
			return;
	}
}

/*
 * A flow that was counted is gone. `level`: what is to be taken off the levels too, because the same frame will
 * be counted again; 0 else.
 */
L4_INLINE void l4_limit_drop(const struct l4_tables *tables, uint32_t number, const uint64_t *address,
			     struct l4_clients *clients, uint32_t level)
{
	struct l4_usage *usage = l4_usage_at(tables, number);
	uint32_t i, tag = l4_client_of(tables, number, address).tag;

	if (!usage)
		return;
	for (i = 0; clients && i < L4_CLIENT_PLACES; i++)
		if (clients->places[i].tag == tag && clients->places[i].flows) {
			clients->places[i].flows--;
			clients->places[i].level -= clients->places[i].level < level ? clients->places[i].level : level;
			l4_add(&usage->tracked, -1u);
		}
	if (level)
		l4_level_back(usage, level);
	l4_add(&usage->flows, -1u);
}

/* Counts.end(): both of them. False: the lock was held, and the flow is still counted. */
L4_INLINE bool l4_limit_finish(const struct l4_tables *tables, uint32_t number, const uint64_t *address,
			       uint32_t level)
{
	struct l4_clients *clients;

	if (!l4_limit_lock(tables, number, address, &clients))
		return false;
	l4_limit_drop(tables, number, address, clients, level);
	if (clients)
		l4_unlock(&clients->lock);
	return true;
}

#endif
