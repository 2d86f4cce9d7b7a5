/* SPDX-License-Identifier: MIT */
/*
 * Headers in front of a packet: the twin of l4raw/core/tunnel.py, where every
 * choice is explained. The frame grows at its front; only the Ethernet header
 * moves, with its tag, and is written anew.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_TUNNEL_H
#define L4RAW_SRC_TUNNEL_H

#include "context.h"

/* UDP's and GUE's headers; where the latter begins; its second byte. See l4raw/wire/gue.py. */
enum { L4_GUE_LENGTH = 12, L4_GUE_AT = 8, L4_GUE_PROTOCOL_AT = 9 };
enum { L4_GUE_FIRST_PORT = 49152, L4_GUE_PORTS = 1 << 14 };

/* RFC 791, section 3.1. */
enum { L4_DONT_FRAGMENT = 0x4000, L4_NO_OPTIONS = 0x45 };

/* What the headers in front copy of the packet inside, or compute from it. */
struct l4_inside {
	uint32_t length;
	uint16_t flags_be;         /* of IPv4: don't fragment; IPv6 never is */
	uint16_t id_be;
	uint16_t number;           /* of its flow, in the order of the host */
	uint8_t traffic_class;
	uint8_t protocol;
};

/* Whether the backend's end of a tunnel has an IPv6 address. */
L4_INLINE bool l4_ends_in_v6(const struct l4_backend *backend)
{
	const uint64_t address[2] = { l4_read64(backend->address), l4_read64(backend->address + 8) };

	return !l4_is_v4(address);
}

L4_ASSERT(sizeof(struct ipv6hdr) + L4_GUE_LENGTH == L4_TUNNEL_ROOM, "the most that goes in front of a packet")

/* Whether a packet travels inside of another one in this mode. */
L4_INLINE bool l4_is_tunnel(uint8_t mode)
{
	return mode == L4_DSR_IPIP || mode == L4_DSR_GUE;
}

/* Bytes that go in front of a packet to this backend: overhead() in tunnel.py. */
L4_INLINE uint32_t l4_overhead(const struct l4_backend *backend)
{
	uint32_t ip;

	if (!l4_is_tunnel(backend->mode))
		return 0;
	ip = l4_ends_in_v6(backend) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	return backend->mode == L4_DSR_GUE ? ip + L4_GUE_LENGTH : ip;
}

/* Whether a packet and `overhead` bytes of headers in front are too long for an arm: fit() in l4raw/core/mtu.py. */
L4_INLINE bool l4_is_too_long(const struct l4_context *context, uint32_t overhead, uint32_t arm)
{
	const struct l4_control *control = l4_control_of(context->tables);
	uint32_t length = context->headers.length + overhead;

	/* Nearly always enough: what fits through both fits through this one. */
	return l4_unlikely(length > l4_load(&control->least_mtu)) && length > l4_load(&control->mtus[arm & 1]);
}

/* Whether it is too long for the path to this backend, of which a router has told: l4raw/core/path_mtu.py. */
L4_INLINE bool l4_is_too_long_for_path(const struct l4_context *context, const struct l4_backend *backend)
{
	uint32_t told = l4_load(&backend->path_mtu);

	return told && context->headers.length + l4_overhead(backend) > told;
}

/* The one's complement sum of addresses and ports. */
L4_INLINE uint16_t l4_number_of(const struct l4_key *key)
{
	return l4_ntohs(l4_fold(l4_sum64(key->src[0]) + l4_sum64(key->src[1]) + l4_sum64(key->dst[0]) +
				l4_sum64(key->dst[1]) + key->ports));
}

