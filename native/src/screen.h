/* SPDX-License-Identifier: MIT */
/*
 * What a frame without an entry has to pass, where its service's ring sends
 * it, and whether it can go there: the part of l4raw/core/admit.py, and all of
 * l4raw/core/changes.py, that changes nothing. So the kernel can do it too.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_SCREEN_H
#define L4RAW_SRC_SCREEN_H

#include "acl.h"
#include "known.h"

/* The network of 0.0.0.0, loopback, class D and class E (RFC 1812, section 5.3.7). */
L4_INLINE bool l4_of_nobody_v4(const uint64_t *address)
{
	uint8_t first = (uint8_t)(l4_ntohl(l4_second32(address[1])) >> 24);

	return first == 0 || first == 127 || first >= 224;
}

/* Unspecified and loopback, fe80::/10 and ff00::/8 (RFC 4291, section 2.4). */
L4_INLINE bool l4_of_nobody_v6(const uint64_t *address)
{
	uint32_t first = l4_ntohl(l4_first32(address[0]));

	if (!address[0] && !l4_first32(address[1]) && l4_ntohl(l4_second32(address[1])) <= 1)
		return true;
	return first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6;
}

/* Whether no client can have this source: see martian() in l4raw/core/admit.py. */
L4_INLINE bool l4_is_martian(const struct l4_context *context)
{
	const uint8_t *mac = context->data + offsetof(struct ethhdr, h_source);
	const uint64_t *source = context->headers.key.src;

	if (context->headers.v6 ? l4_of_nobody_v6(source) : l4_of_nobody_v4(source))
		return true;
	if (!l4_has(context->data, context->end, sizeof(struct ethhdr)))
		return true;
	/* A group's MAC (IEEE 802.3, clause 3.2.3), none, our own. */
	if ((mac[0] & 1) || (!l4_read32(mac) && !l4_read16(mac + 4)) ||
	    l4_same_mac(mac, l4_own_mac(context->tables, context->arm)))
		return true;
	if (!l4_may_be_ours(context->tables, context->half, source))
		return false;
	return l4_address_is(context->tables, context->half, source, 0, L4_IS_VIP) >= 0 ||
	       l4_address_is(context->tables, context->half, source, 0, L4_IS_SNAT) >= 0 ||
	       l4_address_is(context->tables, context->half, source, 0, L4_IS_OWN) >= 0;
}

/* Whether a flow of this rule finds its backend again without an entry: see HASHES in l4raw/core/ring.py. */
L4_INLINE bool l4_is_hash(uint32_t rule)
{
	return rule == L4_RULE_FLOW_HASH || rule == L4_RULE_SOURCE_HASH;
}

/* The slot for this flow of a ring with so many, which are not 0. `turn`: of its cursor, if that counts. */
L4_INLINE uint32_t l4_slot_of(const struct l4_context *context, const struct l4_service *service, uint32_t size,
			      uint32_t turn)
{
	const struct l4_policy *policy = l4_policy_at(context->tables, context->half);
	const struct l4_key *key = &context->headers.key;

	if (service->rule == L4_RULE_CURSOR)
		return turn % size;
	if (!policy)
		return 0;
	/* The client's address in both places, and nothing else of the flow. */
	if (service->rule == L4_RULE_SOURCE_HASH)
		return (uint32_t)(l4_hash(&policy->ring_key, key->src, key->src, 0, 0) >> 32) % size;
	return (uint32_t)(l4_hash(&policy->ring_key, key->src, key->dst, key->ports, key->protocol) >> 32) %
	       size;
}

/* The turn is taken again, by whom the frame is left to, unless another thread has taken one meanwhile: then it is lost. */
L4_INLINE void l4_turn_back(const struct l4_service *service, uint32_t *cursor, uint32_t turn)
{
	if (service->rule == L4_RULE_CURSOR)
		l4_exchange_if(cursor, turn + 1, turn);
}

/* Whether both directions pass here. */
L4_INLINE bool l4_is_nat(uint8_t mode)
{
	return mode == L4_NAT || mode == L4_FULLNAT;
}

/* Under NAT its client is told, by Python; but a reset answers no reset: l4raw/core/answers.py. */
L4_INLINE int l4_without_flow(struct l4_context *context, bool is_nat)
{
	if (is_nat && !(context->headers.flags & L4_TCP_RST))
		return l4_miss_as(context, L4_MISS_RESET);
	return L4_DROP_NO_FLOW;
}

/* L4_UNDECIDED, or why no flow of this service begins with this frame or goes on with it. */
L4_INLINE int l4_screen(struct l4_context *context, const struct l4_service *service)
{
	if (l4_is_martian(context))
		return L4_DROP_MARTIAN;
	if (!l4_may_open(context, service))
		return L4_DROP_ACL;
	if (service->mode != L4_DSR_L2 && context->headers.ttl <= 1)
		return L4_DROP_TTL;
	/* In mid-stream a hash still finds the backend; NAT's state and a cursor's place are lost. */
	if (!l4_opens(&context->headers) && (l4_is_nat(service->mode) || !l4_is_hash(service->rule)))
		return l4_without_flow(context, l4_is_nat(service->mode));
	if (l4_is_tunnel(service->mode) && context->room < L4_TUNNEL_ROOM)
		return l4_miss_as(context, L4_MISS_FRONT);
	return L4_UNDECIDED;
}

/* What a ring says of a flow: its backend, 0 if there is none, and whether it has, or is to have, an entry. */
struct l4_in_ring {
	uint32_t backend;
	bool remembers;
};

/* The backend in the slot of this frame, of a ring that has such. `turn`: of the service's cursor, if that counts. */
L4_INLINE struct l4_in_ring l4_in_ring_of(const struct l4_context *context, const struct l4_service *service,
					  uint32_t turn)
{
	uint32_t at = service->ring_start + l4_slot_of(context, service, service->ring_size, turn);
	const uint16_t *slot = l4_ring_at(context->tables, context->half, at), *owner = NULL;

	if (service->owners)
		owner = l4_ring_at(context->tables, context->half, at + service->ring_size);

	return (struct l4_in_ring){ slot ? *slot : 0, !owner || !slot || *owner != *slot };
}

/* of_owner(): where a frame in mid-stream goes that has no entry. 0: nobody tells. */
L4_INLINE uint32_t l4_owner_of(const struct l4_context *context, const struct l4_service *service)
{
	const uint16_t *owner;

	if (!service->owners || l4_opens(&context->headers))
		return 0;
	owner = l4_ring_at(context->tables, context->half,
			   service->ring_start + service->ring_size + l4_slot_of(context, service, service->owners, 0));
	return owner ? *owner : 0;
}

/* Send it to the backend with this number, if that can be. L4_FORWARD; or a verdict, or L4_MISS. */
L4_INLINE int l4_reach(struct l4_context *context, uint32_t number)
{
	const struct l4_backend *backend = l4_backend_at(context->tables, context->half, number);
	struct l4_where hop;

	if (!backend)
		return l4_miss_as(context, L4_MISS_CHANGED);
	context->backend = number;
	hop = l4_where_is(context->tables, backend->next_hop);
	if (!hop.known)
		return L4_DROP_NEXT_HOP_UNKNOWN;
	if (l4_unlikely(l4_is_too_long(context, l4_overhead(backend), backend->arm) ||
			l4_is_too_long_for_path(context, backend)))
		return l4_miss_as(context, L4_MISS_TOO_LONG);
	context->tunnel = l4_is_tunnel(backend->mode);
	return l4_to_backend(context, backend, number, hop);
}

#endif
