/* SPDX-License-Identifier: MIT */
/*
 * What the compiler's -fsanitize-coverage=trace-pc,trace-cmp calls at every
 * block and every comparison of the helper. This file is compiled without.
 *
 * An edge is a block after another one, as in AFL: how often it was passed
 * counts by powers of two. Values that were compared and were not equal are
 * remembered, for mutate.c to put one in the other's place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { TEXT = 1 << 22 };

uint8_t coverage_edges[EDGES];
struct pair coverage_pairs[PAIRS];

static uint8_t reached[TEXT];      /* by address of a block, from the start of the program */
static uint8_t known[EDGES];       /* by edge: which powers of two were seen */
static uint32_t blocks, edges, previous, next_pair;

extern const char __executable_start;

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_cmp1(uint8_t one, uint8_t other);
void __sanitizer_cov_trace_cmp2(uint16_t one, uint16_t other);
void __sanitizer_cov_trace_cmp4(uint32_t one, uint32_t other);
void __sanitizer_cov_trace_cmp8(uint64_t one, uint64_t other);
void __sanitizer_cov_trace_const_cmp1(uint8_t one, uint8_t other);
void __sanitizer_cov_trace_const_cmp2(uint16_t one, uint16_t other);
void __sanitizer_cov_trace_const_cmp4(uint32_t one, uint32_t other);
void __sanitizer_cov_trace_const_cmp8(uint64_t one, uint64_t other);
void __sanitizer_cov_trace_switch(uint64_t value, void *cases);

void __sanitizer_cov_trace_pc(void)
{
	uintptr_t at = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&__executable_start;
	uint32_t block = (uint32_t)at * 0x9E3779B1u >> 16;
	uint8_t *edge = &coverage_edges[(block ^ previous) % EDGES];

	previous = block >> 1;
	if (*edge != 255)
		(*edge)++;
	if (at < TEXT && !reached[at]) {
		reached[at] = 1;
		blocks++;
	}
}

static void compared(uint64_t one, uint64_t other, uint32_t width)
{
	if (one == other)
		return;
	coverage_pairs[next_pair++ % PAIRS] = (struct pair){ one, other, width };
}

void __sanitizer_cov_trace_cmp1(uint8_t one, uint8_t other) { compared(one, other, 1); }
void __sanitizer_cov_trace_cmp2(uint16_t one, uint16_t other) { compared(one, other, 2); }
void __sanitizer_cov_trace_cmp4(uint32_t one, uint32_t other) { compared(one, other, 4); }
void __sanitizer_cov_trace_cmp8(uint64_t one, uint64_t other) { compared(one, other, 8); }
/* The constant comes first; it is what is wanted. */
void __sanitizer_cov_trace_const_cmp1(uint8_t one, uint8_t other) { compared(other, one, 1); }
void __sanitizer_cov_trace_const_cmp2(uint16_t one, uint16_t other) { compared(other, one, 2); }
void __sanitizer_cov_trace_const_cmp4(uint32_t one, uint32_t other) { compared(other, one, 4); }
void __sanitizer_cov_trace_const_cmp8(uint64_t one, uint64_t other) { compared(other, one, 8); }

void __sanitizer_cov_trace_switch(uint64_t value, void *cases)
{
	(void)value;
	(void)cases;
}

void coverage_start(void)
{
	memset(coverage_edges, 0, sizeof(coverage_edges));
	previous = 0;
}

/* 1, 2, 3, 4-7, 8-15, 16-31, 32-127, 128 and more. */
static uint8_t bucket(uint8_t count)
{
	if (count <= 2)
		return count;
	if (count == 3)
		return 4;
	if (count < 8)
		return 8;
	if (count < 16)
		return 16;
	if (count < 32)
		return 32;
	return count < 128 ? 64 : 128;
}

bool coverage_is_new(void)
{
	bool is_new = false;
	uint64_t word;
	uint32_t i, j;

	for (i = 0; i < EDGES; i += 8) {
		memcpy(&word, &coverage_edges[i], sizeof(word));
		for (j = i; word && j < i + 8; j++) {
			uint8_t seen = bucket(coverage_edges[j]);

			if (!(seen & ~known[j]))
				continue;
			edges += !known[j];
			known[j] |= seen;
			is_new = true;
		}
	}
	return is_new;
}

uint32_t coverage_blocks(void)
{
	return blocks;
}

uint32_t coverage_edges_seen(void)
{
	return edges;
}

void coverage_write(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return;
	for (uint32_t i = 0; i < TEXT; i++)
		if (reached[i])
			fprintf(file, "%#lx\n", (unsigned long)((uintptr_t)&__executable_start + i));
	fclose(file);
}
