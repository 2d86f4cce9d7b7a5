"""The Internet checksum: RFC 1071, and its incremental update: RFC 1624.

The sum is one's complement addition of 16-bit words: a carry out of the top
is added at the bottom. Modulo 65,535 that is ordinary addition, and since
2^16 = 1 modulo 65,535, a word of any width may be added as it is. Only the
two spellings of zero need care: a one's complement sum is 0 when every word
is 0, and 0xffff otherwise.
"""

from __future__ import annotations

from typing import Final

from l4raw.wire.ipv4 import IpProto

ONES: Final = 0xFFFF


def fold(total: int) -> int:
    """One's complement sum of 16 bits for a sum of words (RFC 1071, section 2)."""
    return total and (total % ONES or ONES)


def add(data: bytes | bytearray | memoryview) -> int:
    """A number that is the sum of the 16-bit words of `data`, modulo 65,535, and 0 only if all of them are.

    It is simply all bytes as one big number: 2^16 is 1 here. An odd last
    byte is the upper half of its word (RFC 1071, section 4.1).
    """
    return int.from_bytes(data, "big") << (len(data) & 1) * 8


def header_is_valid(header: bytes | bytearray | memoryview) -> bool:
    """Whether an IPv4 header, its checksum included, sums to "all ones" (RFC 1071, section 1, step 3)."""
    return int.from_bytes(header, "big") % ONES == 0


def checksum(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """The checksum field for `data`, in which that field is 0. `start` is a sum to begin with."""
    return ~fold(start + add(data)) & ONES


def pseudo_header(src: bytes, dst: bytes, protocol: IpProto, length: int) -> int:
    """Sum of the pseudo-header of TCP (RFC 9293, section 3.1) and UDP (RFC 768), folded.

    `length` is that of the TCP or UDP header and its payload.
    """
    return fold(int.from_bytes(src, "big") + int.from_bytes(dst, "big") + protocol + length)


def update(field: int, change: int) -> int:
    """The checksum after the words that it covers changed: RFC 1624, section 3, equation 3.

        HC' = ~(~HC + ~m + m')

    `change` is the sum of the new words minus that of the old ones. Modulo
    65,535 that is ~m + m', for words of any width. The covered words are
    never all zero (they hold a version, or a protocol), so a sum of zero is
    0xffff here, and the checksum 0x0000, as a full computation has it.
    """
    return ~(((~field & ONES) + change) % ONES or ONES) & ONES


def update_partial(field: int, change: int) -> int:
    """The same for a *partial* checksum, which a sender left for its network card to complete.

    Such a field holds the sum of the pseudo-header alone, and not its
    complement. So it covers addresses, but no ports.
    """
    return (field + change) % ONES or ONES
