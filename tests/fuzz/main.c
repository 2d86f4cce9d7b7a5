/* SPDX-License-Identifier: MIT */
/*
 * Mutate inputs, and keep those that reach something new.
 *
 *   fuzz FOLDER SECONDS SEED WORLD...    FOLDER/seeds/... are the first inputs; FOLDER/corpus/... what is kept
 *   fuzz -r INPUT WORLD...               one input, in words
 *
 * The input that is being run is in FOLDER/current, a shared mapping: who
 * started this has it, however this ends.
 */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

enum { MOST_INPUTS = 1 << 16, BY_TWO_WAYS = 16, HANGS_S = 60, REPORT_S = 10 };
/* On a machine that is busy, a few seconds are nothing. */
enum { LEAST_RUNS = 8192 };

/* Of the mapping. */
struct current {
	uint32_t size;
	uint8_t bytes[MOST_BYTES];
};

struct fuzzer {
	const char *folder;
	struct world *worlds;
	uint32_t world_count;
	struct input corpus[MOST_INPUTS];
	uint32_t count;
	struct random random;
	struct current *current;
	uint64_t runs, frames;
	time_t started, reported;
};

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static struct current *map_current(const char *folder)
{
	char path[4096];
	void *found;
	int file;

	snprintf(path, sizeof(path), "%s/current", folder);
	file = open(path, O_RDWR | O_CREAT, 0644);
	if (file < 0 || ftruncate(file, sizeof(struct current))) {
		perror(path);
		exit(2);
	}
	found = mmap(NULL, sizeof(struct current), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (found == MAP_FAILED) {
		perror(path);
		exit(2);
	}
	close(file);
	return found;
}

static void keep_input(struct fuzzer *fuzzer, bool write)
{
	uint32_t size = fuzzer->current->size;
	struct input *input = &fuzzer->corpus[fuzzer->count];
	char path[4096];
	FILE *file;

	if (fuzzer->count == MOST_INPUTS)
		return;
	input->bytes = malloc(size ? size : 1);
	if (!input->bytes)
		abort();
	memcpy(input->bytes, fuzzer->current->bytes, size);
	input->size = size;
	fuzzer->count++;
	if (!write)
		return;
	snprintf(path, sizeof(path), "%s/corpus/%06u", fuzzer->folder, fuzzer->count);
	file = fopen(path, "wb");
	if (!file || fwrite(input->bytes, 1, size, file) != size || fclose(file)) {
		perror(path);
		exit(2);
	}
}

/* The same input, each frame by itself: as if it had come in bursts. */
static void run_other_way(struct fuzzer *fuzzer, const struct outcome *first)
{
	uint64_t tables = world_digest(first->world);
	struct outcome second;

	sequence_run(fuzzer->worlds, fuzzer->world_count, fuzzer->current->bytes, fuzzer->current->size, ONE_BY_ONE,
		     false, &second);
	fuzzer->frames += second.frames;
	if (second.digest != first->digest)
		finding("l4_steer_burst and l4_steer give different results");
	if (world_digest(second.world) != tables)
		finding("l4_steer_burst and l4_steer leave different tables");
	world_check_constant(first->world);
}

/* Run what is in `current`; keep it, if it reached something new. */
static void run_current(struct fuzzer *fuzzer, bool write)
{
	struct outcome outcome;
	bool is_new;

	alarm(HANGS_S);
	coverage_start();
	sequence_run(fuzzer->worlds, fuzzer->world_count, fuzzer->current->bytes, fuzzer->current->size, IN_BURSTS,
		     false, &outcome);
	is_new = coverage_is_new();
	fuzzer->runs++;
	fuzzer->frames += outcome.frames;
	if (is_new || fuzzer->runs % BY_TWO_WAYS == 0)
		run_other_way(fuzzer, &outcome);
	if (is_new)
		keep_input(fuzzer, write);
}

static void run_file(struct fuzzer *fuzzer, const char *path, bool write)
{
	FILE *file = fopen(path, "rb");

	if (!file) {
		perror(path);
		exit(2);
	}
	fuzzer->current->size = (uint32_t)fread(fuzzer->current->bytes, 1, MOST_BYTES, file);
	fclose(file);
	run_current(fuzzer, write);
}

/* All files of a folder in the order of their names, so that a run can be repeated. */
static void run_folder(struct fuzzer *fuzzer, const char *name, bool write)
{
	struct dirent **entries;
	char path[4096];
	int count, i;

	snprintf(path, sizeof(path), "%s/%s", fuzzer->folder, name);
	count = scandir(path, &entries, NULL, alphasort);
	for (i = 0; i < count; i++) {
		if (entries[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s/%s", fuzzer->folder, name, entries[i]->d_name);
			run_file(fuzzer, path, write);
		}
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

/* One that is there, new ones more often; and changes. */
static void next(struct fuzzer *fuzzer)
{
	struct random *random = &fuzzer->random;
	uint32_t recent = fuzzer->count / 4 + 1, which;
	const struct input *from, *other;

	which = random_below(random, 2) ? fuzzer->count - 1 - random_below(random, recent)
					: random_below(random, fuzzer->count);
	from = &fuzzer->corpus[which];
	other = &fuzzer->corpus[random_below(random, fuzzer->count)];
	memcpy(fuzzer->current->bytes, from->bytes, from->size);
	fuzzer->current->size = mutate(random, fuzzer->current->bytes, from->size, other);
}

static void report(const struct fuzzer *fuzzer)
{
	uint64_t seconds = (uint64_t)(now_s() - fuzzer->started);

	printf("%5llu s  %llu runs (%llu/s), %llu frames, %u blocks, %u edges, %u inputs in the corpus\n",
	       (unsigned long long)seconds, (unsigned long long)fuzzer->runs,
	       (unsigned long long)(fuzzer->runs / (seconds ? seconds : 1)), (unsigned long long)fuzzer->frames,
	       coverage_blocks(), coverage_edges_seen(), fuzzer->count);
	fflush(stdout);
}

static void fuzz(struct fuzzer *fuzzer, long seconds)
{
	char path[4096];

	fuzzer->started = fuzzer->reported = now_s();
	fuzzer->current = map_current(fuzzer->folder);
	run_folder(fuzzer, "corpus", false);
	run_folder(fuzzer, "seeds", true);
	if (!fuzzer->count)
		keep_input(fuzzer, false);
	report(fuzzer);
	while (now_s() - fuzzer->started < seconds || fuzzer->runs < LEAST_RUNS) {
		for (int i = 0; i < 64; i++) {
			next(fuzzer);
			run_current(fuzzer, true);
		}
		if (now_s() - fuzzer->reported < REPORT_S)
			continue;
		fuzzer->reported = now_s();
		report(fuzzer);
	}
	report(fuzzer);
	snprintf(path, sizeof(path), "%s/reached", fuzzer->folder);
	coverage_write(path);
}

static void repeat(struct world *worlds, uint32_t count, const char *path)
{
	uint8_t *bytes = malloc(MOST_BYTES);
	FILE *file = fopen(path, "rb");
	struct outcome outcome;
	uint64_t digest, tables;
	uint32_t size;

	if (!bytes || !file) {
		perror(path);
		exit(2);
	}
	size = (uint32_t)fread(bytes, 1, MOST_BYTES, file);
	fclose(file);
	sequence_run(worlds, count, bytes, size, IN_BURSTS, true, &outcome);
	digest = outcome.digest;
	tables = world_digest(outcome.world);
	printf("once more, each frame by itself\n");
	sequence_run(worlds, count, bytes, size, ONE_BY_ONE, true, &outcome);
	if (outcome.digest != digest || world_digest(outcome.world) != tables)
		finding("l4_steer_burst and l4_steer differ");
	world_check_constant(outcome.world);
	printf("no finding\n");
	free(bytes);
}

int main(int argc, char **argv)
{
	static struct world worlds[MOST_WORLDS];
	static struct fuzzer fuzzer;
	bool once = argc > 3 && !strcmp(argv[1], "-r");
	int first = once ? 3 : 4;

	if (argc <= first || argc - first > MOST_WORLDS) {
		fprintf(stderr, "fuzz FOLDER SECONDS SEED WORLD... or fuzz -r INPUT WORLD...\n");
		return 2;
	}
	for (int i = first; i < argc; i++)
		world_load(&worlds[i - first], argv[i]);
	if (once) {
		repeat(worlds, (uint32_t)(argc - first), argv[2]);
		return 0;
	}
	fuzzer.folder = argv[1];
	fuzzer.worlds = worlds;
	fuzzer.world_count = (uint32_t)(argc - first);
	fuzzer.random.state = strtoull(argv[3], NULL, 10) * 2 + 1;
	fuzz(&fuzzer, strtol(argv[2], NULL, 10));
	return 0;
}
