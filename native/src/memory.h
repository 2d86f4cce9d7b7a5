/* SPDX-License-Identifier: MIT */
/*
 * How the packet code reaches a table, how it is sure of n bytes of a frame,
 * and what it may rely on between threads. This is the version for a process
 * that has the tables mapped. BPF supplies the same names over its maps; all
 * other headers here are the same text for both, so they use nothing else:
 * no C library, no pointer into a table that did not come from here.
 *
 * A function that gives an element returns NULL for an index that the table
 * does not have. Indices come out of the tables, so that is never seen; BPF's
 * verifier asks for it, and here it costs a comparison.
 *
 * Between threads. Bytes, and aligned words of 2, 4 and 8 bytes, are read and
 * written at once: never half of one. Everything that another thread may change is
 * accessed by the names below and by nothing else. What each of them orders
 * is C11's: an acquire is matched by a release (C11 7.17.3).
 */
#ifndef L4RAW_SRC_MEMORY_H
#define L4RAW_SRC_MEMORY_H

#include <stddef.h>
#include <stdbool.h>

#include "l4raw_abi.h"

#define L4_INLINE static inline __attribute__((always_inline))

/* What few frames come to, or few services ask for: one copy of its text, which the others' is not longer for. */
#define L4_APART static __attribute__((noinline, unused))

#define l4_copy(to, from, size) __builtin_memcpy(to, from, size)

/* Branches that a known flow does not take. */
#define l4_unlikely(condition) __builtin_expect(!!(condition), 0)

/* Bytes of the longest checksum, in steps of 16: a frame is at most a chunk, or a super-frame in a test. */
enum { L4_SUM_STEPS = 65536 / 16 };

/* How often a lock that is held, or an entry that is written, is tried again before it is a miss. */
enum { L4_TRIES = 16 };

/* Whether new flows go into the overflow area when both buckets are full. */
enum { L4_OVERFLOWS = 1 };

#define l4_load(from) __atomic_load_n(from, __ATOMIC_RELAXED)
#define l4_store(to, value) __atomic_store_n(to, value, __ATOMIC_RELAXED)
#define l4_load_acquire(from) __atomic_load_n(from, __ATOMIC_ACQUIRE)
#define l4_store_release(to, value) __atomic_store_n(to, value, __ATOMIC_RELEASE)
#define l4_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define l4_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)

/* Add, and return what was there before. */
#define l4_add(to, value) __atomic_fetch_add(to, value, __ATOMIC_RELAXED)

/* Write 1 and return what was there before: 0 for the one thread that now has the lock. */
#define l4_exchange_one(to) __atomic_exchange_n(to, 1u, __ATOMIC_ACQUIRE)

