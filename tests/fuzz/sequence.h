/* SPDX-License-Identifier: MIT */
/* A sequence under way: what gather.c and sequence.c share. */
#ifndef L4RAW_TESTS_FUZZ_SEQUENCE_H
#define L4RAW_TESTS_FUZZ_SEQUENCE_H

#include "fuzz.h"

enum { REMEMBERED = 16, LONGEST = 2048, MOST_SIZE = 65535 };

/* A frame that was given, or one that was sent: not the long ones. */
struct kept {
	uint8_t bytes[LONGEST];
	uint32_t size, arm;
};

struct kept_list {
	struct kept frames[REMEMBERED];
	uint32_t count;
};

struct sequence {
	struct world *world;
	const uint8_t *at, *end;
	enum mode mode;
	bool loud;
	struct l4_frame pending[L4_BURST];
	uint8_t *before[L4_BURST];
	uint32_t count, wanted;
	struct kept_list given, sent;
	struct outcome *outcome;
};

/* The which-th, counted from the last one; NULL: there is none yet. */
const struct kept *kept(const struct kept_list *list, uint32_t which);
/* Steer what was gathered, in a burst or one by one. */
void flush(struct sequence *sequence);
/* One frame more: `size` bytes, and `stretch` of 0xa5; `how` and `odd` as in frame_fix(). */
void add(struct sequence *sequence, const uint8_t *bytes, uint32_t size, uint32_t stretch, uint32_t how, uint8_t odd);

#endif
