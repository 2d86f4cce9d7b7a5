/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The frames that nearly all are, read and found in as few instructions as it
 * takes: IPv4 without options, whole, untagged, TCP or UDP; and of a flow whose
 * entry is the first of its candidates. What is not so is no frame's fault: it
 * is read anew by the helper's text, l4_parse() and l4_find(), of which this is
 * the straight part. Must not live here: what becomes of the frame.
 */
#ifndef L4RAW_BPF_PLAIN_H
#define L4RAW_BPF_PLAIN_H

#include "tables.h"
#include "../src/tunnel.h"

enum { PLAIN_IP = sizeof(struct ethhdr), PLAIN_L4 = PLAIN_IP + sizeof(struct iphdr) };

/* Its transport header. False: it is not plain, or something is wrong with it. */
static __always_inline bool read_plain_transport(const uint8_t *data, const uint8_t *end, uint32_t room,
						 struct l4_headers *headers)
{
	if (headers->key.protocol == IPPROTO_UDP)
		return l4_parse_udp(data + PLAIN_L4, end, room, headers) == L4_UNDECIDED;
	return headers->key.protocol == IPPROTO_TCP &&
	       l4_parse_tcp(data + PLAIN_L4, end, room, headers) == L4_UNDECIDED;
}

/* l4_read_headers(). False likewise. */
static __always_inline bool read_plain(const uint8_t *data, const uint8_t *end, uint32_t arm,
				       struct l4_headers *headers)
{
	const uint8_t *ip = data + PLAIN_IP;
	uint32_t total;

	if (data + PLAIN_L4 > end || l4_read16(data + offsetof(struct ethhdr, h_proto)) != l4_htons(ETH_P_IP) ||
	    ip[0] != L4_NO_OPTIONS || (l4_read16(ip + offsetof(struct iphdr, frag_off)) & l4_htons(L4_IS_FRAGMENT)) ||
	    !l4_same_mac(data, l4_own_mac(NULL, arm)))
		return false;
	total = l4_ntohs(l4_read16(ip + offsetof(struct iphdr, tot_len)));
	if (total < sizeof(struct iphdr) || total > (uint32_t)(end - ip) ||
	    !l4_header_is_valid(ip, end, sizeof(struct iphdr)))
		return false;
	*headers = (struct l4_headers){
		.key.src = { 0, l4_v4_mapped(l4_read32(ip + offsetof(struct iphdr, saddr))) },
		.key.dst = { 0, l4_v4_mapped(l4_read32(ip + offsetof(struct iphdr, daddr))) },
		.key.protocol = ip[offsetof(struct iphdr, protocol)],
		.ip_check_be = l4_read16(ip + offsetof(struct iphdr, check)),
		.ttl = ip[offsetof(struct iphdr, ttl)],
		.ip = PLAIN_IP,
		.l4 = PLAIN_L4,
		.length = total,
	};
	if (!read_plain_transport(data, end, total - sizeof(struct iphdr), headers))
		return false;
	headers->key.hash = l4_hash_v4(&control.key, headers->key.src, headers->key.dst, headers->key.ports,
				       headers->key.protocol);
	return true;
}

/* l4_look(): the flow, or that there is none, in the context. False: it takes more to tell. */
static __always_inline bool find_plain(struct l4_context *context)
{
	const struct l4_key *key = &context->headers.key;
	struct l4_choice bucket = l4_buckets_of(NULL, key->hash);
	uint64_t candidates = l4_candidates(NULL, bucket, key->hash);

	if (!candidates)
		return !l4_is_marked(NULL, bucket.first) || !l4_is_marked(NULL, bucket.second);
	context->flow = l4_first_of(bucket, candidates);
	context->entry = l4_flow_at(NULL, (uint32_t)context->flow);
	return context->entry &&
	       l4_is_at(context->entry, (uint32_t)context->flow, key, &context->generation) >= 0;
}

#endif
