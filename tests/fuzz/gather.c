/* SPDX-License-Identifier: MIT */
/* Frames are gathered, steered, checked and remembered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sequence.h"

static void *allocated(size_t size)
{
	void *found = malloc(size);

	if (!found)
		abort();
	return found;
}

static void keep(struct kept_list *list, const uint8_t *bytes, uint32_t size, uint32_t arm)
{
	struct kept *place = &list->frames[list->count % REMEMBERED];

	if (size > LONGEST)
		return;
	memcpy(place->bytes, bytes, size);
	place->size = size;
	place->arm = arm;
	list->count++;
}

const struct kept *kept(const struct kept_list *list, uint32_t which)
{
	uint32_t have = list->count < REMEMBERED ? list->count : REMEMBERED;

	return have ? &list->frames[(list->count - 1 - which % have) % REMEMBERED] : NULL;
}

static void digest(struct sequence *sequence, const void *data, size_t size)
{
	uint64_t hash = sequence->outcome->digest;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3ull; /* FNV-1a */
	sequence->outcome->digest = hash;
}

static void say_bytes(const char *what, const uint8_t *bytes, uint32_t size)
{
	printf("   %s ", what);
	for (uint32_t i = 0; i < size && i < 200; i++)
		printf("%02x", bytes[i]);
	printf(size > 200 ? "... (%u bytes)\n" : "\n", size);
}

/* One frame has its result: check it, count it, remember it. */
static void finish(struct sequence *sequence, uint32_t i, const struct l4_result *result)
{
	const struct l4_tables *tables = &sequence->world->tables;
	const struct l4_frame *frame = &sequence->pending[i];
	const struct fate fate = { sequence->before[i], frame->data - result->push, frame->size,
				   frame->arm,          frame->csum_start,          *result };
	uint32_t sent = frame->size + result->push;
	uint64_t counted = check_count(tables);

	if (sequence->loud) {
		printf("frame on arm %u, csum_start %d: %s, flow %lld, arm %u\n", frame->arm, frame->csum_start,
		       result->verdict == L4_MISS ? "MISS" : l4_verdict_name(result->verdict),
		       (long long)result->flow, result->arm);
		say_bytes("given", fate.before, fate.size);
		if (result->verdict < L4_SENT)
			say_bytes("sent ", fate.after, sent);
		fflush(stdout);
	}
	if (result->push > frame->room)
		finding("%u bytes were put in front, where there is room for %u", result->push, frame->room);
	check_fate(tables, &fate);
	l4_count(tables, result, frame->size);
	check_counted(tables, &fate, counted);
	digest(sequence, &result->verdict, sizeof(*result) - offsetof(struct l4_result, verdict));
	/* A burst looks for a flow ahead, also where none is needed in the end. */
	if (result->verdict < L4_SENT)
		digest(sequence, &result->flow, sizeof(result->flow));
	digest(sequence, fate.after, sent);
	keep(&sequence->given, fate.before, fate.size, frame->arm);
	if (result->verdict < L4_SENT)
		keep(&sequence->sent, fate.after, sent, result->arm);
	for (uint32_t j = 0; j < frame->room - result->push; j++)
		if (frame->data[(int64_t)j - frame->room] != 0xa5)
			finding("bytes in front of the frame have changed");
	free(frame->data - frame->room);
	free(sequence->before[i]);
	sequence->outcome->frames++;
}

void flush(struct sequence *sequence)
{
	const struct l4_tables *tables = &sequence->world->tables;
	struct l4_result results[L4_BURST];
	uint32_t i;

	if (sequence->mode == IN_BURSTS && sequence->wanted && sequence->count) {
		l4_steer_burst(tables, sequence->pending, sequence->count, results);
	} else {
		for (i = 0; i < sequence->count; i++) {
			const struct l4_frame *frame = &sequence->pending[i];

			if (l4_steer(tables, frame, &results[i]) != results[i].verdict)
				finding("l4_steer returns another verdict than it writes");
		}
	}
	for (i = 0; i < sequence->count; i++)
		finish(sequence, i, &results[i]);
	sequence->count = sequence->wanted = 0;
}

/* A frame of just its size, and the room in front: the sanitizer sees what is read or written beyond them. */
void add(struct sequence *sequence, const uint8_t *bytes, uint32_t size, uint32_t stretch, uint32_t how, uint8_t odd)
{
	uint32_t whole = size + stretch < MOST_SIZE ? size + stretch : MOST_SIZE, arm = how & HOW_ARM;
	struct l4_frame *frame = &sequence->pending[sequence->count];
	uint32_t room = how & HOW_NO_ROOM ? 0 : L4_TUNNEL_ROOM;
	uint8_t *data = (uint8_t *)allocated(room + whole) + room;

	memset(data - room, 0xa5, room);
	memcpy(data, bytes, size);
	memset(data + size, 0xa5, whole - size);
	if ((how & HOW_MAC) && whole >= 6)
		memcpy(data, sequence->world->tables.control->arms[arm], 6);
	*frame = (struct l4_frame){ .data = data, .size = whole, .arm = arm, .room = room };
	frame->csum_start = frame_fix(data, whole, how, odd);
	sequence->before[sequence->count] = allocated(whole);
	memcpy(sequence->before[sequence->count], data, whole);
	if (++sequence->count >= (sequence->wanted ? sequence->wanted : 1))
		flush(sequence);
}