/* Write `value` if `expected` is there, and tell whether it was. */
L4_INLINE bool l4_exchange_if(uint32_t *to, uint32_t expected, uint32_t value)
{
	return __atomic_compare_exchange_n(to, &expected, value, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* The same for two words at once. */
L4_INLINE bool l4_exchange_both_if(uint64_t *to, uint64_t expected, uint64_t value)
{
	return __atomic_compare_exchange_n(to, &expected, value, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* Whether a one's complement sum that is not 0 is "all ones": zero modulo 2^16 - 1. */
#define l4_is_all_ones(sum) ((sum) % 0xffff == 0)

/* It will soon be written. */
#define l4_prefetch(at) __builtin_prefetch(at, 1)

/* Between two tries. */
L4_INLINE void l4_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

/* The number of the lowest byte of a word that is not 0. */
L4_INLINE uint32_t l4_lowest_byte(uint64_t word)
{
	return (uint32_t)__builtin_ctzll(word) / 8;
}

/* Whether a frame that ends before `end` has `size` bytes at `start`; `start` is at most `end`. */
L4_INLINE bool l4_has(const uint8_t *start, const uint8_t *end, uint32_t size)
{
	return size <= (size_t)(end - start);
}

/* Likewise of bytes that parsing has found to be there: only the verifier of BPF asks again. */
#define l4_still_has(start, end, size) ((void)(start), (void)(end), (void)(size), true)

/* Words of a frame, which are aligned to nothing. */
L4_INLINE uint16_t l4_read16(const void *from)
{
	uint16_t value;

	l4_copy(&value, from, sizeof(value));
	return value;
}

L4_INLINE uint32_t l4_read32(const void *from)
{
	uint32_t value;

	l4_copy(&value, from, sizeof(value));
	return value;
}

L4_INLINE uint64_t l4_read64(const void *from)
{
	uint64_t value;

	l4_copy(&value, from, sizeof(value));
	return value;
}

L4_INLINE void l4_write16(void *to, uint16_t value)
{
	l4_copy(to, &value, sizeof(value));
}

L4_INLINE void l4_write32(void *to, uint32_t value)
{
	l4_copy(to, &value, sizeof(value));
}

L4_INLINE void l4_write64(void *to, uint64_t value)
{
	l4_copy(to, &value, sizeof(value));
}

/* l4_sum() of the `size` bytes at `start`, which is so far into its frame. (BPF: a program of its own.) */
#define l4_sum_far(tables, start, end, offset, size) ((void)(tables), (void)(offset), l4_sum(start, end, size))

/* An offset in a frame, as parsing has found it, and a length of 16 bits: only the verifier of BPF asks how large. */
#define l4_offset(found) (found)
#define l4_length(found) (found)

/*
 * Let a frame begin `size` bytes earlier, for which its owner has said that there is room. False: it cannot be.
 * (BPF: bpf_xdp_adjust_head(), after which both pointers are other ones.)
 */
L4_INLINE bool l4_push_front(const struct l4_tables *tables, uint8_t **start, uint8_t **end, uint32_t size)
{
	(void)tables;
	(void)end;
	*start -= size;
	return true;
}

L4_INLINE struct l4_control *l4_control_of(const struct l4_tables *tables)
{
	return tables->control;
}

L4_INLINE struct l4_flow *l4_flow_at(const struct l4_tables *tables, uint32_t index)
{
	return index < tables->control->flow_entries ? &tables->flows[index] : NULL;
}

L4_INLINE uint8_t *l4_mark_at(const struct l4_tables *tables, uint32_t bucket)
{
	return bucket < tables->control->buckets ? &tables->marks[bucket] : NULL;
}

/* The tags of a bucket's entries, one byte each, in the order of memory. */
L4_INLINE uint32_t *l4_tags_at(const struct l4_tables *tables, uint32_t bucket)
{
	return bucket < tables->control->buckets ? &tables->tags[bucket] : NULL;
}

/* The same word of a bucket that a hash has chosen: there always is one. All 1: none of its entries is free. */
L4_INLINE uint32_t l4_tags_in(const struct l4_tables *tables, uint32_t bucket)
{
	return l4_load(&tables->tags[bucket]);
}

/* A place of a half-open flow; they are numbered from 1. */
L4_INLINE uint32_t *l4_half_open_at(const struct l4_tables *tables, uint32_t number)
{
	return number - 1 < tables->control->place_count ? &tables->half_open[number - 1] : NULL;
}

L4_INLINE uint32_t *l4_stripe_at(const struct l4_tables *tables, uint32_t index)
{
	return index < L4_STRIPES ? &tables->stripes[index] : NULL;
}

L4_INLINE struct l4_next_hop *l4_next_hop_at(const struct l4_tables *tables, uint32_t index)
{
	return index <= tables->control->hop_limit ? &tables->next_hops[index] : NULL;
}

L4_INLINE uint32_t *l4_head_at(const struct l4_tables *tables, uint32_t index)
{
	return index < tables->control->head_limit ? &tables->heads[index] : NULL;
}

L4_INLINE uint32_t *l4_cursor_at(const struct l4_tables *tables, uint32_t service)
{
	return service < tables->control->service_limit ? &tables->cursors[service] : NULL;
}

L4_INLINE struct l4_usage *l4_usage_at(const struct l4_tables *tables, uint32_t service)
{
	return service < tables->control->service_limit ? &tables->usage[service] : NULL;
}

L4_INLINE struct l4_clients *l4_clients_at(const struct l4_tables *tables, uint32_t bucket)
{
	return bucket < tables->control->client_limit ? &tables->clients[bucket] : NULL;
}

L4_INLINE const struct l4_policy *l4_policy_at(const struct l4_tables *tables, uint32_t half)
{
	return half < L4_HALVES ? &tables->policies[half] : NULL;
}

L4_INLINE const struct l4_place *l4_place_at(const struct l4_tables *tables, uint32_t half, uint32_t index)
{
	uint32_t limit = tables->control->place_limit;

	return index < limit ? &tables->places[(size_t)half * limit + index] : NULL;
}

L4_INLINE const struct l4_service *l4_service_at(const struct l4_tables *tables, uint32_t half, uint32_t number)
{
	uint32_t limit = tables->control->service_limit;

	return number < limit ? &tables->services[(size_t)half * limit + number] : NULL;
}

L4_INLINE const struct l4_backend *l4_backend_at(const struct l4_tables *tables, uint32_t half, uint32_t number)
{
	uint32_t limit = tables->control->backend_limit;

	return number < limit ? &tables->backends[(size_t)half * limit + number] : NULL;
}

L4_INLINE const uint16_t *l4_ring_at(const struct l4_tables *tables, uint32_t half, uint32_t slot)
{
	uint32_t limit = tables->control->ring_limit;

	return slot < limit ? &tables->rings[(size_t)half * limit + slot] : NULL;
}

L4_INLINE const struct l4_range *l4_range_at(const struct l4_tables *tables, uint32_t half, uint32_t index)
{
	uint32_t limit = tables->control->range_limit;

	return index < limit ? &tables->ranges[(size_t)half * limit + index] : NULL;
}

L4_INLINE const struct l4_snat *l4_snat_at(const struct l4_tables *tables, uint32_t half, uint32_t range)
{
	uint32_t limit = tables->control->snat_limit;

	return range < limit ? &tables->snats[(size_t)half * limit + range] : NULL;
}

/* This thread's counters; nobody else writes them. */
L4_INLINE struct l4_queue *l4_queue_of(const struct l4_tables *tables)
{
	return tables->queue;
}

L4_INLINE struct l4_traffic *l4_traffic_at(const struct l4_tables *tables, uint32_t backend)
{
	return backend < tables->control->backend_limit ? &tables->traffic[backend] : NULL;
}

/*
 * What is counted so has one writer, so an addition need not be atomic; but others
 * read them meanwhile, so each half of it is.
 */
L4_INLINE void l4_count_up(uint64_t *counter, uint64_t by)
{
	l4_store(counter, l4_load(counter) + by);
}

#endif