/* False: the frame ends before its IP header does, which it did not when it was parsed. */
L4_INLINE bool l4_look_inside(const struct l4_context *context, struct l4_inside *inside)
{
	const uint8_t *ip = context->data + l4_offset(context->headers.ip);

	*inside = (struct l4_inside){ .number = l4_number_of(&context->headers.key), .length = context->headers.length };
	if (context->headers.v6) {
		if (!l4_has(ip, context->end, sizeof(struct ipv6hdr)))
			return false;
		inside->flags_be = l4_htons(L4_DONT_FRAGMENT);
		inside->traffic_class = (uint8_t)(l4_ntohs(l4_read16(ip)) >> 4);
		inside->protocol = IPPROTO_IPV6;
		return true;
	}
	if (!l4_has(ip, context->end, sizeof(struct iphdr)))
		return false;
	inside->flags_be = l4_read16(ip + offsetof(struct iphdr, frag_off)) & l4_htons(L4_DONT_FRAGMENT);
	inside->traffic_class = ip[offsetof(struct iphdr, tos)];
	inside->protocol = IPPROTO_IPIP;
	if (!inside->flags_be) {
		uint16_t id = l4_ntohs(l4_read16(ip + offsetof(struct iphdr, id)));

		inside->id_be = l4_htons((uint16_t)(id + inside->number));
	}
	return true;
}

/*
 * The sum of the packet inside, as it is in the frame now. An IPv4 header with a right checksum adds up to
 * nothing, and so do TCP or UDP and their pseudo-header: what they carry is not read.
 */
L4_INLINE uint64_t l4_sum_of_inside(const struct l4_context *context, uint32_t length)
{
	const struct l4_headers *headers = &context->headers;
	const uint8_t *ip = context->data + l4_offset(headers->ip);
	bool unsummed = !headers->l4 || (headers->key.protocol == IPPROTO_UDP && headers->l4_check_be == 0);
	uint64_t sum;

	if (unsummed || headers->l4 + (uint32_t)headers->l4_length != headers->ip + length)
		return l4_sum_far(context->tables, ip, context->end, headers->ip, length);
	sum = (uint16_t)~l4_fold(l4_pseudo_header(headers));
	if (headers->v6)
		sum += l4_sum_far(context->tables, ip, context->end, headers->ip, (uint32_t)headers->l4 - headers->ip);
	return sum;
}

/* UDP's and GUE's headers over IPv6, where a checksum has to be: RFC 8200, section 8.1. */
L4_INLINE uint16_t l4_sum_of_gue(const struct l4_backend *backend, const uint8_t *headers, uint16_t size_be,
				 uint64_t inside)
{
	uint64_t sum = inside + l4_htons(IPPROTO_UDP) + size_be + l4_sum64(l4_read64(headers)) +
		       l4_read32(headers + L4_GUE_AT) + l4_sum64(l4_read64(backend->address)) +
		       l4_sum64(l4_read64(backend->address + 8)) + l4_sum64(l4_read64(backend->source)) +
		       l4_sum64(l4_read64(backend->source + 8));
	uint16_t check = (uint16_t)~l4_fold(sum);

	return check ? check : 0xffff;
}

/* The header of IPv4 in front: RFC 791. */
L4_INLINE void l4_put_v4(uint8_t *at, const struct l4_backend *backend, const struct l4_inside *inside)
{
	uint32_t words[sizeof(struct iphdr) / 4];
	struct iphdr ip = {
		.tos = inside->traffic_class,
		.tot_len = l4_htons((uint16_t)(inside->length + sizeof(ip))),
		.id = inside->id_be,
		.frag_off = inside->flags_be,
		.ttl = backend->tunnel_ttl,
		.protocol = inside->protocol,
		.saddr = l4_second32(l4_read64(backend->source + 8)),
		.daddr = l4_second32(l4_read64(backend->address + 8)),
	};
	uint64_t sum = 0;
	uint32_t i;

	ip.version = L4_NO_OPTIONS >> 4;
	ip.ihl = L4_NO_OPTIONS & 15;
	l4_copy(words, &ip, sizeof(ip));
	for (i = 0; i < sizeof(words) / 4; i++) {
		sum += words[i];
		l4_write32(at + 4 * i, words[i]);
	}
	l4_write16(at + offsetof(struct iphdr, check), (uint16_t)~l4_fold(sum));
}

