/* SPDX-License-Identifier: MIT */
/*
 * The one ladder from bytes to fields: the twin of parse() in
 * l4raw/wire/headers.py, rung for rung. Offsets are those of the kernel's
 * structs; fields are copied out, because a frame is aligned to nothing.
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
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "checksum.h"

/* RFC 9293, section 3.1: flags, and the bytes that have the data offset and them. */
enum { L4_TCP_FIN = 1, L4_TCP_SYN = 2, L4_TCP_RST = 4, L4_TCP_ACK = 16, L4_TCP_OFFSET_AT = 12, L4_TCP_FLAGS_AT = 13 };

/* What ICMP and ICMPv6 have in common; their echoes; and neighbour discovery, RFC 4861, section 4. */
enum { L4_ICMP_LENGTH = 8, L4_ICMP_CHECK_AT = 2 };
enum { L4_ECHO_V4 = 8, L4_ECHO_REPLY_V4 = 0, L4_ECHO_V6 = 128, L4_ECHO_REPLY_V6 = 129 };
enum { L4_FIRST_DISCOVERY = 133, L4_LAST_DISCOVERY = 137 };

/* RFC 791, section 3.1: More Fragments, or an offset. */
enum { L4_IS_FRAGMENT = 0x3fff };

/* Where a verdict would stand: nothing is wrong so far. */
enum { L4_UNDECIDED = -1 };

/*
 * The lower 8 bytes of an IPv4-mapped address, as the word that they are in
 * memory; the upper 8 are 0. Made of numbers: to write halves and read the
 * whole would make the processor wait for its own store.
 */
L4_INLINE uint64_t l4_v4_mapped(uint32_t address_be)
{
	return l4_join32(l4_ntohl(0x0000ffffu), address_be);
}

/* Whether an address in two words is an IPv4-mapped one. */
L4_INLINE bool l4_is_v4(const uint64_t *address)
{
	return !address[0] && l4_first32(address[1]) == l4_ntohl(0x0000ffffu);
}

/*
 * A flow's key in words, as they lie in the entry, and the hash of it. Each is read and written whole: to write
 * halves of one and read it soon after makes the processor wait for its own stores, some 6 ns.
 */
struct l4_key {
	uint64_t src[2];           /* IPv4-mapped, RFC 4291 2.5.5.2 */
	uint64_t dst[2];
	uint32_t ports;            /* source, destination; network order */
	uint32_t protocol;
	uint64_t hash;
};

/* What parsing read. Ports, flags and checksum are 0 where `l4` is 0. The hash is not known yet. */
struct l4_headers {
	struct l4_key key;
	uint16_t ip_check_be;
	uint16_t l4_check_be;
	uint16_t l4_length;        /* of what the TCP or UDP checksum covers */
	uint16_t ip;               /* offset of the IP header: behind one 802.1Q tag, if there is one */
	uint16_t l4;               /* offset of the TCP or UDP header; 0: a fragment, or another protocol */
	uint8_t ttl;
	uint8_t flags;             /* of TCP */
	bool v6;
	bool fragment;
	uint8_t icmp_type;
	uint32_t sequence_be;      /* of TCP */
	uint32_t acknowledged_be;
	uint16_t icmp;             /* offset of the ICMP header of this IP version; 0: there is none */
	uint32_t length;           /* of the IP packet, its header included */
};

/* Sum of the pseudo-header of TCP (RFC 9293, section 3.1) and UDP (RFC 768; RFC 8200, section 8.1), not folded. */
L4_INLINE uint64_t l4_pseudo_header(const struct l4_headers *headers)
{
	uint64_t sum = l4_htons((uint16_t)headers->key.protocol) + l4_htons(headers->l4_length);

	if (l4_unlikely(headers->v6))
		return sum + l4_sum64(headers->key.src[0]) + l4_sum64(headers->key.src[1]) +
		       l4_sum64(headers->key.dst[0]) + l4_sum64(headers->key.dst[1]);
	return sum + l4_second32(headers->key.src[1]) + l4_second32(headers->key.dst[1]);
}

