/* SPDX-License-Identifier: MIT */
/*
 * BPF's version of native/src/memory.h: the same names over the maps of a
 * program. Here is what finds a flow and writes nothing; the rest is in
 * tables.h, so that a program which only redirects has no map for it.
 */
#ifndef L4RAW_BPF_MEMORY_H
#define L4RAW_BPF_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "l4raw_abi.h"

#include <bpf/bpf_helpers.h>

#define L4_INLINE static __always_inline
#define l4_copy(to, from, size) __builtin_memcpy(to, from, size)
#define l4_unlikely(condition) __builtin_expect(!!(condition), 0)

/* A frame that is sent is no longer than an arm takes, which is less than a chunk of the UMEM. */
enum { L4_SUM_STEPS = 2048 / 16 };

/* Words of tags, each a bucket's, in an element of the map of flows. */
enum { L4_TAGS_IN_LINE = sizeof(struct l4_flow) / 4 };

/* The verifier follows each try. */
enum { L4_TRIES = 1 };

/* The same: those few flows are the helper's. */
enum { L4_OVERFLOWS = 0 };

/* Words are read at once, and on x86 in the order of the program. On others a reader may take an old entry for
 * the one that follows: the frame is redirected or passed wrongly, once. */
#define l4_load(from) (*(const volatile __typeof__(*(from)) *)(from))
#define l4_load_acquire(from) l4_load(from)
#define l4_store(to, value) (*(volatile __typeof__(*(to)) *)(to) = (value))
/* x86 keeps the order of stores; the barrier is for the compiler, which keeps that of volatile ones alone. */
#define l4_store_release(to, value) (l4_fence_release(), l4_store(to, value))
#define l4_fence_acquire() ({ __asm__ __volatile__("" ::: "memory"); })
#define l4_fence_release() ({ __asm__ __volatile__("" ::: "memory"); })
#define l4_relax() ((void)0)

/* A map of its own, reached without a look-up; the process has it mapped too. */
extern struct l4_control control;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct l4_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, L4_HALVES);
	__type(key, __u32);
	__type(value, struct l4_policy);
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct l4_place);
} places SEC(".maps");

L4_INLINE bool l4_exchange_if(uint32_t *to, uint32_t expected, uint32_t value)
{
	return __sync_val_compare_and_swap(to, expected, value) == expected;
}

/* clang 14 for BPF runs out of memory over __builtin_ctzll(). `word` has no bits but 0x8080808080808080. */
L4_INLINE uint32_t l4_lowest_byte(uint64_t word)
{
	uint64_t below = ((word & -word) >> 7) - 1;

	return (below & 0x0101010101010101ull) * 0x0101010101010101ull >> 56;
}

L4_INLINE bool l4_has(const uint8_t *start, const uint8_t *end, uint32_t size)
{
	return start + size <= end;
}

#define l4_still_has(start, end, size) l4_has(start, end, size)

/*
 * Tables are maps, which have names. What is passed on as `tables` is the program's own context, for what needs
 * that; NULL where nothing does.
 */
struct xdp_md;
L4_INLINE struct xdp_md *l4_program_of(const struct l4_tables *tables)
{
	return (struct xdp_md *)tables;
}

uint32_t l4_sum_of_frame(struct xdp_md *context, uint32_t offset, uint32_t size);
#define l4_sum_far(tables, start, end, offset, size) \
	((void)(start), (void)(end), l4_sum_of_frame(l4_program_of(tables), offset, size))

/* clang for BPF divides; without, a frame takes 0.97 to 0.99 of the time. The sum is not 0, and below 2^48. */
L4_INLINE bool l4_is_all_ones(uint64_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

/* What it can be: no header of a frame that the helper takes begins later. A mask, as a bound is forgotten. */
#define l4_offset(found) ((found) & 0x7ff)

/* It has 16 bits, which the verifier of 6.12 and before forgets when their bytes are exchanged; clang knows it, and would
 * leave the mask out. */
L4_INLINE uint32_t l4_length(uint32_t found)
{
	__asm__("" : "+r"(found));
	return found & 0xffff;
}

/*
 * Words of a frame, which are aligned to nothing. Not copied: clang for BPF does that byte by byte. Where the
 * processor cannot read them so, the kernel refuses the program.
 */
L4_INLINE uint16_t l4_read16(const void *from)
{
	return *(const uint16_t *)from;
}

L4_INLINE uint32_t l4_read32(const void *from)
{
	return *(const uint32_t *)from;
}

L4_INLINE uint64_t l4_read64(const void *from)
{
	return *(const uint64_t *)from;
}

L4_INLINE void l4_write16(void *to, uint16_t value)
{
	*(uint16_t *)to = value;
}

L4_INLINE void l4_write32(void *to, uint32_t value)
{
	*(uint32_t *)to = value;
}

L4_INLINE void l4_write64(void *to, uint64_t value)
{
	*(uint64_t *)to = value;
}

L4_INLINE struct l4_control *l4_control_of(const struct l4_tables *tables)
{
	(void)tables;
	return &control;
}

L4_INLINE struct l4_flow *l4_flow_at(const struct l4_tables *tables, uint32_t index)
{
	(void)tables;
	return bpf_map_lookup_elem(&flows, &index);
}

/* The marks follow the entries, in the same map. */
L4_INLINE uint8_t *l4_mark_at(const struct l4_tables *tables, uint32_t bucket)
{
	uint32_t index = control.flow_entries + bucket / sizeof(struct l4_flow);
	uint8_t *line = bpf_map_lookup_elem(&flows, &index);

	(void)tables;
	return line ? line + bucket % sizeof(struct l4_flow) : NULL;
}

/* The tags follow the marks. */
L4_INLINE uint32_t *l4_tags_at(const struct l4_tables *tables, uint32_t bucket)
{
	uint32_t marks = (control.buckets + sizeof(struct l4_flow) - 1) / sizeof(struct l4_flow);
	uint32_t index = control.flow_entries + marks + bucket / L4_TAGS_IN_LINE;
	uint32_t *line = bpf_map_lookup_elem(&flows, &index);

	(void)tables;
	return line ? line + bucket % L4_TAGS_IN_LINE : NULL;
}

L4_INLINE uint32_t l4_tags_in(const struct l4_tables *tables, uint32_t bucket)
{
	uint32_t *tags = l4_tags_at(tables, bucket);

	return tags ? l4_load(tags) : ~0u;
}

L4_INLINE const struct l4_policy *l4_policy_at(const struct l4_tables *tables, uint32_t half)
{
	(void)tables;
	return bpf_map_lookup_elem(&policies, &half);
}

L4_INLINE const struct l4_place *l4_place_at(const struct l4_tables *tables, uint32_t half, uint32_t index)
{
	uint32_t at = half * control.place_limit + index;

	(void)tables;
	return bpf_map_lookup_elem(&places, &at);
}

#endif
