/* SPDX-License-Identifier: MIT */
/*
 * What must hold, whatever the frames are. What is written beyond a frame or
 * a table is the sanitizer's to see: each has an allocation of its own.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

_Noreturn void finding(const char *format, ...)
{
	va_list arguments;

	fputs("FINDING: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	abort();
}

/* The packet that is sent, in the headers of a tunnel or not, has the sums that it came with, if those were right. */
static void check_sums(const struct fate *fate, const uint8_t *sent)
{
	const struct seen before = frame_look(fate->before, fate->size), after = frame_look(sent, fate->size);
	enum sum was = frame_sum(fate->before, &before), is = frame_sum(sent, &after);
	bool told = fate->csum_start > 0 && before.protocol && (uint32_t)fate->csum_start == before.l4;
	bool partial = (before.protocol == 6 || before.protocol == 17) &&
		       fate->before[before.field] == before.partial >> 8 &&
		       fate->before[before.field + 1] == (before.partial & 0xff);

	if (!before.ip || !after.ip || before.v6 != after.v6 || before.protocol != after.protocol)
		finding("sent, but what came in and what went out is not the same kind of packet");
	if (!frame_ip_right(fate->before, &before) || !frame_ip_right(sent, &after))
		finding("sent with a wrong IPv4 header checksum, before or after");
	if (told) {
		if (partial && is != SUM_PARTIAL && is != SUM_RIGHT)
			finding("a partial checksum that was told of is not partial any more");
		return;
	}
	if (fate->csum_start == L4_CSUM_DETECT && partial && was != SUM_NONE && is != SUM_RIGHT)
		finding("a partial checksum was not completed");
	if ((was == SUM_RIGHT && is != SUM_RIGHT) || (was == SUM_NONE && is != SUM_NONE))
		finding("the checksum was right (or none), and is not any more");
}

/* In a tunnel: the headers in front are right, and the packet in them is looked at as if it had none. */
static void check_tunnel(const struct fate *fate)
{
	uint32_t push = fate->result.push, size = fate->size + push;
	const struct seen outer = frame_look(fate->after, size);
	uint8_t *inner = malloc(fate->size);

	if (!inner)
		abort();
	memcpy(inner, fate->after + push, fate->size);
	memcpy(inner, fate->before, frame_ip_at(fate->before, fate->size));
	check_sums(fate, inner);
	free(inner);
	if (!frame_ip_right(fate->after, &outer))
		finding("the header in front is not right");
	/* It is made of the packet's own: of one that is wrong, or said to be partial, nothing follows. */
	if (outer.protocol == 17 && fate->csum_start <= 0 && frame_sum(fate->after, &outer) == SUM_WRONG) {
		const struct seen before = frame_look(fate->before, fate->size);

		if (frame_sum(fate->before, &before) == SUM_RIGHT)
			finding("the checksum of the tunnel is wrong, and that of the packet is right");
	}
}

/* A frame that is sent: to us, and from us. */
static void check_sent(const struct l4_tables *tables, const struct fate *fate)
{
	if (fate->result.arm >= L4_ARMS)
		finding("sent on arm %u", fate->result.arm);
	if (memcmp(fate->before, tables->control->arms[fate->arm], 6))
		finding("sent on, though it was for another machine's MAC");
	if (memcmp(fate->after + 6, tables->control->arms[fate->result.arm], 6))
		finding("sent with a source MAC that is not ours");
	if (frame_ip_at(fate->before, fate->size) != frame_ip_at(fate->after, fate->size) ||
	    (frame_ip_at(fate->before, fate->size) > 14 && memcmp(fate->before + 12, fate->after + 12, 4)))
		finding("sent with another tag");
	if (fate->result.push)
		check_tunnel(fate);
	else
		check_sums(fate, fate->after);
}

void check_fate(const struct l4_tables *tables, const struct fate *fate)
{
	const struct l4_result *result = &fate->result;

	if (result->verdict >= L4_VERDICT_COUNT && result->verdict != L4_MISS)
		finding("no verdict: %u", result->verdict);
	if (result->verdict == L4_MISS && result->miss >= L4_MISS_COUNT)
		finding("a miss without a reason: %u", result->miss);
	/* Nobody else is here who could hold a lock, or change an entry. */
	if (result->verdict == L4_MISS && (result->miss == L4_MISS_BUSY || result->miss == L4_MISS_CHANGED))
		finding("a miss because of another thread, of which there is none: %u", result->miss);
	if (result->verdict < L4_SENT)
		check_sent(tables, fate);
	else if (result->push)
		finding("a frame that is not sent is longer now: verdict %u", result->verdict);
	else if (fate->size && memcmp(fate->before, fate->after, fate->size))
		finding("a frame that is not sent has changed: verdict %u", result->verdict);
}

uint64_t check_count(const struct l4_tables *tables)
{
	uint64_t total = 0;

	for (int i = 0; i < L4_VERDICT_ROOM; i++)
		total += tables->queue->verdicts[i];
	for (int i = 0; i < L4_MISS_ROOM; i++)
		total += tables->queue->misses[i];
	return total;
}

void check_counted(const struct l4_tables *tables, const struct fate *fate, uint64_t counted_before)
{
	if (check_count(tables) != counted_before + 1)
		finding("verdict %u was counted %llu times", fate->result.verdict,
			(unsigned long long)(check_count(tables) - counted_before));
}

