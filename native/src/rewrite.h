/* SPDX-License-Identifier: MIT */
/*
 * The last stage: the twin of l4raw/core/rewrite.py, and the completion of
 * partial checksums, which the reference does not need.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_REWRITE_H
#define L4RAW_SRC_REWRITE_H

#include "mss.h"
#include "tunnel.h"

/* Where the checksum of this frame's TCP or UDP header is. */
L4_INLINE uint32_t l4_check_at(const struct l4_headers *headers)
{
	return headers->l4 + (uint32_t)(headers->key.protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) :
									offsetof(struct udphdr, check));
}

/* As a checksum of 0 means "none" in UDP, one that is 0 is sent as 0xffff, its other spelling: RFC 768. */
L4_INLINE uint16_t l4_sent_as(const struct l4_headers *headers, uint16_t check)
{
	return check == 0 && headers->key.protocol == IPPROTO_UDP ? 0xffff : check;
}

/* Complete a checksum that is partial: what a network card would do. */
L4_INLINE void l4_finish(struct l4_context *context)
{
	struct l4_headers *headers = &context->headers;
	const uint8_t *at = context->data + l4_offset(headers->l4);
	uint8_t *field = context->data + l4_offset(l4_check_at(headers));
	uint64_t sum = l4_sum_far(context->tables, at, context->end, headers->l4, headers->l4_length);

	if (!l4_still_has(field, context->end, 2))
		return;
	/* The field is part of what is added up, and is the pseudo-header's part of it (RFC 1071, section 1). */
	headers->l4_check_be = l4_sent_as(headers, (uint16_t)~l4_fold(sum));
	l4_write16(field, headers->l4_check_be);
}

/*
 * What an AF_XDP socket or an XDP program receives from a veth has, unlike an
 * skb, nothing that says that its checksum is partial. But then the field
 * equals the pseudo-header's sum. One valid checksum in 65,536 does too; to
 * complete it gives the same one, as a sum has only one complement.
 *
 * Completes it in the frame, which is about to be sent: nobody after us would.
 * So under DSR too, which otherwise touches no checksum.
 */
L4_INLINE void l4_complete(struct l4_context *context)
{
	struct l4_headers *headers = &context->headers;
	if (headers->l4_check_be == 0 && headers->key.protocol == IPPROTO_UDP)
		return;
	/* A sum and the complement of what equals it are "all ones" together. */
	if (l4_is_all_ones(l4_pseudo_header(headers) + (uint16_t)~headers->l4_check_be))
		l4_finish(context);
}

/* The checksum of TCP or UDP after addresses and ports changed; RFC 768's "none" stays. */
L4_INLINE void l4_translate_check(struct l4_context *context, uint64_t addresses)
{
	const struct l4_headers *headers = &context->headers;
	uint8_t *field = context->data + l4_offset(l4_check_at(headers));
	uint16_t check = headers->l4_check_be;

	if (check == 0 && headers->key.protocol == IPPROTO_UDP)
		return;
	if (context->csum_start > 0 && context->csum_start == headers->l4)
		check = l4_update_partial(check, addresses);
	else
		check = l4_sent_as(headers, l4_update(check, addresses + l4_change32(context->headers.key.ports,
										      context->ports_be)));
	if (l4_still_has(field, context->end, 2))
		l4_write16(field, check);
}

/* TTL, addresses and header checksum of IPv4: RFC 1812, section 5.3.1 and RFC 1624. */
L4_INLINE void l4_write_v4(const struct l4_context *context, uint8_t *ip, uint8_t ttl, uint64_t addresses)
{
	const struct l4_headers *headers = &context->headers;
	uint32_t src = l4_second32(context->src[1]), dst = l4_second32(context->dst[1]);
	uint16_t check;

	if (!l4_still_has(ip, context->end, sizeof(struct iphdr)))
		return;
	ip[offsetof(struct iphdr, ttl)] = ttl;
	check = l4_update(headers->ip_check_be, addresses + l4_change8(headers->ttl, ttl));
	l4_write16(ip + offsetof(struct iphdr, check), check);
	l4_write32(ip + offsetof(struct iphdr, saddr), src);
	l4_write32(ip + offsetof(struct iphdr, daddr), dst);
}

/* Hop limit and addresses of IPv6: RFC 8200, section 3. */
L4_INLINE void l4_write_v6(const struct l4_context *context, uint8_t *ip, uint8_t ttl)
{
	if (!l4_still_has(ip, context->end, sizeof(struct ipv6hdr)))
		return;
	ip[offsetof(struct ipv6hdr, hop_limit)] = ttl;
	l4_write64(ip + offsetof(struct ipv6hdr, saddr), context->src[0]);
	l4_write64(ip + offsetof(struct ipv6hdr, saddr) + 8, context->src[1]);
	l4_write64(ip + offsetof(struct ipv6hdr, daddr), context->dst[0]);
	l4_write64(ip + offsetof(struct ipv6hdr, daddr) + 8, context->dst[1]);
}