/* That of IPv6: RFC 8200. */
L4_INLINE void l4_put_v6(uint8_t *at, const struct l4_backend *backend, const struct l4_inside *inside)
{
	l4_write32(at, l4_htonl(6u << 28 | (uint32_t)inside->traffic_class << 20 | inside->number));
	l4_write16(at + offsetof(struct ipv6hdr, payload_len), l4_htons((uint16_t)inside->length));
	at[offsetof(struct ipv6hdr, nexthdr)] = inside->protocol;
	at[offsetof(struct ipv6hdr, hop_limit)] = backend->tunnel_ttl;
	l4_write64(at + offsetof(struct ipv6hdr, saddr), l4_read64(backend->source));
	l4_write64(at + offsetof(struct ipv6hdr, saddr) + 8, l4_read64(backend->source + 8));
	l4_write64(at + offsetof(struct ipv6hdr, daddr), l4_read64(backend->address));
	l4_write64(at + offsetof(struct ipv6hdr, daddr) + 8, l4_read64(backend->address + 8));
}

/*
 * Put the headers in front of the packet, whose own edits are done, and a new Ethernet header before them. The
 * caller of the helper has said that there is room.
 */
L4_INLINE void l4_enclose(struct l4_context *context)
{
	const struct l4_backend *backend = l4_backend_at(context->tables, context->half, context->backend);
	uint8_t headers[L4_GUE_LENGTH] = { 0 };
	struct l4_inside inside;
	uint32_t push, start = context->headers.ip;
	uint8_t *outer, *at;
	uint16_t ports[2], size_be, check;
	bool v6, gue;

	if (!backend || !l4_look_inside(context, &inside))
		return;
	v6 = l4_ends_in_v6(backend);
	gue = backend->mode == L4_DSR_GUE;
	if (gue) {
		ports[0] = l4_htons((uint16_t)(L4_GUE_FIRST_PORT + inside.number % L4_GUE_PORTS));
		ports[1] = backend->tunnel_port_be;
		size_be = l4_htons((uint16_t)(inside.length + L4_GUE_LENGTH));
		l4_copy(headers, ports, sizeof(ports));
		l4_copy(headers + offsetof(struct udphdr, len), &size_be, sizeof(size_be));
		headers[L4_GUE_PROTOCOL_AT] = inside.protocol;
		/* Over IPv4 there is none: RFC 768. */
		check = v6 ? l4_sum_of_gue(backend, headers, size_be, l4_sum_of_inside(context, inside.length)) : 0;
		l4_copy(headers + offsetof(struct udphdr, check), &check, sizeof(check));
	}
	push = l4_overhead(backend);
	if (!l4_push_front(context->tables, &context->data, &context->end, push) ||
	    !l4_has(context->data, context->end, L4_TAGGED_LENGTH))
		return;
	context->push = push;
	if (start == L4_TAGGED_LENGTH) { /* from where the header was */
		at = context->data + l4_offset(push + offsetof(struct ethhdr, h_proto));
		if (l4_still_has(at, context->end, L4_TAG_LENGTH))
			l4_write32(context->data + offsetof(struct ethhdr, h_proto), l4_read32(at));
	}
	at = context->data + l4_offset(start - sizeof(uint16_t));
	if (l4_still_has(at, context->end, sizeof(uint16_t)))
		l4_write16(at, l4_htons(v6 ? ETH_P_IPV6 : ETH_P_IP));
	outer = context->data + l4_offset(start);
	if (gue) {
		at = outer + l4_offset(push - L4_GUE_LENGTH);
		if (l4_still_has(at, context->end, L4_GUE_LENGTH))
			l4_copy(at, headers, sizeof(headers));
		inside.length += L4_GUE_LENGTH;
		inside.protocol = IPPROTO_UDP;
	}
	if (!v6 && l4_still_has(outer, context->end, sizeof(struct iphdr)))
		l4_put_v4(outer, backend, &inside);
	if (v6 && l4_still_has(outer, context->end, sizeof(struct ipv6hdr)))
		l4_put_v6(outer, backend, &inside);
}

#endif
