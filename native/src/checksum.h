/* SPDX-License-Identifier: MIT */
/*
 * The Internet checksum: RFC 1071, its incremental update: RFC 1624, and the
 * completion of partial ones. The twin of l4raw/wire/checksum.py, with one
 * difference: words are added as they lie in memory, since the sum of swapped
 * words is the swapped sum (RFC 1071, section 2(B)). So every checksum here is
 * in network order, and nothing is swapped.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_CHECKSUM_H
#define L4RAW_SRC_CHECKSUM_H

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define l4_htons(value) __builtin_bswap16(value)
#define l4_ntohl(value) __builtin_bswap32(value)
/* Two halves, in the order of memory, as one word; and back. */
#define l4_join8(first, second) ((uint16_t)((second) << 8 | (first)))
#define l4_join16(first, second) ((uint32_t)(second) << 16 | (first))
#define l4_join32(first, second) ((uint64_t)(second) << 32 | (first))
#define l4_first16(word) ((uint16_t)(word))
#define l4_second16(word) ((uint16_t)((word) >> 16))
#define l4_first32(word) ((uint32_t)(word))
#define l4_second32(word) ((uint32_t)((word) >> 32))
#define l4_first48(word) ((word) << 16)
#define l4_little32(value) (value)
#else
#define l4_htons(value) ((uint16_t)(value))
#define l4_ntohl(value) ((uint32_t)(value))
#define l4_join8(first, second) ((uint16_t)((first) << 8 | (second)))
#define l4_join16(first, second) ((uint32_t)(first) << 16 | (second))
#define l4_join32(first, second) ((uint64_t)(first) << 32 | (second))
#define l4_first16(word) ((uint16_t)((word) >> 16))
#define l4_second16(word) ((uint16_t)(word))
#define l4_first32(word) ((uint32_t)((word) >> 32))
#define l4_second32(word) ((uint32_t)(word))
#define l4_first48(word) ((word) >> 16)
#define l4_little32(value) __builtin_bswap32(value)
#endif
#define l4_ntohs(value) l4_htons(value)
#define l4_htonl(value) l4_ntohl(value)

/* One's complement sum of 16 bits of a sum of words of any width; 0 only if all of them were. */
L4_INLINE uint16_t l4_fold(uint64_t sum)
{
	/* 2^16 is 1 in this arithmetic: upper parts are added to the lower ones (RFC 1071, section 2(A)). */
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/*
 * A checksum after words it covers changed: RFC 1624, section 3, equation 3,
 * HC' = ~(~HC + ~m + m'). `change` is the sum of all ~m and m'. A sum of zero
 * is 0xffff here, as what is covered is never all zero: see update() in
 * l4raw/wire/checksum.py.
 */
L4_INLINE uint16_t l4_update(uint16_t check_be, uint64_t change)
{
	uint16_t sum = l4_fold((uint16_t)~check_be + change);

	return sum ? (uint16_t)~sum : 0;
}

/* The same for a partial checksum: it holds the pseudo-header's sum, not complemented. */
L4_INLINE uint16_t l4_update_partial(uint16_t check_be, uint64_t change)
{
	uint16_t sum = l4_fold(check_be + change);

	return sum ? sum : 0xffff;
}

/* ~m + m' for a word of 32 bits, which is two of 16. */
L4_INLINE uint64_t l4_change32(uint32_t before, uint32_t after)
{
	return (uint64_t)(uint32_t)~before + after;
}

/* The same for the first byte of a word of 16 bits, whatever the second one is. */
L4_INLINE uint64_t l4_change8(uint8_t before, uint8_t after)
{
	return (uint64_t)(uint16_t)~l4_join8(before, 0) + l4_join8(after, 0);
}

L4_INLINE uint64_t l4_change16(uint16_t before, uint16_t after)
{
	return (uint64_t)(uint16_t)~before + after;
}

/* One's complement sum of a word of 64 bits, which is four of 16, to be added to others. */
L4_INLINE uint64_t l4_sum64(uint64_t word)
{
	return (word & 0xffffffff) + (word >> 32);
}

/* ~m + m' for a word of 64 bits. */
L4_INLINE uint64_t l4_change64(uint64_t before, uint64_t after)
{
	return l4_sum64(~before) + l4_sum64(after);
}

/*
 * The sum of the `size` bytes at `start`, which the caller knows to be in the
 * frame. An odd last byte is the first half of its word (RFC 1071, section
 * 4.1). Steps of 16 bytes and then halves of that: every loop has a fixed
 * bound. The sum of 4,096 times four 32-bit words stays below 2^64.
 */
L4_INLINE uint64_t l4_sum(const uint8_t *start, const uint8_t *end, uint32_t size)
{
	const uint8_t *at = start;
	uint64_t sum = 0;
	uint32_t step;

	for (step = 0; step < L4_SUM_STEPS; step++) {
		if (size < 16 || !l4_has(at, end, 16))
			break;
		sum += (uint64_t)l4_read32(at) + l4_read32(at + 4) + l4_read32(at + 8) + l4_read32(at + 12);
		at += 16;
		size -= 16;
	}
	for (step = 0; step < 7; step++) {
		if (size < 2 || !l4_has(at, end, 2))
			break;
		sum += l4_read16(at);
		at += 2;
		size -= 2;
	}
	if (size == 1 && l4_has(at, end, 1)) {
		uint8_t last[2] = { *at, 0 };

		sum += l4_read16(last);
	}
	return sum;
}

#endif
