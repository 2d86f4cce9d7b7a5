/* SPDX-License-Identifier: MIT */
/*
 * The one ladder from bytes to fields: the twin of parse() in
 * l4raw/wire/headers.py, rung for rung. Headers are the kernel's structs,
 * copied out of the frame, because a frame is aligned to nothing.
 *
 * Each rung chooses its pointer first and then makes sure of the bytes behind
 * that pointer; after it, no read can fail. (A bound that is checked under a
 * branch is forgotten by the verifier of Linux 6.1.)
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_PACKET_H
#define L4RAW_SRC_PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "checksum.h"

/* RFC 9293, section 3.1: the byte after the data offset. */
enum { L4_TCP_FIN = 1, L4_TCP_SYN = 2, L4_TCP_RST = 4, L4_TCP_ACK = 16, L4_TCP_FLAGS_AT = 13 };

/* RFC 791, section 3.1: More Fragments, or an offset. */
enum { L4_IS_FRAGMENT = 0x3fff };

/* Where a verdict would stand: nothing is wrong so far. */
enum { L4_UNDECIDED = -1 };

/* What parsing read. Ports, flags and checksum are 0 where `l4` is 0. */
struct l4_headers {
	uint32_t saddr_be;
	uint32_t daddr_be;
	uint16_t sport_be;
	uint16_t dport_be;
	uint16_t ip_check_be;
	uint16_t l4_check_be;
	uint16_t l4_length;        /* of what the TCP or UDP checksum covers */
	uint16_t l4;               /* offset of the TCP or UDP header; 0: a fragment, or another protocol */
	uint8_t protocol;
	uint8_t ttl;
	uint8_t flags;             /* of TCP */
	bool fragment;
};

/* Ports, flags and checksum of a segment of `room` bytes. Returns L4_UNDECIDED, or the verdict that is wrong with it. */
L4_INLINE int l4_parse_tcp(const uint8_t *at, const uint8_t *end, uint32_t room, struct l4_headers *headers)
{
	struct tcphdr tcp;
	uint32_t length;

	if (room < sizeof(tcp) || !l4_has(at, end, sizeof(tcp)))
		return L4_DROP_SHORT;
	l4_copy(&tcp, at, sizeof(tcp));
	length = (uint32_t)tcp.doff * 4;
	if (length < sizeof(tcp) || length > room)
		return L4_DROP_TCP_OFFSET;
	headers->sport_be = tcp.source;
	headers->dport_be = tcp.dest;
	headers->flags = at[L4_TCP_FLAGS_AT];
	headers->l4_check_be = tcp.check;
	headers->l4_length = (uint16_t)room;
	return L4_UNDECIDED;
}

L4_INLINE int l4_parse_udp(const uint8_t *at, const uint8_t *end, uint32_t room, struct l4_headers *headers)
{
	struct udphdr udp;
	uint32_t length;

	if (room < sizeof(udp) || !l4_has(at, end, sizeof(udp)))
		return L4_DROP_SHORT;
	l4_copy(&udp, at, sizeof(udp));
	length = l4_ntohs(udp.len);
	if (length < sizeof(udp) || length > room)
		return L4_DROP_UDP_LENGTH;
	headers->sport_be = udp.source;
	headers->dport_be = udp.dest;
	headers->l4_check_be = udp.check;
	headers->l4_length = (uint16_t)length;
	return L4_UNDECIDED;
}

/* Whether the IPv4 header of `length` bytes sums to "all ones": RFC 1071, section 1, step 3. */
L4_INLINE bool l4_header_is_valid(const struct iphdr *ip, const uint8_t *options, const uint8_t *end, uint32_t length)
{
	uint32_t words[sizeof(*ip) / 4];
	uint64_t sum = 0;
	uint32_t i;

	l4_copy(words, ip, sizeof(*ip));
	for (i = 0; i < sizeof(*ip) / 4; i++)
		sum += words[i];
	if (l4_unlikely(length > sizeof(*ip)))
		sum += l4_sum(options, end, (length - (uint32_t)sizeof(*ip)) & 63);
	return l4_fold(sum) == 0xffff;
}

/* Fill `headers`. Returns L4_UNDECIDED, or the verdict that says why the frame cannot be read. */
L4_INLINE int l4_parse(const uint8_t *data, const uint8_t *end, struct l4_headers *headers)
{
	const uint8_t *at = data + sizeof(struct ethhdr);
	uint32_t room, length, total;
	struct iphdr ip;

	if (!l4_has(data, end, sizeof(struct ethhdr)))
		return L4_DROP_SHORT;
	if (l4_read16(data + offsetof(struct ethhdr, h_proto)) != l4_htons(ETH_P_IP))
		return L4_PASS_NOT_IPV4;
	if (!l4_has(at, end, sizeof(ip)))
		return L4_DROP_SHORT;
	l4_copy(&ip, at, sizeof(ip));
	if (ip.version != 4)
		return L4_DROP_IP_VERSION;
	room = (uint32_t)(end - at);
	length = (uint32_t)ip.ihl * 4;
	if (length < sizeof(ip) || length > room)
		return L4_DROP_IP_HEADER_LENGTH;
	if (!l4_header_is_valid(&ip, at + sizeof(ip), end, length))
		return L4_DROP_IP_CHECKSUM;
	total = l4_ntohs(ip.tot_len);
	if (total < length || total > room)
		return L4_DROP_IP_LENGTH;

	*headers = (struct l4_headers){
		.saddr_be = ip.saddr,
		.daddr_be = ip.daddr,
		.ip_check_be = ip.check,
		.protocol = ip.protocol,
		.ttl = ip.ttl,
		.fragment = (l4_ntohs(ip.frag_off) & L4_IS_FRAGMENT) != 0,
	};
	if (headers->fragment || (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP))
		return L4_UNDECIDED;
	headers->l4 = (uint16_t)(sizeof(struct ethhdr) + length);
	if (ip.protocol == IPPROTO_TCP)
		return l4_parse_tcp(at + length, end, total - length, headers);
	return l4_parse_udp(at + length, end, total - length, headers);
}

#endif
