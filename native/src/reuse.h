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

/* _is_over(): whether the client's entry is that of a flow which ends here. */
L4_INLINE bool l4_is_over(const struct l4_context *context, const struct l4_values *values, uint32_t service)
{
	const struct l4_tables *tables = context->tables;
	const struct l4_backend *backend = l4_backend_at(tables, context->half, values->backend);
	struct l4_flow *peer = values->peer ? l4_flow_at(tables, values->peer - 1) : NULL;
	bool stays = values->service == service && backend && backend->takes_flows;
	uint8_t other;

	if (!peer)
		return !stays && (values->state == L4_FLOW_CLOSING || values->state == L4_FLOW_HALF_OPEN);
	other = l4_load(&peer->state);
	if (values->state != L4_FLOW_CLOSING)
		return !stays && l4_is_half_open(values->state) && l4_is_half_open(other);
	return other == L4_FLOW_CLOSING ||
	       (!stays && l4_elapsed(l4_load(&l4_control_of(tables)->now), l4_load(&peer->last_seen)) >= L4_STREAM_MS);
}

/* _asked(): what a new flow is asked, but for how many there are. L4_UNDECIDED, or a verdict, or L4_MISS. */
L4_INLINE int l4_asked(struct l4_context *context, const struct l4_service *service, uint32_t number)
{
	int verdict;

	if (!l4_may_open(context, service))
		return L4_DROP_ACL;
	verdict = l4_limit_ask(context->tables, service, number, context->headers.key.src);
	return verdict == L4_MISS ? l4_miss_as(context, L4_MISS_BUSY) : verdict;
}

/*
 * reuse(), of a frame that may open a flow with this service. L4_UNDECIDED, and `known` is false if the flow was freed;
 * or the verdict that refuses it; or L4_MISS.
 */
L4_APART int l4_reuse(struct l4_context *context, const struct l4_values *values, uint32_t number, bool *known)
{
	const struct l4_service *service = l4_service_at(context->tables, context->half, number);
	int verdict;

	if (!service)
		return l4_miss_as(context, L4_MISS_CHANGED);
	if (l4_is_over(context, values, number) && !l4_is_martian(context) &&
	    (service->mode == L4_DSR_L2 || context->headers.ttl > 1)) {
		verdict = l4_free_flow(context->tables, (uint32_t)context->flow, context->generation, L4_HOPS_IN_LIST);
		if (verdict == L4_BUSY)
			return l4_miss_as(context, L4_MISS_BUSY);
		*known = verdict != 0;
		return L4_UNDECIDED;
	}
	verdict = values->state == L4_FLOW_CLOSING ? l4_asked(context, service, number) : L4_UNDECIDED;
	if (verdict != L4_UNDECIDED)
		context->flow = L4_NONE;
	return verdict;
}

#endif
