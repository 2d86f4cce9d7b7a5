/* SPDX-License-Identifier: MIT */
/*
 * The fuzzer of the helper: what its files share.
 *
 *   main.c      mutates inputs, keeps those that reach something new
 *   mutate.c    how an input is changed
 *   sequence.c  does what the bytes of an input say: steps.h
 *   gather.c    its frames: steered, checked, remembered
 *   tables.c    the steps that are no frames
 *   frames.c    reads and repairs frames, with none of the helper's code
 *   checks.c    what must hold after each step
 *   world.c     the tables, loaded once and reset for each input
 *   coverage.c  what the instrumented code reached
 *
 * An input is a sequence of steps: frames, repeated, answered or in floods;
 * bursts; the clock; a policy replaced; flows put, freed, touched.
 */
#ifndef L4RAW_TESTS_FUZZ_H
#define L4RAW_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "l4raw_abi.h"
#include "abi.h"
#include "helper.h"

enum {
	MOST_BYTES = 8192,         /* of an input */
	MOST_STEPS = 512,
	MOST_BLOCKS = 64,          /* allocations of a world */
	MOST_WORLDS = 8,
	EDGES = 1 << 16,
	PAIRS = 256,               /* compared values that are remembered; a power of 2 */
};

/* Say what does not hold and abort: the one who started the fuzzer has the input. */
_Noreturn void finding(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* world.c: tables as they are before the first step. */
struct block {
	uint8_t *at, *before;
	uint64_t size;
	bool constant;             /* no frame changes it */
};

struct world {
	struct l4_tables tables;
	struct block blocks[MOST_BLOCKS];
	uint32_t count;
	uint32_t pinned;           /* hops from 1 on that are backends' */
};

void world_load(struct world *world, const char *path);
void world_reset(struct world *world);
uint64_t world_digest(const struct world *world);
void world_check_constant(const struct world *world);

/* frames.c: a frame, as somebody else reads it. */
enum sum { SUM_ABSENT, SUM_RIGHT, SUM_PARTIAL, SUM_NONE, SUM_WRONG };

struct seen {
	bool ip;                   /* IPv4 or IPv6, whole */
	bool v6;
	uint32_t start;            /* of the IP header: behind the tag, if there is one */
	uint8_t protocol;          /* TCP, UDP, ICMP of this version; 0: none of them, or a fragment */
	uint32_t l4, length;       /* what its checksum covers */
	uint32_t field;            /* where that is */
	uint16_t partial;          /* the pseudo-header's sum */
};

/* Bits of `how` in a step with a frame. */
enum { HOW_ARM = 1, HOW_SUM = 2 | 4, HOW_FIX_IP = 8, HOW_FIX_L4 = 16, HOW_ODD_START = 32, HOW_MAC = 64, HOW_NO_ROOM = 128 };
/* Of HOW_SUM: what is told of the checksum, and what it is. */
enum { HOW_WHOLE = 0, HOW_UNTOLD = 2, HOW_TOLD = 4, HOW_PARTIAL_UNTOLD = 6 };

/* Offset of what follows the Ethernet header, and its tag: IEEE 802.1Q. */
uint32_t frame_ip_at(const uint8_t *frame, uint32_t size);
struct seen frame_look(const uint8_t *frame, uint32_t size);
bool frame_ip_right(const uint8_t *frame, const struct seen *seen);
enum sum frame_sum(const uint8_t *frame, const struct seen *seen);
/* Put sums right or make them partial, as `how` asks. Returns what the helper is told of the checksum. */
int32_t frame_fix(uint8_t *frame, uint32_t size, uint32_t how, uint8_t odd);
/* Exchange source and destination of addresses and ports. */
void frame_turn(uint8_t *frame, uint32_t size);
/* The key of its flow. False: it has no ports. */
bool frame_key(const uint8_t *frame, uint32_t size, struct l4_flow *key);

/* checks.c */
struct fate {
	const uint8_t *before, *after;
	uint32_t size;             /* before */
	uint32_t arm;
	int32_t csum_start;
	struct l4_result result;
};

void check_fate(const struct l4_tables *tables, const struct fate *fate);
void check_counted(const struct l4_tables *tables, const struct fate *fate, uint64_t counted_before);
uint64_t check_count(const struct l4_tables *tables);
void check_tables(const struct l4_tables *tables);

/* tables.c: what Python does, with arguments out of an input. */
void table_free(const struct l4_tables *tables, uint32_t n);
void table_expire(const struct l4_tables *tables, uint32_t limit);
void table_put(const struct l4_tables *tables, const uint8_t *frame, uint32_t size, const uint8_t *choices);
void table_touch(const struct l4_tables *tables, uint32_t n, uint32_t state, uint32_t packets);
void table_set_hop(const struct l4_tables *tables, uint32_t pinned, uint32_t n, uint32_t known);

/* sequence.c */
enum mode { IN_BURSTS, ONE_BY_ONE };

struct outcome {
	uint64_t frames;           /* that were steered */
	uint64_t digest;           /* of all results and frames */
	const struct world *world;
};

/* Do what `input` says over its world, which is reset before. */
void sequence_run(struct world *worlds, uint32_t count, const uint8_t *input, uint32_t size, enum mode mode, bool loud,
		  struct outcome *outcome);

/* mutate.c */
struct input {
	uint8_t *bytes;
	uint32_t size;
};

struct random {
	uint64_t state;
};

uint64_t random_next(struct random *random);
uint32_t random_below(struct random *random, uint32_t limit);
/* Change `size` bytes at `bytes`, which has room for MOST_BYTES; `other` is some other input. Returns the new size. */
uint32_t mutate(struct random *random, uint8_t *bytes, uint32_t size, const struct input *other);
/* The length of the step that begins at `at`, of which `left` bytes are there. */
uint32_t step_length(const uint8_t *at, uint32_t left);

/* coverage.c */
struct pair {
	uint64_t found, wanted;
	uint32_t width;
};

extern uint8_t coverage_edges[EDGES];
extern struct pair coverage_pairs[PAIRS];

void coverage_start(void);
/* Whether the run since coverage_start() reached an edge, or reached it so often, for the first time. */
bool coverage_is_new(void);
uint32_t coverage_blocks(void);
uint32_t coverage_edges_seen(void);
/* Write the addresses of the blocks that were reached, in hexadecimal, one a line. */
void coverage_write(const char *path);

#endif
