"""The keyed hash of a flow.

Clients choose their ports and often their addresses. A hash that they can
compute lets them aim at one bucket or one backend, so every hash here has a
key: one of its own for the flow table, one made from `ring_seed` for the
rings, which all balancers of a group share.

The function is multilinear hashing (Carter and Wegman 1979; Lemire and
Kaser, "Strongly universal string hashing is fast", 2014, section 3): with
random 64-bit k and the key's 32-bit words w,

    sum = k[0] + k[1] w[0] + ... + k[10] w[9]   modulo 2^64

and then one multiplication that spreads the upper half over all bits. Two
keys collide with a probability of about 2^-32 whatever a client sends.

The ten words of a flow's key are the four of each address, the ports as one
word, and the protocol. Of an IPv4-mapped address three never change: `base`
is their part of the sum.
"""

from __future__ import annotations

from hashlib import shake_256
from struct import Struct
from typing import Final, NamedTuple

from l4raw.wire.abi import HASH_WORDS
from l4raw.wire.ipv6 import V4_MAPPED

KEY: Final = Struct("!16s16sHHB")
"""Source, destination, source port, destination port, protocol; network order. See `mapped`."""

_V4_WORDS: Final = Struct("!12xI12xIIB")
_V6_WORDS: Final = Struct("!9IB")
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_SPREAD: Final = 0x9E37_79B9_7F4A_7C15
"""2^64 divided by the golden ratio, odd (Knuth, TAOCP 3, section 6.4)."""


class HashKey(NamedTuple):
    """The eleven 64-bit multipliers, and what IPv4 needs of them."""

    base: int
    """The sum of all that is the same for every IPv4 flow."""
    k: tuple[int, ...]


def hash_key(seed: bytes) -> HashKey:
    """Expand `seed`, of any length, into the multipliers."""
    stream = shake_256(seed).digest(8 * (HASH_WORDS + 1))
    k = tuple(int.from_bytes(stream[i : i + 8], "little") for i in range(0, len(stream), 8))
    return HashKey(k[0] + 0xFFFF * (k[3] + k[7]) & _MASK, k)


def mapped(address: bytes) -> bytes:
    """16 bytes for 4 or 16: an IPv4 address becomes an IPv4-mapped one (RFC 4291, section 2.5.5.2)."""
    return V4_MAPPED + address if len(address) == 4 else address


def unmapped(address: bytes) -> bytes:
    """The reverse."""
    return address[12:] if address.startswith(V4_MAPPED) else address


def flow_hash(hash_key: HashKey, key: bytes) -> int:
    """64 bits for the 37-byte `key` of a flow; its words are read in network order."""
    k = hash_key.k
    if key[:12] == V4_MAPPED:
        src, dst, ports, protocol = _V4_WORDS.unpack(key)
        total: int = hash_key.base + k[4] * src + k[8] * dst + k[9] * ports + k[10] * protocol & _MASK
    else:
        words = _V6_WORDS.unpack(key)
        total = k[0] + sum(each * word for each, word in zip(k[1:], words, strict=True)) & _MASK
    return (total ^ total >> 32) * _SPREAD & _MASK


def spread(value: int) -> int:
    """Another 64 bits made of a hash, for a choice that should not follow the first one."""
    return (value ^ value >> 32) * _SPREAD & _MASK


def scale(value: int, size: int) -> int:
    """An index below `size` for 32 bits of a hash, without a division."""
    return value * size >> 32


def tag(value: int) -> int:
    """Tag of an entry whose key has this hash: bits that choose no bucket, if there are fewer than 2^24."""
    return value >> 32 & 0xFF or 1
