/* SPDX-License-Identifier: MIT */
/*
 * The stages of steer.h, over one frame and over a burst; and the counters.
 * What Python calls to change a shared table is in shared.c.
 */
/*
 * A context is not set to 0 first; see begin(). The compiler does not follow
 * that `headers` are read only while there is no verdict, and what
 * NAT needs only where `nat` is set.
 */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <string.h>

#include "memory.h"
#include "steer.h"
#include "foresee.h"
#include "traffic.h"
#include "helper.h"

_Static_assert(sizeof(struct ethhdr) == 14, "Ethernet II");

/* The half that is in force, for a burst; see l4_settled(). */
static inline uint32_t pass(const struct l4_tables *tables)
{
	uint32_t generation = l4_load_acquire(&tables->control->generation);

	/* After everything that this thread has read from the half before. */
	l4_store_release(&tables->queue->generation, generation);
	return generation & 1;
}

/* Only what is read before it is written, of some 250 bytes: to set all to 0 took 8 of 45 ns a frame. */
static inline void begin(struct l4_context *context, const struct l4_tables *tables, uint32_t half,
			 const struct l4_frame *frame)
{
	context->tables = tables;
	context->half = half;
	context->data = frame->data;
	context->end = frame->data + frame->size;
	context->arm = frame->arm;
	context->csum_start = frame->csum_start;
	context->room = frame->room;
	context->flow = L4_NONE;
	memset(&context->miss, 0, offsetof(struct l4_context, hop) - offsetof(struct l4_context, miss));
}

static inline void report(const struct l4_context *context, struct l4_result *result)
{
	bool is_miss = context->verdict == L4_MISS;

	*result = (struct l4_result){
		.flow = context->flow,
		.verdict = (uint16_t)context->verdict,
		.backend = (uint16_t)context->backend,
		.arm = (uint8_t)(context->verdict < L4_SENT ? context->out_arm : 0),
		.miss = (uint8_t)(is_miss ? context->miss : 0),
		.push = (uint16_t)context->push,
	};
}

unsigned l4_steer(const struct l4_tables *tables, const struct l4_frame *frame, struct l4_result *result)
{
	struct l4_context context;

	begin(&context, tables, pass(tables), frame);
	l4_see(&context);
	l4_decide(&context);
	l4_rewrite(&context);
	report(&context, result);
	return result->verdict;
}

/* Instead of an index: it does not look, as it has no key, or a verdict already. */
enum { NOWHERE = -10 };

/* A frame of a burst, and where in the table it looks. */
struct abreast {
	struct l4_context context;
	struct l4_choice bucket;
	int64_t index;             /* of context.entry, that is probably its flow's; 0 before it looks; L4_NONE; or NOWHERE */
};

/*
 * What the next stage will read, on its way into the cache: the tags of both
 * buckets, then the one entry that they point to, or that is free for a new
 * flow, then its peer. With a million flows all of these are misses
 * (tests/bench/helper.py).
 */
L4_INLINE void prefetch_tags(struct abreast *one)
{
	const struct l4_context *context = &one->context;

	one->index = NOWHERE;
	if (context->verdict != L4_UNDECIDED || !context->headers.l4)
		return;
	one->index = 0;
	one->bucket = l4_buckets_of(context->tables, context->headers.key.hash);
	__builtin_prefetch(&context->tables->tags[one->bucket.first], 0);
	__builtin_prefetch(&context->tables->tags[one->bucket.second], 0);
}

/* True: nothing was found for it, so it is of a new flow as a rule. */
L4_INLINE bool prefetch_entry(struct abreast *one)
{
	struct l4_context *context = &one->context;
	uint64_t candidates;

	if (one->index < 0)
		return false;
	candidates = l4_candidates(context->tables, one->bucket, context->headers.key.hash);
	if (candidates) {
		one->index = l4_first_of(one->bucket, candidates);
		context->entry = &context->tables->flows[one->index];
		l4_prefetch(context->entry);
		return false;
	}
	one->index = L4_NONE;
	l4_prefetch(l4_next_free(context->tables, one->bucket));
	return true;
}

