/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Parts of the packet code that the verifier looks at once. A function that is
 * not static is verified by itself, for any arguments, and is no more than a
 * number where it is called. Inlined, all that follows would be verified anew
 * for each way out of a loop: more than a million instructions.
 */
#ifndef L4RAW_BPF_SUBPROGRAMS_H
#define L4RAW_BPF_SUBPROGRAMS_H

#include "memory.h"
#include "../src/lookup.h"

/* l4_find(). */
__attribute__((noinline)) int64_t find_flow(const struct l4_key *key, uint32_t *generation)
{
	return key && generation ? l4_find(NULL, key, generation) : L4_NONE;
}
#define l4_find(tables, key, generation) ((void)(tables), find_flow(key, generation))

/* l4_address_is(). */
__attribute__((noinline)) int address_is(uint64_t first, uint64_t second, uint32_t half, uint32_t port_be, uint32_t use)
{
	const uint64_t address[2] = { first, second };

	return l4_address_is(NULL, half & 1, address, port_be, use & 0xff);
}
#define l4_address_is(tables, half, address, port_be, use) \
	((void)(tables), address_is((address)[0], (address)[1], half, port_be, use))

/* RFC 8200, section 4.5: bytes of a fragment header, where in it the offset is, and its bits. */
enum { FRAGMENT_LENGTH = 8, FRAGMENT_OFFSET_AT = 2, FRAGMENT_OFFSET = 0xfff8 };
/* The bits of what past_extensions() returns, above L4_PAST: the protocol, and whether it is a later fragment. */
enum { PROTOCOL_SHIFT = 16, LATER = 1 << 24 };

/*
 * Past the extension headers, of which `protocol` is the first, and which begin `offset` bytes into the frame, in a
 * payload of `length`: as far as the helper goes. How many bytes they are, and what follows: still an extension
 * header if it cannot be read, or is one too many.
 *
 * Verified once, as find_flow() is.
 */
__attribute__((noinline)) uint32_t past_extensions(struct xdp_md *context, uint32_t offset, uint32_t length,
						   uint32_t protocol)
{
	const uint8_t *end = (const void *)(long)context->data_end;
	const uint8_t *at = (const uint8_t *)(long)context->data + (offset & L4_PAST), *fragment;
	struct l4_headers headers = { .key.protocol = protocol & 0xff };
	uint32_t past = 0, found;

	l4_past_extensions(at, end, length & 0xffff, &headers, &past);
	found = (past & L4_PAST) | (headers.key.protocol & 0xff) << PROTOCOL_SHIFT;
	fragment = at + (past - FRAGMENT_LENGTH & L4_PAST);
	if (headers.fragment && fragment + FRAGMENT_LENGTH <= end &&
	    l4_read16(fragment + FRAGMENT_OFFSET_AT) & l4_htons(FRAGMENT_OFFSET))
		found |= LATER;
	return found;
}

#endif