/* Ports, flags and checksum of a segment of `room` bytes. Returns L4_UNDECIDED, or the verdict that is wrong with it. */
L4_INLINE int l4_parse_tcp(const uint8_t *at, const uint8_t *end, uint32_t room, struct l4_headers *headers)
{
	uint32_t length;

	if (room < sizeof(struct tcphdr) || !l4_still_has(at, end, sizeof(struct tcphdr)))
		return L4_DROP_SHORT;
	length = (at[L4_TCP_OFFSET_AT] >> 4) * 4u;
	if (length < sizeof(struct tcphdr) || length > room)
		return L4_DROP_TCP_OFFSET;
	headers->key.ports = l4_read32(at);
	headers->flags = at[L4_TCP_FLAGS_AT];
	headers->sequence_be = l4_read32(at + offsetof(struct tcphdr, seq));
	headers->acknowledged_be = l4_read32(at + offsetof(struct tcphdr, ack_seq));
	headers->l4_check_be = l4_read16(at + offsetof(struct tcphdr, check));
	headers->l4_length = (uint16_t)room;
	return L4_UNDECIDED;
}

L4_INLINE int l4_parse_udp(const uint8_t *at, const uint8_t *end, uint32_t room, struct l4_headers *headers)
{
	uint32_t length;

	if (room < sizeof(struct udphdr) || !l4_still_has(at, end, sizeof(struct udphdr)))
		return L4_DROP_SHORT;
	length = l4_ntohs(l4_read16(at + offsetof(struct udphdr, len)));
	if (length < sizeof(struct udphdr) || length > room)
		return L4_DROP_UDP_LENGTH;
	headers->key.ports = l4_read32(at);
	headers->l4_check_be = l4_read16(at + offsetof(struct udphdr, check));
	headers->l4_length = (uint16_t)length;
	return L4_UNDECIDED;
}

/*
 * Whether the IPv4 header of `length` bytes at `ip` sums to "all ones": RFC 1071, section 1, step 3. That is zero
 * modulo 2^16 - 1; the sum itself is not zero, as the version is not.
 */
L4_INLINE bool l4_header_is_valid(const uint8_t *ip, const uint8_t *end, uint32_t length)
{
	const uint32_t fixed = sizeof(struct iphdr);
	uint64_t sum = (uint64_t)l4_read32(ip) + l4_read32(ip + 4) + l4_read32(ip + 8) + l4_read32(ip + 12) +
		       l4_read32(ip + 16);

	if (l4_unlikely(length > fixed))
		sum += l4_sum(ip + fixed, end, (length - fixed) & 63);
	return l4_is_all_ones(sum);
}

/* ICMP, RFC 792, and ICMPv6, RFC 4443: a message that ends before its header does is none. */
L4_INLINE void l4_parse_icmp(const uint8_t *data, const uint8_t *at, const uint8_t *end, uint32_t room,
			     struct l4_headers *headers)
{
	if (room < L4_ICMP_LENGTH || !l4_has(at, end, L4_ICMP_LENGTH))
		return;
	headers->icmp = (uint16_t)(at - data);
	headers->icmp_type = at[0];
	headers->l4_check_be = l4_read16(at + L4_ICMP_CHECK_AT);
}

