/* SPDX-License-Identifier: MIT */
/*
 * A world: tables that Python made and wrote to a file (tests/fuzz/image.py).
 * Each allocation has a block of its own, so that the sanitizer knows where
 * it ends. Nothing here knows what the tables are.
 *
 *   file:    blocks u32, pointers u32, size of struct l4_tables u32, 0 u32, the struct
 *   block:   size u64, constant u64, bytes
 *   pointer: offset in the struct u64, block u64, offset in the block u64
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

static void get(FILE *file, void *to, size_t size)
{
	if (size && fread(to, size, 1, file) != 1) {
		fprintf(stderr, "the file of a world ends too early\n");
		exit(2);
	}
}

static void *room(uint64_t size)
{
	void *found = malloc(size ? size : 1);

	if (!found)
		abort();
	return found;
}

static void get_block(FILE *file, struct block *block)
{
	uint64_t head[2];

	get(file, head, sizeof(head));
	block->size = head[0];
	block->constant = head[1] != 0;
	block->at = room(block->size);
	block->before = room(block->size);
	get(file, block->before, block->size);
	memcpy(block->at, block->before, block->size);
}

void world_load(struct world *world, const char *path)
{
	FILE *file = fopen(path, "rb");
	uint32_t head[4], i;

	if (!file) {
		perror(path);
		exit(2);
	}
	get(file, head, sizeof(head));
	if (head[0] > MOST_BLOCKS || head[2] != sizeof(world->tables)) {
		fprintf(stderr, "%s was written for another build\n", path);
		exit(2);
	}
	get(file, &world->tables, sizeof(world->tables));
	world->count = head[0];
	for (i = 0; i < head[0]; i++)
		get_block(file, &world->blocks[i]);
	for (i = 0; i < head[1]; i++) {
		uint64_t pointer[3];
		uint8_t *to;

		get(file, pointer, sizeof(pointer));
		to = world->blocks[pointer[1]].at + pointer[2];
		memcpy((uint8_t *)&world->tables + pointer[0], &to, sizeof(to));
	}
	fclose(file);
	world->pinned = world->tables.control->hop_count;
}

void world_reset(struct world *world)
{
	for (uint32_t i = 0; i < world->count; i++) {
		const struct block *block = &world->blocks[i];

		if (!block->constant)
			memcpy(block->at, block->before, block->size);
	}
}

/* Of everything that frames and time have left (FNV-1a). */
uint64_t world_digest(const struct world *world)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (uint32_t i = 0; i < world->count; i++)
		for (uint64_t j = 0; !world->blocks[i].constant && j < world->blocks[i].size; j++)
			hash = (hash ^ world->blocks[i].at[j]) * 0x100000001b3ull;
	return hash;
}

void world_check_constant(const struct world *world)
{
	for (uint32_t i = 0; i < world->count; i++) {
		const struct block *block = &world->blocks[i];

		if (block->constant && memcmp(block->at, block->before, block->size))
			finding("a table that no frame may change has changed: block %u of the world", i);
	}
}
