/* SPDX-License-Identifier: MIT */
/*
 * A frame's context, and the first two stages: what it is, and whose it is.
 * Nothing here changes anything.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_CONTEXT_H
#define L4RAW_SRC_CONTEXT_H

#include "lookup.h"
#include "touch.h"
#include "where.h"

/*
 * A frame's story: what it is, what was read, what was found, what was decided.
 * Before the first stage `flow` is L4_NONE; miss, service, backend, out_arm, push, nat, echo and tunnel are 0.
 */
struct l4_context {
	const struct l4_tables *tables;
	uint8_t *data;
	uint8_t *end;
	int32_t csum_start;        /* offset of a partial checksum's header; 0: none; or L4_CSUM_DETECT */
	uint32_t arm;              /* where it came in */
	uint32_t half;             /* of the policy that is in force */
	uint32_t room;             /* bytes in front of the frame that may be written */

	struct l4_headers headers;

	int64_t flow;              /* index of its entry; or L4_NONE, or L4_BUSY */
	struct l4_flow *entry;     /* means something only while flow >= 0: then it is the one that l4_look() found */
	uint32_t generation;       /* of the entry, when it was found */

	int verdict;               /* enum l4_verdict, or L4_MISS, or L4_UNDECIDED */
	/* From here to `hop` all is 0 at first: see begin() in helper.c. */
	uint32_t miss;             /* enum l4_miss */
	uint32_t service;
	uint32_t backend;
	uint32_t out_arm;
	bool nat;                  /* rewrite addresses and ports too */
	bool echo;                 /* make it the answer to itself */
	bool tunnel;               /* put its backend's headers in front */
	uint32_t push;             /* bytes that the frame begins earlier */
	struct l4_where hop;
	uint64_t src[2], dst[2];   /* of the frame that is sent, under NAT; likewise: */
	uint32_t ports_be;
};

/* Stands where a verdict would. */
L4_INLINE int l4_miss_as(struct l4_context *context, uint32_t why)
{
	context->miss = why;
	return L4_MISS;
}

/* Both have two bytes more, which do not count. */
L4_INLINE bool l4_same_mac(const uint8_t *one, const uint8_t *other)
{
	return l4_first48(l4_read64(one) ^ l4_read64(other)) == 0;
}

L4_INLINE const uint8_t *l4_own_mac(const struct l4_tables *tables, uint32_t arm)
{
	return l4_control_of(tables)->arms[arm & 1];
}

/* Stage 1: parse and hash. L4_UNDECIDED, or a verdict. */
L4_INLINE int l4_read_headers(const struct l4_tables *tables, uint32_t arm, const uint8_t *data, const uint8_t *end,
			      struct l4_headers *headers)
{
	const struct l4_hash_key *key = &l4_control_of(tables)->key;
	int verdict = l4_parse(data, end, headers);

	if (verdict != L4_UNDECIDED)
		return verdict;
	if (!l4_still_has(data, end, sizeof(struct ethhdr)) ||
	    !l4_same_mac(data + offsetof(struct ethhdr, h_dest), l4_own_mac(tables, arm)))
		return L4_PASS_OTHER_MAC;
	if (l4_unlikely(headers->v6))
		headers->key.hash = l4_hash(key, headers->key.src, headers->key.dst, headers->key.ports,
					    headers->key.protocol);
	else
		headers->key.hash = l4_hash_v4(key, headers->key.src, headers->key.dst, headers->key.ports,
					       headers->key.protocol);
	return L4_UNDECIDED;
}

L4_INLINE void l4_see(struct l4_context *context)
{
	context->verdict = l4_read_headers(context->tables, context->arm, context->data, context->end,
					   &context->headers);
}

/* Stage 2: find. A burst has looked ahead (helper.c), and l4_decide() looks again if there was nothing. */
L4_INLINE void l4_look(struct l4_context *context)
{
	if (context->verdict != L4_UNDECIDED || !context->headers.l4)
		return;
	context->flow = l4_find(context->tables, &context->headers.key, &context->generation);
	if (context->flow >= 0)
		context->entry = l4_flow_at(context->tables, (uint32_t)context->flow);
}

/* Whether the destination is a VIP; every service's is. */
L4_INLINE bool l4_is_vip(const struct l4_context *context)
{
	return l4_address_is(context->tables, context->half, context->headers.key.dst, 0, L4_IS_VIP) >= 0;
}

/* Whether the destination is this service's: so l4_service_of() would find one, and need not look. */
L4_INLINE bool l4_is_to(const struct l4_context *context, uint32_t number)
{
	const struct l4_service *service = l4_service_at(context->tables, context->half, number);
	const struct l4_headers *headers = &context->headers;

	/* Few conditions: they are nearly always true, all of them. */
	return service &&
	       !((l4_read64(service->vip) ^ headers->key.dst[0]) | (l4_read64(service->vip + 8) ^ headers->key.dst[1]) |
		 (service->protocol ^ headers->key.protocol)) &&
	       (service->port_be == l4_second16(headers->key.ports) || !service->port_be);
}

/* The service of a destination: the one that names the port, else the one for every port. */
L4_INLINE int l4_service_of(const struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;
	int number = l4_address_is(context->tables, context->half, headers->key.dst, l4_second16(headers->key.ports),
				   headers->key.protocol);

	if (number >= 0)
		return number;
	return l4_address_is(context->tables, context->half, headers->key.dst, 0, headers->key.protocol);
}

#endif