/* How the addresses change a sum that covers them; of IPv4-mapped ones only the last 32 bits do. */
L4_INLINE uint64_t l4_change_of_addresses(const struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;
	uint64_t change = l4_change32(l4_second32(headers->key.src[1]), l4_second32(context->src[1])) +
			  l4_change32(l4_second32(headers->key.dst[1]), l4_second32(context->dst[1]));

	if (l4_unlikely(headers->v6))
		change += l4_change64(headers->key.src[0], context->src[0]) +
			  l4_change32(l4_first32(headers->key.src[1]), l4_first32(context->src[1])) +
			  l4_change64(headers->key.dst[0], context->dst[0]) +
			  l4_change32(l4_first32(headers->key.dst[1]), l4_first32(context->dst[1]));
	return change;
}

/* NAT: RFC 3022 for what is translated. */
L4_INLINE void l4_translate(struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;
	uint8_t *ip = context->data + l4_offset(headers->ip), *l4 = context->data + l4_offset(headers->l4);
	uint64_t addresses = l4_change_of_addresses(context);

	if (l4_unlikely(headers->v6))
		l4_write_v6(context, ip, (uint8_t)(headers->ttl - 1));
	else
		l4_write_v4(context, ip, (uint8_t)(headers->ttl - 1), addresses);
	/* TCP and UDP have their ports in the same place. */
	if (l4_still_has(l4, context->end, sizeof(context->ports_be)))
		l4_write32(l4, context->ports_be);
	l4_translate_check(context, addresses);
}

/*
 * What a tunnel carries is routed on, so its TTL is one less; and a partial checksum, of which the caller said
 * that it stays so, is completed after all: no network card looks for it inside of a tunnel.
 */
L4_INLINE void l4_route_on(struct l4_context *context)
{
	struct l4_headers *headers = &context->headers;
	uint8_t *ip = context->data + l4_offset(headers->ip), ttl = (uint8_t)(headers->ttl - 1);

	if (context->csum_start > 0 && context->csum_start == headers->l4 &&
	    (headers->l4_check_be || headers->key.protocol != IPPROTO_UDP))
		l4_finish(context);
	l4_copy(context->src, headers->key.src, sizeof(context->src));
	l4_copy(context->dst, headers->key.dst, sizeof(context->dst));
	if (headers->v6)
		l4_write_v6(context, ip, ttl);
	else
		l4_write_v4(context, ip, ttl, 0);
}

/* Into the tunnel to its backend. */
L4_INLINE void l4_into_tunnel(struct l4_context *context)
{
	l4_route_on(context);
	l4_enclose(context);
}

/* Of what we send ourselves: RFC 1700, "IP Time To Live Parameter". */
enum { L4_OWN_TTL = 64 };

/* An echo request becomes the reply to it: RFC 792, "Echo"; RFC 4443, section 4.2. Exchanged addresses change no sum. */
L4_INLINE void l4_answer(struct l4_context *context)
{
	const struct l4_headers *headers = &context->headers;
	uint8_t *ip = context->data + l4_offset(headers->ip), *message = context->data + l4_offset(headers->icmp);
	uint8_t type = headers->v6 ? L4_ECHO_REPLY_V6 : L4_ECHO_REPLY_V4;
	uint16_t check;

	if (!l4_has(message, context->end, L4_ICMP_LENGTH) || !l4_has(ip, context->end, sizeof(struct iphdr)))
		return;
	message[0] = type;
	check = l4_update(headers->l4_check_be, l4_change8(headers->icmp_type, type));
	/* A message of zeros, which no pseudo-header goes with: 0xffff is right, 0 is not. */
	if (!check && !headers->v6)
		check = 0xffff;
	l4_write16(message + L4_ICMP_CHECK_AT, check);
	l4_copy(context->src, headers->key.dst, sizeof(context->src));
	l4_copy(context->dst, headers->key.src, sizeof(context->dst));
	if (headers->v6)
		l4_write_v6(context, ip, L4_OWN_TTL);
	else
		l4_write_v4(context, ip, L4_OWN_TTL, 0);
}

L4_INLINE void l4_write_mac(uint8_t *to, const uint8_t *mac)
{
	l4_write32(to, l4_read32(mac));
	l4_write16(to + 4, l4_read16(mac + 4));
}

/* Where it goes, and where it seems to come from: MAC addresses and, under NAT, IP addresses and ports. */
L4_INLINE void l4_write_ends(struct l4_context *context)
{
	uint8_t *data = context->data;

	if (!l4_still_has(data, context->end, sizeof(struct ethhdr)))
		return;
	l4_write_mac(data + offsetof(struct ethhdr, h_dest), context->hop.mac);
	l4_write_mac(data + offsetof(struct ethhdr, h_source), l4_own_mac(context->tables, context->out_arm));
	if (context->nat)
		l4_translate(context);
}

/* Stage 4: write what changes into a frame that is sent. All others stay as they are. */
L4_INLINE void l4_rewrite(struct l4_context *context)
{
	if (context->verdict >= L4_SENT)
		return;
	if (context->csum_start == L4_CSUM_DETECT && context->headers.l4)
		l4_complete(context);
	if (l4_unlikely(context->headers.flags & L4_TCP_SYN))
		l4_clamp(context);
	if (l4_unlikely(context->tunnel))
		l4_into_tunnel(context);
	l4_write_ends(context);
	if (l4_unlikely(context->echo))
		l4_answer(context);
}

#endif