/* The entry of the other direction names this one, and is of the same flow. */
static void check_peer(const struct l4_tables *tables, uint32_t index)
{
	const struct l4_flow *entry = &tables->flows[index], *peer;

	if (!entry->peer)
		return;
	if (entry->peer > tables->control->flow_entries)
		finding("entry %u names a peer that no table has: %u", index, entry->peer);
	peer = &tables->flows[entry->peer - 1];
	if (peer->state == L4_FLOW_FREE || peer->peer != index + 1)
		finding("entry %u has a peer that does not name it", index);
	if (peer->service != entry->service || peer->backend != entry->backend || peer->protocol != entry->protocol)
		finding("entry %u and its peer are not of one flow", index);
	if (!entry->next_hop == !peer->next_hop)
		finding("of entry %u and its peer not just one names a hop", index);
}

static void check_entry(const struct l4_tables *tables, uint32_t index)
{
	const struct l4_flow *entry = &tables->flows[index];
	const struct l4_policy *policy = &tables->policies[tables->control->generation & 1];

	if (entry->state >= L4_FLOW_STATES)
		finding("entry %u is in state %u", index, entry->state);
	if (entry->state == L4_FLOW_RESTING && (entry->peer || entry->next_hop))
		finding("entry %u rests, and is of a flow", index);
	if ((entry->state == L4_FLOW_AFFINITY) != !entry->protocol || (!entry->protocol && entry->peer))
		finding("entry %u is a client's choice, and a flow", index);
	if (entry->state != L4_FLOW_RESTING &&
	    (entry->state == L4_FLOW_UDP || entry->state == L4_FLOW_UDP_NEW) != (entry->protocol == 17))
		finding("entry %u has a state of another protocol", index);
	if ((entry->state == L4_FLOW_HALF_OPEN || entry->state == L4_FLOW_UDP_NEW) && !entry->next_hop &&
	    (!entry->sequence || entry->sequence > tables->control->place_count ||
	     tables->half_open[entry->sequence - 1] != index + 1))
		finding("entry %u is half-open, and has no place", index);
	if (!entry->backend || entry->backend >= policy->backends || !entry->service ||
	    entry->service >= policy->services)
		finding("entry %u names a service or a backend that no policy has", index);
	if (entry->next_hop > tables->control->hop_count)
		finding("entry %u names a hop that nobody made", index);
	if (l4_flow_find(tables, entry) != index)
		finding("entry %u is not found by its own key", index);
	check_peer(tables, index);
}

/* Flows, and what counts them. */
static void check_flows(const struct l4_tables *tables, uint32_t *references)
{
	const struct l4_control *control = tables->control;
	static uint32_t flows[L4_BACKENDS + 1];
	uint32_t used = 0, overflowed = 0, resting = 0;

	memset(flows, 0, control->backend_limit * sizeof(flows[0]));
	for (uint32_t i = 0; i < control->flow_entries; i++) {
		const struct l4_flow *entry = &tables->flows[i];

		if (entry->lock & 1)
			finding("entry %u is left locked", i);
		if (entry->state == L4_FLOW_FREE)
			continue;
		check_entry(tables, i);
		used++;
		overflowed += i >= control->buckets * L4_SLOTS;
		/* One entry of a flow has a hop, and the other one, or the only one, has none. */
		if (entry->state == L4_FLOW_RESTING)
			resting++;
		else if (entry->next_hop)
			references[entry->next_hop]++;
		else if (entry->state != L4_FLOW_AFFINITY)
			flows[entry->backend]++;
	}
	for (uint32_t i = 0; i < control->backend_limit; i++)
		if (tables->traffic[i].flows - tables->traffic[i].ended != flows[i])
			finding("backend %u has %u flows, and others are counted", i, flows[i]);
	if (used != control->used || used > control->flow_capacity)
		finding("%u entries are in use of %u, %u are counted", used, control->flow_capacity, control->used);
	if (resting != control->resting)
		finding("%u entries rest, %u are counted", resting, control->resting);
	if (overflowed != control->overflowed)
		finding("%u entries overflowed, %u are counted", overflowed, control->overflowed);
}

/* Next hops: as many references as flows name each, and every one in the one list where it belongs. */
static void check_hops(const struct l4_tables *tables, const uint32_t *references)
{
	const struct l4_control *control = tables->control;
	uint32_t learned = 0, listed = 0, freed = 0;

	if (control->hop_count > control->hop_limit)
		finding("%u hops of %u", control->hop_count, control->hop_limit);
	for (uint32_t i = 1; i <= control->hop_count; i++) {
		const struct l4_next_hop *hop = &tables->next_hops[i];

		if (hop->references != references[i])
			finding("hop %u has %u references, and %u flows name it", i, hop->references, references[i]);
		learned += hop->references != 0;
	}
	for (uint32_t i = 0; i < control->head_limit; i++)
		for (uint32_t at = tables->heads[i]; at; at = tables->next_hops[at].next)
			if (++listed > learned || !tables->next_hops[at].known)
				finding("the lists of hops have one that is not learned, or a circle");
	for (uint32_t at = control->hop_free; at; at = tables->next_hops[at].next)
		if (++freed > control->hop_freed || tables->next_hops[at].known)
			finding("the list of free hops has one that is not free, or a circle");
	if (listed != learned || freed != control->hop_freed)
		finding("%u hops are learned, %u listed; %u are free, %u counted", learned, listed, freed,
			control->hop_freed);
}

void check_tables(const struct l4_tables *tables)
{
	static uint32_t references[L4_NEXT_HOPS + 1];
	const struct l4_control *control = tables->control;

	for (uint32_t i = 0; i < L4_STRIPES; i++)
		if (tables->stripes[i])
			finding("stripe %u is left locked", i);
	if (control->overflow_lock || control->hop_lock)
		finding("a lock of the overflow area or of the hops is left locked");
	memset(references, 0, (control->hop_limit + 1) * sizeof(references[0]));
	check_flows(tables, references);
	check_hops(tables, references);
}
