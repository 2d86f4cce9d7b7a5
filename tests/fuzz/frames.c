/* SPDX-License-Identifier: MIT */
/*
 * Frames, read and repaired in the plainest way, from the RFCs: the second
 * opinion on the helper. So it has none of its code, and takes no care of speed.
 */
#include <string.h>

#include "fuzz.h"

enum { ETHERNET = 14, TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58 };

static uint32_t be16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* One's complement sum: RFC 1071. */
static uint32_t sum(const uint8_t *at, uint32_t size, uint32_t start)
{
	uint64_t total = start;

	for (uint32_t i = 0; i < size; i++)
		total += (uint64_t)at[i] << (i % 2 ? 0 : 8);
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint32_t)total;
}

/* Past up to six extension headers (RFC 8200, section 4): the protocol, and where it begins; 59: nothing to see. */
static uint8_t past_extensions(const uint8_t *frame, uint32_t ip, uint32_t end, uint32_t *at)
{
	uint8_t protocol = frame[ip + 6];

	for (int i = 0; i < 6; i++) {
		uint8_t kind = protocol;
		uint32_t length;

		if (kind != 0 && kind != 43 && kind != 44 && kind != 51 && kind != 60)
			break;
		if (*at + 8 > end)
			return 59;
		length = kind == 44 ? 8 : kind == 51 ? 8 + frame[*at + 1] * 4u : 8 + frame[*at + 1] * 8u;
		if (kind == 44 && be16(frame + *at + 2) & 0xfff9)
			return 59;
		if (kind == 43 && frame[*at + 3])
			return 59;
		protocol = frame[*at];
		*at += length;
	}
	return protocol;
}

/* The sum of the pseudo-header; ICMP has none. */
static uint16_t pseudo(const uint8_t *frame, const struct seen *seen)
{
	uint32_t start = sum(frame + seen->start + (seen->v6 ? 8 : 12), seen->v6 ? 32 : 8, seen->length);

	if (seen->protocol == ICMP)
		return 0;
	return (uint16_t)sum(NULL, 0, start + seen->protocol);
}

/* What follows the IP header at `at`, up to `end`. */
static void look_at_segment(const uint8_t *frame, uint32_t at, uint32_t end, uint8_t protocol, struct seen *seen)
{
	uint32_t least = protocol == TCP ? 20 : 8;

	if (protocol != TCP && protocol != UDP && protocol != (seen->v6 ? ICMPV6 : ICMP))
		return;
	if (at > end || end - at < least)
		return;
	seen->length = protocol == UDP ? be16(frame + at + 4) : end - at;
	if (seen->length > end - at || seen->length < 8)
		return;
	seen->l4 = at;
	seen->protocol = protocol;
	seen->field = at + (protocol == TCP ? 16 : protocol == UDP ? 6 : 2);
	seen->partial = pseudo(frame, seen);
}

uint32_t frame_ip_at(const uint8_t *frame, uint32_t size)
{
	return size >= ETHERNET && be16(frame + 12) == 0x8100 ? ETHERNET + 4 : ETHERNET;
}

struct seen frame_look(const uint8_t *frame, uint32_t size)
{
	const uint32_t ip = frame_ip_at(frame, size);
	struct seen seen = { .start = ip };
	uint32_t at, end, type;
	uint8_t protocol;

	if (size < ip + 20)
		return seen;
	type = be16(frame + ip - 2);
	if (type == 0x0800 && frame[ip] >> 4 == 4) {
		at = ip + (frame[ip] & 15u) * 4;
		end = ip + be16(frame + ip + 2);
		if (at < ip + 20 || at > end || end > size)
			return seen;
		seen.ip = true;
		if (!(be16(frame + ip + 6) & 0x3fff))
			look_at_segment(frame, at, end, frame[ip + 9], &seen);
	} else if (type == 0x86dd && size >= ip + 40 && frame[ip] >> 4 == 6) {
		at = ip + 40;
		end = at + be16(frame + ip + 4);
		if (end > size)
			return seen;
		seen.ip = seen.v6 = true;
		protocol = past_extensions(frame, ip, end, &at);
		look_at_segment(frame, at, end, protocol, &seen);
	}
	return seen;
}

bool frame_ip_right(const uint8_t *frame, const struct seen *seen)
{
	return seen->ip && (seen->v6 || sum(frame + seen->start, (frame[seen->start] & 15u) * 4, 0) == 0xffff);
}

enum sum frame_sum(const uint8_t *frame, const struct seen *seen)
{
	if (!seen->protocol)
		return SUM_ABSENT;
	if (seen->protocol == UDP && !be16(frame + seen->field))
		return SUM_NONE;
	if (sum(frame + seen->l4, seen->length, seen->partial) == 0xffff)
		return SUM_RIGHT;
	return be16(frame + seen->field) == seen->partial && seen->partial ? SUM_PARTIAL : SUM_WRONG;
}

static void fix_l4(uint8_t *frame, const struct seen *seen)
{
	uint32_t total;

	put16(frame + seen->field, 0);
	total = ~sum(frame + seen->l4, seen->length, seen->partial) & 0xffff;
	put16(frame + seen->field, total ? total : seen->protocol == UDP ? 0xffff : 0);
}

int32_t frame_fix(uint8_t *frame, uint32_t size, uint32_t how, uint8_t odd)
{
	struct seen seen = frame_look(frame, size);
	uint32_t of_sum = how & HOW_SUM;

	if (seen.ip && !seen.v6 && (how & HOW_FIX_IP)) {
		uint8_t *ip = frame + seen.start;

		put16(ip + 10, 0);
		put16(ip + 10, ~sum(ip, (ip[0] & 15u) * 4, 0));
	}
	if (seen.protocol && (of_sum == HOW_TOLD || of_sum == HOW_PARTIAL_UNTOLD))
		put16(frame + seen.field, seen.partial);
	else if (seen.protocol && (how & HOW_FIX_L4))
		fix_l4(frame, &seen);
	if (how & HOW_ODD_START)
		return odd;
	if (of_sum == HOW_TOLD)
		return (int32_t)seen.l4;
	return of_sum == HOW_WHOLE ? 0 : L4_CSUM_DETECT;
}

static void exchange(uint8_t *one, uint8_t *other, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++) {
		uint8_t kept = one[i];

		one[i] = other[i];
		other[i] = kept;
	}
}

void frame_turn(uint8_t *frame, uint32_t size)
{
	struct seen seen = frame_look(frame, size);

	if (!seen.ip)
		return;
	exchange(frame, frame + 6, 6);
	if (seen.v6)
		exchange(frame + seen.start + 8, frame + seen.start + 24, 16);
	else
		exchange(frame + seen.start + 12, frame + seen.start + 16, 4);
	if (seen.protocol == TCP || seen.protocol == UDP)
		exchange(frame + seen.l4, frame + seen.l4 + 2, 2);
}

bool frame_key(const uint8_t *frame, uint32_t size, struct l4_flow *key)
{
	struct seen seen = frame_look(frame, size);

	if (seen.protocol != TCP && seen.protocol != UDP)
		return false;
	*key = (struct l4_flow){ .protocol = seen.protocol };
	if (seen.v6) {
		memcpy(key->src, frame + seen.start + 8, 32);
	} else {
		key->src[10] = key->src[11] = key->dst[10] = key->dst[11] = 0xff;
		memcpy(key->src + 12, frame + seen.start + 12, 4);
		memcpy(key->dst + 12, frame + seen.start + 16, 4);
	}
	memcpy(&key->sport_be, frame + seen.l4, 4);
	return true;
}