/* l4_look(), if it is the first candidate; else l4_decide() looks. */
L4_INLINE void look_ahead(struct abreast *one)
{
	struct l4_context *context = &one->context;
	uint32_t peer;

	if (one->index < 0)
		return;
	context->flow = l4_is_at(context->entry, (uint32_t)one->index, &context->headers.key, &context->generation);
	if (context->flow < 0)
		return;
	peer = l4_load(&context->entry->peer);
	if (peer)
		__builtin_prefetch(&context->tables->flows[peer - 1], 0);
}

/*
 * How many frames are at the same stage: enough for a cache miss of the first to be over when its next stage
 * comes, and so few that all of their contexts stay in the first-level cache.
 */
enum { ABREAST = 16 };

/* What the new flows among them will touch, a stage after the other. */
L4_APART void foresee(const struct abreast *all, uint32_t count)
{
	const struct l4_tables *tables = all->context.tables;
	const uint16_t *slots[ABREAST];
	struct l4_choice replies[ABREAST];
	struct l4_flow *leaving[ABREAST];
	uint32_t i, ahead = 0;

	for (i = 0; i < count; i++) {
		bool is_new = all[i].index == L4_NONE;

		leaving[i] = is_new ? l4_foresee_end(tables, ahead) : NULL;
		slots[i] = is_new ? l4_foresee_slot(&all[i].context, ahead++) : NULL;
	}
	for (i = 0; i < count; i++) {
		if (leaving[i])
			l4_foresee_peer(tables, leaving[i]);
		if (slots[i])
			replies[i] = l4_foresee_reply(&all[i].context, *slots[i]);
	}
	for (i = 0; i < count; i++)
		if (slots[i])
			l4_prefetch(l4_next_free(tables, replies[i]));
}

static inline void steer_abreast(const struct l4_tables *tables, const struct l4_frame *frames, uint32_t count,
				 uint32_t half, struct l4_result *results)
{
	struct abreast all[ABREAST], *end = &all[count], *one;
	bool some_are_new = false;

	for (one = all; one < end; one++) {
		begin(&one->context, tables, half, frames++);
		l4_see(&one->context);
		prefetch_tags(one);
	}
	for (one = all; one < end; one++)
		some_are_new |= prefetch_entry(one);
	for (one = all; one < end; one++)
		look_ahead(one);
	if (l4_unlikely(some_are_new))
		foresee(all, count);
	/* In order, each with its effects, so that it is as if the frames had come one by one. */
	for (one = all; one < end; one++) {
		l4_decide(&one->context);
		l4_rewrite(&one->context);
		report(&one->context, results++);
	}
}

void l4_steer_burst(const struct l4_tables *tables, const struct l4_frame *frames, uint32_t count,
		    struct l4_result *results)
{
	uint32_t half = pass(tables), i;

	if (count > L4_BURST)
		count = L4_BURST;
	for (i = 0; i < count; i += ABREAST)
		steer_abreast(tables, &frames[i], count - i < ABREAST ? count - i : ABREAST, half, &results[i]);
}

void l4_count(const struct l4_tables *tables, const struct l4_result *result, uint32_t size)
{
	if (result->verdict != L4_MISS)
		l4_count_frame(tables, result->verdict, result->backend, size);
	else if (result->miss < L4_MISS_COUNT)
		l4_count_up(&tables->queue->misses[result->miss], 1);
}

void l4_pass(const struct l4_tables *tables)
{
	pass(tables);
}

void l4_online(const struct l4_tables *tables)
{
	l4_store(&tables->queue->online, 1u);
	/* With the fence of l4_switch(): it sees this queue online, or this queue sees its generation. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	pass(tables);
}

void l4_offline(const struct l4_tables *tables)
{
	l4_store_release(&tables->queue->online, 0u);
}

int l4_settled(const struct l4_tables *tables)
{
	uint32_t generation = l4_load(&tables->control->generation), i;

	for (i = 0; i < tables->control->queue_limit; i++) {
		struct l4_queue *queue = &tables->queue[i];

		/* Acquire: what the queue read from the old half, it read before it is overwritten. */
		if (l4_load_acquire(&queue->online) && l4_load_acquire(&queue->generation) != generation)
			return 0;
	}
	return 1;
}

void l4_switch(const struct l4_tables *tables)
{
	l4_store_release(&tables->control->generation, l4_load(&tables->control->generation) + 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
