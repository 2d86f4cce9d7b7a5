/* SPDX-License-Identifier: MIT */
/*
 * What an address is to us: a VIP, a service's, our own. See struct l4_place.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_LOOKUP_H
#define L4RAW_SRC_LOOKUP_H

#include "flows.h"

/* A number of a service, or 0 where `service` tells nothing; -1: nothing. */
L4_INLINE int l4_address_is(const struct l4_tables *tables, uint32_t half, uint32_t address_be, uint16_t port_be,
			    uint8_t use)
{
	const struct l4_policy *policy = l4_policy_at(tables, half);
	uint64_t mapped = l4_v4_mapped(address_be), hash;
	uint32_t start, i;

	if (!policy)
		return -1;
	hash = l4_hash(&policy->lookup_key, address_be, 0, l4_ports(0, port_be), use);
	start = l4_scale(hash >> 32, policy->places);
	for (i = 0; i < L4_PROBES; i++) {
		const struct l4_place *place = l4_place_at(tables, half, start + i);
		uint64_t address[2];

		if (!place || !place->used)
			return -1;
		l4_copy(address, place->address, sizeof(address));
		if (address[1] == mapped && address[0] == 0 && place->port_be == port_be && place->protocol == use)
			return place->service;
	}
	return -1;
}

#endif
