/* SPDX-License-Identifier: MIT */
/*
 * Who may open a flow: the twin of l4raw/core/acl.py.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_ACL_H
#define L4RAW_SRC_ACL_H

#include "context.h"

/* Steps of a search among as many ranges as 32 bits can number. */
enum { L4_HALVINGS = 32 };

/* Eight bytes of an address as a number. */
L4_INLINE uint64_t l4_number64(uint64_t word)
{
	return (uint64_t)l4_ntohl(l4_first32(word)) << 32 | l4_ntohl(l4_second32(word));
}

/* Whether the client may open a flow with this service: the last range that does not begin after it says so. */
L4_INLINE bool l4_may_open(const struct l4_context *context, const struct l4_service *service)
{
	uint64_t high = l4_number64(context->headers.key.src[0]), low = l4_number64(context->headers.key.src[1]);
	uint32_t first = 0, past = service->acl_size, step;
	const struct l4_range *range;

	if (!past)
		return true;
	for (step = 0; step < L4_HALVINGS && past - first > 1; step++) {
		uint32_t middle = first + (past - first) / 2;

		range = l4_range_at(context->tables, context->half, service->acl_start + middle);
		if (!range)
			return false;
		if (range->high > high || (range->high == high && range->low > low))
			past = middle;
		else
			first = middle;
	}
	range = l4_range_at(context->tables, context->half, service->acl_start + first);
	return range && range->allowed;
}

#endif
