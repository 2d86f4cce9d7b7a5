/* SPDX-License-Identifier: MIT */
/*
 * The MSS of a SYN, lowered: the twin of l4raw/core/mss.py.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_MSS_H
#define L4RAW_SRC_MSS_H

#include "context.h"

/* RFC 9293, sections 3.1 and 3.2: the data offset, 40 bytes of options at most, and their kinds. */
enum { L4_TCP_OPTIONS = 40 };
enum { L4_OPTION_END = 0, L4_OPTION_NOTHING = 1, L4_OPTION_MSS = 2, L4_MSS_LENGTH = 4 };

/* Offset of the value of the MSS option in the TCP header at `tcp`, which has been parsed; 0: none. */
L4_INLINE uint32_t l4_mss_at(const uint8_t *tcp, const uint8_t *end)
{
	uint32_t at = sizeof(struct tcphdr), length, step;

	if (!l4_has(tcp, end, sizeof(struct tcphdr)))
		return 0;
	length = (tcp[L4_TCP_OFFSET_AT] >> 4) * 4u;
	for (step = 0; step < L4_TCP_OPTIONS && at < length; step++) {
		const uint8_t *option = tcp + at;

		if (!l4_has(option, end, 1) || option[0] == L4_OPTION_END)
			return 0;
		if (option[0] == L4_OPTION_NOTHING) {
			at++;
			continue;
		}
		if (at + 2 > length || !l4_has(option, end, 2) || option[1] < 2 || at + option[1] > length)
			return 0;
		if (option[0] == L4_OPTION_MSS)
			return option[1] == L4_MSS_LENGTH ? at + 2 : 0;
		at += option[1];
	}
	return 0;
}

L4_INLINE uint16_t l4_exchanged(uint16_t word)
{
	return (uint16_t)(word << 8 | word >> 8);
}

/* Lower the MSS of a SYN that is sent, if its service wants that. Nothing of the checksum covers it, if that is partial. */
L4_INLINE void l4_clamp(struct l4_context *context)
{
	const struct l4_service *service = l4_service_at(context->tables, context->half, context->service);
	struct l4_headers *headers = &context->headers;
	uint8_t *tcp = context->data + l4_offset(headers->l4), *field, *check = tcp + offsetof(struct tcphdr, check);
	uint16_t before, after;
	uint32_t at;

	if (!service || !service->mss_clamp)
		return;
	at = l4_mss_at(tcp, context->end);
	field = tcp + at;
	if (!at || !l4_has(field, context->end, 2) || !l4_has(check, context->end, 2))
		return;
	before = l4_read16(field);
	after = l4_htons(service->mss_clamp);
	if (l4_ntohs(before) <= service->mss_clamp)
		return;
	l4_write16(field, after);
	if (context->csum_start > 0 && context->csum_start == headers->l4)
		return;
	/* In the second half of one word and the first of the next, if options before it are of odd length. */
	if (at & 1) {
		before = l4_exchanged(before);
		after = l4_exchanged(after);
	}
	headers->l4_check_be = l4_update(headers->l4_check_be, l4_change16(before, after));
	l4_write16(check, headers->l4_check_be);
}

#endif
