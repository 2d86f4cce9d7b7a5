/* SPDX-License-Identifier: MIT */
/*
 * The other tables that BPF reaches, beside those of memory.h: what a known
 * flow reads and what is written with each of its frames; and what a new one
 * takes.
 */
#ifndef L4RAW_BPF_TABLES_H
#define L4RAW_BPF_TABLES_H

#include "memory.h"

/* `elements` is set when the program is loaded: l4raw/engine/redirect.py. */
#define L4_SHARED(name, element) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1); \
		__type(key, __u32); \
		__type(value, element); \
	} name SEC(".maps")

/* An element of a map is 8 bytes at least. */
struct l4_four_slots {
	uint16_t slots[L4_SLOTS_EACH];
};
struct l4_two_words {
	uint32_t words[L4_WORDS_EACH];
};

L4_SHARED(next_hops, struct l4_next_hop);
L4_SHARED(heads, struct l4_two_words);
L4_SHARED(services, struct l4_service);
L4_SHARED(backends, struct l4_backend);
L4_SHARED(queue, struct l4_queue);
L4_SHARED(traffic, struct l4_traffic);
L4_SHARED(rings, struct l4_four_slots);
L4_SHARED(ranges, struct l4_range);
L4_SHARED(stripes, struct l4_two_words);
L4_SHARED(cursors, struct l4_two_words);
L4_SHARED(usage, struct l4_usage);

#define l4_add(to, value) __sync_fetch_and_add(to, value)
#define l4_exchange_one(to) __sync_val_compare_and_swap(to, 0, 1)
/* What it would be is not even looked up. */
#define l4_prefetch(at) ((void)sizeof(at))

/* Places of half-open flows, and lines of them: they follow the tags, in the map of flows. */
enum { L4_PLACES_IN_LINE = sizeof(struct l4_flow) / 4 };

L4_INLINE uint32_t *l4_half_open_at(const struct l4_tables *tables, uint32_t number)
{
	uint32_t marks = (control.buckets + sizeof(struct l4_flow) - 1) / sizeof(struct l4_flow);
	uint32_t tags = (control.buckets + L4_TAGS_IN_LINE - 1) / L4_TAGS_IN_LINE;
	uint32_t index = control.flow_entries + marks + tags + (number - 1) / L4_PLACES_IN_LINE;
	uint32_t *line;

	(void)tables;
	if (number - 1 >= control.place_count)
		return NULL;
	line = bpf_map_lookup_elem(&flows, &index);
	return line ? line + (number - 1) % L4_PLACES_IN_LINE : NULL;
}

L4_INLINE struct l4_next_hop *l4_next_hop_at(const struct l4_tables *tables, uint32_t index)
{
	(void)tables;
	return bpf_map_lookup_elem(&next_hops, &index);
}

L4_INLINE uint32_t *l4_head_at(const struct l4_tables *tables, uint32_t index)
{
	uint32_t two = index / L4_WORDS_EACH;
	struct l4_two_words *found = index < control.head_limit ? bpf_map_lookup_elem(&heads, &two) : NULL;

	(void)tables;
	return found ? &found->words[index % L4_WORDS_EACH] : NULL;
}

L4_INLINE const struct l4_service *l4_service_at(const struct l4_tables *tables, uint32_t half, uint32_t number)
{
	uint32_t at = half * control.service_limit + number;

	(void)tables;
	return number < control.service_limit ? bpf_map_lookup_elem(&services, &at) : NULL;
}

L4_INLINE const struct l4_backend *l4_backend_at(const struct l4_tables *tables, uint32_t half, uint32_t number)
{
	uint32_t at = half * control.backend_limit + number;

	(void)tables;
	return number < control.backend_limit ? bpf_map_lookup_elem(&backends, &at) : NULL;
}

L4_INLINE const uint16_t *l4_ring_at(const struct l4_tables *tables, uint32_t half, uint32_t slot)
{
	uint32_t at = half * control.ring_limit + slot, four = at / L4_SLOTS_EACH;
	struct l4_four_slots *found = slot < control.ring_limit ? bpf_map_lookup_elem(&rings, &four) : NULL;

	(void)tables;
	return found ? &found->slots[at % L4_SLOTS_EACH] : NULL;
}

L4_INLINE const struct l4_range *l4_range_at(const struct l4_tables *tables, uint32_t half, uint32_t index)
{
	uint32_t at = half * control.range_limit + index;

	(void)tables;
	return index < control.range_limit ? bpf_map_lookup_elem(&ranges, &at) : NULL;
}

L4_INLINE uint32_t *l4_stripe_at(const struct l4_tables *tables, uint32_t index)
{
	uint32_t two = index / L4_WORDS_EACH;
	struct l4_two_words *found = index < L4_STRIPES ? bpf_map_lookup_elem(&stripes, &two) : NULL;

	(void)tables;
	return found ? &found->words[index % L4_WORDS_EACH] : NULL;
}

L4_INLINE uint32_t *l4_cursor_at(const struct l4_tables *tables, uint32_t service)
{
	uint32_t two = service / L4_WORDS_EACH;
	struct l4_two_words *found = service < control.service_limit ? bpf_map_lookup_elem(&cursors, &two) : NULL;

	(void)tables;
	return found ? &found->words[service % L4_WORDS_EACH] : NULL;
}

L4_INLINE struct l4_usage *l4_usage_at(const struct l4_tables *tables, uint32_t service)
{
	(void)tables;
	return service < control.service_limit ? bpf_map_lookup_elem(&usage, &service) : NULL;
}

/* Counters are a CPU's, but for flows (admit.h): an XDP program is not interrupted by another run of itself. */
L4_INLINE struct l4_queue *l4_queue_of(const struct l4_tables *tables)
{
	uint32_t at = control.first_cpu + bpf_get_smp_processor_id();

	(void)tables;
	return bpf_map_lookup_elem(&queue, &at);
}

L4_INLINE struct l4_traffic *l4_traffic_at(const struct l4_tables *tables, uint32_t backend)
{
	uint32_t at = (control.first_cpu + bpf_get_smp_processor_id()) * control.backend_limit + backend;

	(void)tables;
	return backend < control.backend_limit ? bpf_map_lookup_elem(&traffic, &at) : NULL;
}

L4_INLINE void l4_count_up(uint64_t *counter, uint64_t by)
{
	l4_store(counter, l4_load(counter) + by);
}

L4_INLINE bool l4_push_front(const struct l4_tables *tables, uint8_t **start, uint8_t **end, uint32_t size)
{
	struct xdp_md *program = l4_program_of(tables);

	bool done = !bpf_xdp_adjust_head(program, -(int)size);

	/* Pointers of before are none any more, in either case. */
	*start = (void *)(long)program->data;
	*end = (void *)(long)program->data_end;
	return done;
}

#endif
