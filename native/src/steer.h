/* SPDX-License-Identifier: MIT */
/*
 * What becomes of a frame: the twin of l4raw/core/steer.py and admit.py. Read
 * those first; the steps have the same order and the same names.
 *
 *   l4_see       bytes -> headers and key, or the verdict that is wrong    context.h
 *   l4_look      the entry of its flow                                     context.h
 *   l4_decide    to a VIP, or maybe a backend's reply; admits new flows    here, admit.h
 *   l4_rewrite   the bytes that change                                     rewrite.h
 *
 * Each is a stage over one context, so that a burst can run them one after
 * the other with the next stage's memory on its way, and BPF can run them in
 * turn. What they look up, Python wrote; what they write are flows, what goes
 * with one, and counters. Where that does not suffice the frame is a miss,
 * unchanged here, and so are the tables; but a turn is lost that two threads
 * took at once, and a flow that has gone for a new one stays gone.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_STEER_H
#define L4RAW_SRC_STEER_H

#include "reuse.h"
#include "rewrite.h"

/* To no VIP, and no reply: stray() in l4raw/core/snat.py. */
L4_INLINE int l4_stray(const struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;
	uint8_t type = headers->icmp_type;

	if (l4_address_is(context->tables, context->half, headers->key.dst, 0, L4_IS_SNAT) < 0)
		return L4_PASS_NOT_OURS;
	if (!headers->l4 && headers->v6 && headers->icmp && type >= L4_FIRST_DISCOVERY && type <= L4_LAST_DISCOVERY)
		return L4_PASS_ND;
	return L4_DROP_SNAT_NO_FLOW;
}

/* A ping of a VIP is answered; who asks for its MAC address is the responder's; the rest is dropped. */
L4_INLINE int l4_without_ports(struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;
	uint8_t type = headers->icmp_type;

	if (headers->icmp && l4_is_icmp_error(headers->v6, type))
		return l4_miss_as(context, L4_MISS_ICMP_ERROR);
	if (headers->v6 && headers->icmp && type >= L4_FIRST_DISCOVERY && type <= L4_LAST_DISCOVERY)
		return L4_PASS_ND;
	if (!headers->icmp || type != (headers->v6 ? L4_ECHO_V6 : L4_ECHO_V4))
		return L4_DROP_PROTOCOL;
	if (l4_is_martian(context) || !l4_has(context->data, context->end, sizeof(struct ethhdr)))
		return L4_DROP_MARTIAN;
	if (l4_unlikely(l4_is_too_long(context, 0, context->arm)))
		return l4_miss_as(context, L4_MISS_TOO_LONG);
	l4_copy(context->hop.mac, context->data + offsetof(struct ethhdr, h_source), ETH_ALEN);
	context->out_arm = context->arm;
	context->echo = true;
	return L4_ECHO;
}

/* The verdict of a frame to a VIP that has no service, and of one that has no ports. */
L4_INLINE int l4_without_service(struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;

	/* Whose it is, and whether its first one has come, Python knows. */
	if (headers->fragment)
		return l4_miss_as(context, L4_MISS_FRAGMENT);
	if (!l4_is_vip(context)) {
		if (headers->icmp && l4_is_icmp_error(headers->v6, headers->icmp_type))
			return l4_miss_as(context, L4_MISS_ICMP_ERROR);
		return l4_stray(context);
	}
	if (headers->l4)
		return L4_DROP_NO_SERVICE;
	return l4_without_ports(context);
}

/* A frame of a known flow: decided and noted. */
L4_INLINE int l4_go_with(struct l4_context *context, const struct l4_values *entry)
{
	int verdict = l4_known(context, entry), refused;

	if (l4_unlikely(verdict == L4_UNDECIDED))
		return l4_without_service(context);
	if (l4_unlikely(verdict >= L4_SENT))
		return verdict;
	/* Last, as it counts. */
	if (l4_unlikely(entry->state == L4_FLOW_CLOSING) && verdict == L4_FORWARD && l4_opens(&context->headers)) {
		refused = l4_ask(context);
		if (refused != L4_UNDECIDED)
			return refused;
	}
	l4_note(context, entry);
	return verdict;
}

/* The verdict of a frame that could be read and is addressed to our MAC; or L4_MISS. */
L4_INLINE int l4_verdict_of(struct l4_context *context)
{
	struct l4_values entry;
	int service;
	bool known;

	if (!context->headers.l4)
		return l4_without_service(context);
	known = context->flow >= 0 && l4_recall(context, &entry);
	if (l4_unlikely(!known)) {
		/* A frame before it in the burst may have made the entry, or freed it. */
		if (context->flow != L4_BUSY) {
			l4_look(context);
			known = context->flow >= 0 && l4_recall(context, &entry);
		}
		if (context->flow == L4_BUSY)
			return l4_miss_as(context, L4_MISS_BUSY);
		if (context->flow != L4_NONE && !known)
			return l4_miss_as(context, L4_MISS_CHANGED);
	}
	if (known && l4_unlikely((context->headers.flags & L4_TCP_SYN) || entry.state == L4_FLOW_UDP_NEW) &&
	    l4_opens(&context->headers) && l4_is_vip(context) && (service = l4_service_of(context)) >= 0) {
		int verdict = l4_reuse(context, &entry, (uint32_t)service, &known);

		if (verdict != L4_UNDECIDED)
			return verdict;
	}
	if (known)
		return l4_go_with(context, &entry);
	context->flow = L4_NONE;
	service = l4_service_of(context);
	return service < 0 ? l4_without_service(context) : l4_admit(context, (uint32_t)service);
}

/* Stage 3: decide. After it there is a verdict, or a miss, always. */
L4_INLINE void l4_decide(struct l4_context *context)
{
	if (context->verdict == L4_UNDECIDED)
		context->verdict = l4_verdict_of(context);
}

#endif
