/* SPDX-License-Identifier: MIT */
/*
 * What a known flow becomes when its client begins anew: the twin of
 * l4raw/core/reuse.py, where each case has its reason.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_REUSE_H
#define L4RAW_SRC_REUSE_H

#include "admit.h"

/*
 * reuse(), of a frame that may open a flow with this service. L4_UNDECIDED, and `known` is false if the flow was
 * freed; or L4_MISS.
 */
L4_APART int l4_reuse(struct l4_context *context, const struct l4_values *values, uint32_t number, bool *known)
{
	const struct l4_service *service = l4_service_at(context->tables, context->half, number);
	const struct l4_service *of_flow = l4_service_at(context->tables, context->half, values->service);
	int result;

	if (!service || !of_flow)
		return l4_miss_as(context, L4_MISS_CHANGED);
	if (!l4_is_over(context, values, number) || !service->ring_size || !l4_may_open(context, service) ||
	    l4_is_martian(context) || (service->mode != L4_DSR_L2 && context->headers.ttl <= 1))
		return L4_UNDECIDED;
	if (of_flow->mode == L4_FULLNAT)
		return l4_miss_as(context, L4_MISS_REST);
	result = l4_free_flow(context->tables, (uint32_t)context->flow, context->generation, L4_HOPS_IN_LIST);
	if (result == L4_BUSY)
		return l4_miss_as(context, L4_MISS_BUSY);
	*known = result != 0;
	return L4_UNDECIDED;
}

/* ask(): of a SYN on a closing flow that goes on. L4_UNDECIDED, or the verdict that refuses it, or L4_MISS. */
L4_APART int l4_ask(struct l4_context *context)
{
	int number = l4_service_of(context), verdict;
	const struct l4_service *service;

	service = number < 0 ? NULL : l4_service_at(context->tables, context->half, (uint32_t)number);
	if (!service)
		return l4_miss_as(context, L4_MISS_CHANGED);
	if (!l4_may_open(context, service))
		return L4_DROP_ACL;
	verdict = l4_limit_begin(context->tables, service, (uint32_t)number, context->headers.key.src, 0);
	return verdict == L4_MISS ? l4_miss_as(context, L4_MISS_BUSY) : verdict;
}

#endif
