/* SPDX-License-Identifier: MIT */
/* How an input becomes another one: bytes, values that were compared, whole steps. */
#include <string.h>

#include "fuzz.h"
#include "steps.h"

uint64_t random_next(struct random *random)
{
	/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
	random->state ^= random->state >> 12;
	random->state ^= random->state << 25;
	random->state ^= random->state >> 27;
	return random->state * 0x2545F4914F6CDD1Dull;
}

uint32_t random_below(struct random *random, uint32_t limit)
{
	return limit ? (uint32_t)((random_next(random) >> 32) * limit >> 32) : 0;
}

uint32_t step_length(const uint8_t *at, uint32_t left)
{
	static const uint32_t lengths[STEPS] = {
		[FRAME] = 6, [AGAIN] = 6, [ANSWER] = 5, [FLOOD] = 4, [BURST] = 2, [CLOCK] = 5, [SWITCH] = 1,
		[QUEUE] = 2, [FREE] = 2, [EXPIRE] = 3, [PUT] = 5, [TOUCH] = 7, [HOP] = 3,
	};
	uint32_t length = lengths[at[0] % STEPS];
	uint16_t bytes;

	if (at[0] % STEPS == FRAME && left >= length) {
		memcpy(&bytes, at + 4, sizeof(bytes));
		length += bytes;
	}
	return length < left ? length : left;
}

/* Where steps begin; the last is the end. The first byte names the world. */
static uint32_t steps_of(const uint8_t *bytes, uint32_t size, uint32_t *starts)
{
	uint32_t at = 1, count = 0;

	while (at < size && count < MOST_STEPS) {
		starts[count++] = at;
		at += step_length(bytes + at, size - at);
	}
	starts[count] = at < size ? at : size;
	return count;
}

/* Put `length` bytes of `from` at `at`. */
static uint32_t insert(uint8_t *bytes, uint32_t size, uint32_t at, const uint8_t *from, uint32_t length)
{
	if (size + length > MOST_BYTES)
		return size;
	memmove(bytes + at + length, bytes + at, size - at);
	memmove(bytes + at, from, length);
	return size + length;
}

static uint32_t erase(uint8_t *bytes, uint32_t size, uint32_t at, uint32_t length)
{
	memmove(bytes + at, bytes + at + length, size - at - length);
	return size - length;
}

/* A step goes, is made of random bytes, is doubled, or comes from another input. */
static uint32_t change_steps(struct random *random, uint8_t *bytes, uint32_t size, const struct input *other)
{
	uint32_t starts[MOST_STEPS + 1], theirs[MOST_STEPS + 1], from, to, many;
	uint32_t count = steps_of(bytes, size, starts), others = steps_of(other->bytes, other->size, theirs);
	uint32_t one = random_below(random, count + 1);
	uint8_t made[8], copy[MOST_BYTES];

	switch (random_below(random, 4)) {
	case 0:
		if (one == count)
			return size;
		return erase(bytes, size, starts[one], starts[one + 1] - starts[one]);
	case 1:
		for (uint32_t i = 0; i < sizeof(made); i++)
			made[i] = (uint8_t)random_next(random);
		made[0] = (uint8_t)(1 + random_below(random, STEPS - 1)); /* any but FRAME, which is long */
		return insert(bytes, size, starts[one], made, step_length(made, sizeof(made)));
	case 2:
		if (one == count)
			return size;
		to = starts[random_below(random, count + 1)];
		memcpy(copy, bytes + starts[one], starts[one + 1] - starts[one]);
		return insert(bytes, size, to, copy, starts[one + 1] - starts[one]);
	default:
		if (!others)
			return size;
		from = random_below(random, others);
		many = 1 + random_below(random, others - from < 8 ? others - from : 8);
		return insert(bytes, size, starts[one], other->bytes + theirs[from],
			      theirs[from + many] - theirs[from]);
	}
}

/* Put a value that was wanted where the one that was found is; both byte orders. */
static void change_compared(struct random *random, uint8_t *bytes, uint32_t size)
{
	const struct pair *pair = &coverage_pairs[random_below(random, PAIRS)];
	uint32_t at, start = random_below(random, size), width = pair->width;
	bool swap = random_below(random, 2);
	uint8_t found[8], wanted[8];

	if (!width || width > size)
		return;
	for (uint32_t i = 0; i < width; i++) {
		uint32_t place = swap ? width - 1 - i : i;

		found[place] = (uint8_t)(pair->found >> 8 * i);
		wanted[place] = (uint8_t)(pair->wanted >> 8 * i);
	}
	for (at = start; at + width <= size; at++) {
		if (memcmp(bytes + at, found, width))
			continue;
		memcpy(bytes + at, wanted, width);
		return;
	}
}

static void change_byte(struct random *random, uint8_t *byte)
{
	static const uint8_t odd[] = { 0, 1, 2, 4, 5, 6, 15, 16, 17, 20, 40, 64, 127, 128, 254, 255 };

	switch (random_below(random, 4)) {
	case 0:
		*byte ^= (uint8_t)(1u << random_below(random, 8));
		return;
	case 1:
		*byte = (uint8_t)(*byte + random_below(random, 9) - 4);
		return;
	case 2:
		*byte = odd[random_below(random, sizeof(odd))];
		return;
	default:
		*byte = (uint8_t)random_next(random);
	}
}

/* A run of bytes is copied to another place of the input, over what is there. */
static void change_run(struct random *random, uint8_t *bytes, uint32_t size)
{
	uint32_t from = random_below(random, size), to = random_below(random, size);
	uint32_t most = size - (from > to ? from : to), length = 1 + random_below(random, 16);

	memmove(bytes + to, bytes + from, length < most ? length : most);
}

uint32_t mutate(struct random *random, uint8_t *bytes, uint32_t size, const struct input *other)
{
	uint32_t changes = 1u << random_below(random, 4);

	while (changes--) {
		uint32_t chance = random_below(random, 16);

		if (size < 2)
			chance = 15;
		if (chance < 6)
			change_byte(random, bytes + random_below(random, size));
		else if (chance < 8)
			change_run(random, bytes, size);
		else if (chance < 11)
			change_compared(random, bytes, size);
		else
			size = change_steps(random, bytes, size, other);
		if (!size)
			bytes[size++] = 0;
	}
	return size;
}
