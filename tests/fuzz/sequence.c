/* SPDX-License-Identifier: MIT */
/* What an input says (steps.h), done with the helper, and checked after every step. */
#include <stdio.h>
#include <string.h>

#include "sequence.h"
#include "steps.h"

static uint8_t get8(struct sequence *sequence)
{
	return sequence->at < sequence->end ? *sequence->at++ : 0;
}

static uint32_t get16(struct sequence *sequence)
{
	uint32_t first = get8(sequence);

	return first | (uint32_t)get8(sequence) << 8;
}

static uint32_t get32(struct sequence *sequence)
{
	uint32_t first = get16(sequence);

	return first | get16(sequence) << 16;
}

static void do_frame(struct sequence *sequence)
{
	uint32_t how = get8(sequence), odd = get8(sequence), stretch = get8(sequence), size = get16(sequence);
	uint32_t left = (uint32_t)(sequence->end - sequence->at);

	size = size < left ? size : left;
	sequence->at += size;
	add(sequence, sequence->at - size, size, stretch * stretch, how, (uint8_t)odd);
}

static void do_again(struct sequence *sequence)
{
	const struct kept *old = kept(&sequence->given, get8(sequence));
	uint32_t how = get8(sequence), odd = get8(sequence), at = get8(sequence), change = get8(sequence);
	uint8_t copy[LONGEST];

	if (!old)
		return;
	memcpy(copy, old->bytes, old->size);
	if (at < old->size)
		copy[at] ^= (uint8_t)change;
	add(sequence, copy, old->size, 0, (how & ~1u) | old->arm, (uint8_t)odd);
}

static void do_answer(struct sequence *sequence)
{
	const struct kept *old = kept(&sequence->sent, get8(sequence));
	uint32_t how = get8(sequence), odd = get8(sequence), flags = get8(sequence);
	uint8_t copy[LONGEST];
	struct seen seen;

	if (!old)
		return;
	memcpy(copy, old->bytes, old->size);
	frame_turn(copy, old->size);
	seen = frame_look(copy, old->size);
	if (seen.protocol == 6 && flags)
		copy[seen.l4 + 13] = (uint8_t)flags;
	add(sequence, copy, old->size, 0, (how & ~1u) | old->arm, (uint8_t)odd);
}

static void do_flood(struct sequence *sequence)
{
	const struct kept *old = kept(&sequence->given, get8(sequence));
	uint32_t how = get8(sequence), count = get8(sequence) % L4_BURST;
	struct kept copy, second;
	struct seen seen;

	if (!old)
		return;
	copy = *old;
	seen = frame_look(copy.bytes, copy.size);
	for (uint32_t i = 0; i < count && seen.protocol; i++) {
		copy.bytes[seen.l4] = (uint8_t)(copy.bytes[seen.l4] + 1);
		copy.bytes[seen.l4 + 1] = (uint8_t)(copy.bytes[seen.l4 + 1] + 1);
		/* Another machine sends it, now and then. */
		copy.bytes[11] = (uint8_t)(copy.bytes[11] + !(i % 4));
		add(sequence, copy.bytes, copy.size, 0, (how & ~1u) | copy.arm, 0);
		/* One frame is a half-open flow, of which there are few. */
		second = copy;
		if (seen.protocol == 6)
			second.bytes[seen.l4 + 13] = 16; /* ACK */
		add(sequence, second.bytes, second.size, 0, (how & ~1u) | second.arm, 0);
	}
}

static void do_clock(struct sequence *sequence)
{
	sequence->world->tables.control->now += get32(sequence);
}

/* A reload: Python waits until every queue has passed, then the halves change. */
static void do_switch(struct sequence *sequence)
{
	const struct l4_tables *tables = &sequence->world->tables;

	l4_pass(tables);
	if (!l4_settled(tables))
		finding("a queue that has passed is not settled");
	l4_switch(tables);
	if (tables->queue->online && l4_settled(tables))
		finding("a queue that has not passed is settled");
}

static void do_queue(struct sequence *sequence)
{
	const struct l4_tables *tables = &sequence->world->tables;
	uint32_t what = get8(sequence) % 3;

	if (what == 0)
		l4_pass(tables);
	else if (what == 1)
		l4_online(tables);
	else
		l4_offline(tables);
}

/* The steps that are no frames: each ends the burst before it. */
static void do_other(struct sequence *sequence, uint32_t step)
{
	const struct l4_tables *tables = &sequence->world->tables;
	const struct kept *old;
	uint8_t bytes[4];

	flush(sequence);
	switch (step) {
	case BURST:
		sequence->wanted = 1 + get8(sequence) % L4_BURST;
		return;
	case CLOCK:
		do_clock(sequence);
		return;
	case SWITCH:
		do_switch(sequence);
		return;
	case QUEUE:
		do_queue(sequence);
		return;
	case FREE:
		table_free(tables, get8(sequence));
		return;
	case EXPIRE:
		table_expire(tables, get16(sequence));
		return;
	case PUT:
		old = kept(&sequence->given, get8(sequence));
		for (uint32_t i = 0; i < 3; i++)
			bytes[i] = get8(sequence);
		if (old)
			table_put(tables, old->bytes, old->size, bytes);
		return;
	case TOUCH:
		bytes[0] = get8(sequence);
		bytes[1] = get8(sequence);
		table_touch(tables, bytes[0], bytes[1], get32(sequence));
		return;
	default:
		bytes[0] = get8(sequence);
		table_set_hop(tables, sequence->world->pinned, bytes[0], get8(sequence));
	}
}

static void do_step(struct sequence *sequence)
{
	static const char *const names[STEPS] = { "frame", "again", "answer", "flood",  "burst", "clock", "switch",
						  "queue", "free",  "expire", "put",    "touch", "hop" };
	uint32_t step = get8(sequence) % STEPS;

	if (sequence->loud) {
		printf("%s\n", names[step]);
		fflush(stdout);
	}
	switch (step) {
	case FRAME:
		do_frame(sequence);
		return;
	case AGAIN:
		do_again(sequence);
		return;
	case ANSWER:
		do_answer(sequence);
		return;
	case FLOOD:
		do_flood(sequence);
		return;
	default:
		do_other(sequence, step);
		check_tables(&sequence->world->tables);
	}
}

void sequence_run(struct world *worlds, uint32_t count, const uint8_t *input, uint32_t size, enum mode mode, bool loud,
		  struct outcome *outcome)
{
	static struct sequence sequence;

	sequence.at = input;
	sequence.end = input + size;
	sequence.world = &worlds[get8(&sequence) % count];
	sequence.mode = mode;
	sequence.loud = loud;
	sequence.given.count = sequence.sent.count = 0;
	sequence.count = sequence.wanted = 0;
	sequence.outcome = outcome;
	*outcome = (struct outcome){ .digest = 0xcbf29ce484222325ull };
	world_reset(sequence.world);
	for (uint32_t steps = 0; sequence.at < sequence.end && steps < MOST_STEPS; steps++)
		do_step(&sequence);
	flush(&sequence);
	check_tables(&sequence.world->tables);
	outcome->world = sequence.world;
}