/* TCP's, UDP's or ICMP's header, `room` bytes from `at` on; only the first two have ports. */
L4_INLINE int l4_parse_transport(const uint8_t *data, const uint8_t *at, const uint8_t *end, uint32_t room,
				 struct l4_headers *headers)
{
	if (headers->key.protocol == (headers->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		l4_parse_icmp(data, at, end, room, headers);
	if (headers->key.protocol != IPPROTO_TCP && headers->key.protocol != IPPROTO_UDP)
		return L4_UNDECIDED;
	headers->l4 = (uint16_t)(at - data);
	if (headers->key.protocol == IPPROTO_TCP)
		return l4_parse_tcp(at, end, room, headers);
	return l4_parse_udp(at, end, room, headers);
}

/* `start`: offset of the IP header. */
L4_INLINE int l4_parse_v4(const uint8_t *data, const uint8_t *end, uint32_t start, struct l4_headers *headers)
{
	const uint8_t *at = data + start;
	uint32_t room, length, total;

	if (!l4_has(at, end, sizeof(struct iphdr)))
		return L4_DROP_SHORT;
	if (at[0] >> 4 != 4)
		return L4_DROP_IP_VERSION;
	room = (uint32_t)(end - at);
	length = (at[0] & 15) * 4u;
	if (length < sizeof(struct iphdr) || length > room)
		return L4_DROP_IP_HEADER_LENGTH;
	if (!l4_header_is_valid(at, end, length))
		return L4_DROP_IP_CHECKSUM;
	total = l4_ntohs(l4_read16(at + offsetof(struct iphdr, tot_len)));
	if (total < length || total > room)
		return L4_DROP_IP_LENGTH;

	*headers = (struct l4_headers){
		.key.src = { 0, l4_v4_mapped(l4_read32(at + offsetof(struct iphdr, saddr))) },
		.key.dst = { 0, l4_v4_mapped(l4_read32(at + offsetof(struct iphdr, daddr))) },
		.ip_check_be = l4_read16(at + offsetof(struct iphdr, check)),
		.key.protocol = at[offsetof(struct iphdr, protocol)],
		.ttl = at[offsetof(struct iphdr, ttl)],
		.fragment = (l4_read16(at + offsetof(struct iphdr, frag_off)) & l4_htons(L4_IS_FRAGMENT)) != 0,
		.ip = (uint16_t)start,
		.length = total,
	};
	return headers->fragment ? L4_UNDECIDED :
				   l4_parse_transport(data, at + length, end, total - length, headers);
}

/* IPv6's extension headers that another header follows: RFC 8200, section 4; AH: RFC 4302. */
L4_INLINE bool l4_is_extension(uint32_t protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT ||
	       protocol == IPPROTO_AH || protocol == IPPROTO_DSTOPTS;
}

/* As MOST_EXTENSIONS in l4raw/wire/ipv6.py. */
enum { L4_MOST_EXTENSIONS = 6 };

/* A mask of what they come to: the verifier of Linux 6.1 knows no bound of a product of variables. */
enum { L4_LONGEST_EXTENSION = 8 + 255 * 8, L4_PAST = 0x3fff };
_Static_assert(L4_MOST_EXTENSIONS * L4_LONGEST_EXTENSION <= L4_PAST, "no bit is lost");

/* A fragment's offset, or More Fragments: RFC 8200, section 4.5. */
enum { L4_IS_FRAGMENT_V6 = 0xfff9 };

/*
 * Past the extension headers, of which `protocol` is the first, and which begin `*past` bytes after `at` in a
 * payload of `length`: past_extensions() in l4raw/wire/headers.py. L4_UNDECIDED, or a verdict.
 */
L4_INLINE int l4_past_extensions(const uint8_t *at, const uint8_t *end, uint32_t length, struct l4_headers *headers,
				 uint32_t *past)
{
	uint32_t i, size;

	for (i = 0; i < L4_MOST_EXTENSIONS; i++) {
		const uint8_t *header = at + *past;
		uint32_t kind = headers->key.protocol;

		if (!l4_is_extension(kind))
			return L4_UNDECIDED;
		if (length - *past < 8 || !l4_has(header, end, 8))
			return L4_DROP_IP_EXTENSIONS;
		size = kind == IPPROTO_FRAGMENT ? 8 : 8 + header[1] * (kind == IPPROTO_AH ? 4u : 8u);
		if (size > length - *past)
			return L4_DROP_IP_EXTENSIONS;
		/* Segments left: the packet's destination, which its checksum covers, is not in its header now. */
		if (kind == IPPROTO_ROUTING && header[3])
			return L4_UNDECIDED;
		headers->key.protocol = header[0];
		*past = (*past + size) & L4_PAST;
		if (kind == IPPROTO_FRAGMENT && (l4_ntohs(l4_read16(header + 2)) & L4_IS_FRAGMENT_V6)) {
			headers->fragment = true;
			return L4_UNDECIDED;
		}
	}
	return l4_is_extension(headers->key.protocol) ? L4_DROP_IP_EXTENSIONS : L4_UNDECIDED;
}

/* IPv6: RFC 8200. */
L4_INLINE int l4_parse_v6(const uint8_t *data, const uint8_t *end, uint32_t start, struct l4_headers *headers)
{
	const uint8_t *ip = data + start, *at = ip + sizeof(struct ipv6hdr);
	uint32_t length, past = 0;
	int verdict;

	if (!l4_has(ip, end, sizeof(struct ipv6hdr)))
		return L4_DROP_SHORT;
	if (ip[0] >> 4 != 6)
		return L4_DROP_IP_VERSION;
	length = l4_length(l4_ntohs(l4_read16(ip + offsetof(struct ipv6hdr, payload_len))));
	if (!l4_has(at, end, length))
		return L4_DROP_IP_LENGTH;
	*headers = (struct l4_headers){
		.key.src = { l4_read64(ip + offsetof(struct ipv6hdr, saddr)),
			     l4_read64(ip + offsetof(struct ipv6hdr, saddr) + 8) },
		.key.dst = { l4_read64(ip + offsetof(struct ipv6hdr, daddr)),
			     l4_read64(ip + offsetof(struct ipv6hdr, daddr) + 8) },
		.key.protocol = ip[offsetof(struct ipv6hdr, nexthdr)],
		.ttl = ip[offsetof(struct ipv6hdr, hop_limit)],
		.v6 = true,
		.ip = (uint16_t)start,
		.length = (uint32_t)sizeof(struct ipv6hdr) + length,
	};
	/* Never on a wire (RFC 4291, section 2.5.5.2); its flow would have the key of an IPv4 one. */
	if (l4_is_v4(headers->key.src) || l4_is_v4(headers->key.dst))
		return L4_DROP_MARTIAN;
	verdict = l4_past_extensions(at, end, length, headers, &past);
	if (verdict != L4_UNDECIDED || headers->fragment)
		return verdict;
	return l4_parse_transport(data, at + past, end, length - past, headers);
}

/* Bytes of a tag, and of an Ethernet header with one: IEEE 802.1Q, clause 9.3. */
enum { L4_TAG_LENGTH = 4, L4_TAGGED_LENGTH = sizeof(struct ethhdr) + L4_TAG_LENGTH };

/* Fill `headers`. Returns L4_UNDECIDED, or the verdict that says why the frame cannot be read. */
L4_INLINE int l4_parse(const uint8_t *data, const uint8_t *end, struct l4_headers *headers)
{
	uint32_t start = sizeof(struct ethhdr);
	uint16_t type;

	if (!l4_has(data, end, sizeof(struct ethhdr)))
		return L4_DROP_SHORT;
	type = l4_read16(data + offsetof(struct ethhdr, h_proto));
	if (l4_unlikely(type == l4_htons(ETH_P_8021Q))) {
		start = L4_TAGGED_LENGTH;
		if (!l4_has(data, end, L4_TAGGED_LENGTH))
			return L4_DROP_SHORT;
		type = l4_read16(data + L4_TAGGED_LENGTH - sizeof(type));
	}
	if (type == l4_htons(ETH_P_IP))
		return l4_parse_v4(data, end, start, headers);
	return l4_unlikely(type == l4_htons(ETH_P_IPV6)) ? l4_parse_v6(data, end, start, headers) : L4_PASS_NOT_IP;
}

#endif
