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

The ten words of a flow's key are the four of each IPv4-mapped address, the
ports as one word, and the protocol. For IPv4, six of them never change:
`base` is their part of the sum.
"""

from __future__ import annotations

from hashlib import shake_256
from struct import Struct
from typing import Final, NamedTuple

from l4raw.wire.abi import HASH_WORDS

V4_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
"""What makes an IPv4 address an IPv6 one: RFC 4291, section 2.5.5.2."""

KEY: Final = Struct("!12s4s12s4sHHB")
"""V4_MAPPED, source, V4_MAPPED, destination, source port, destination port, protocol; network order."""

_V4_WORDS: Final = Struct("!12xI12xIIB")
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_SPREAD: Final = 0x9E37_79B9_7F4A_7C15
"""2^64 divided by the golden ratio, odd (Knuth, TAOCP 3, section 6.4)."""


class HashKey(NamedTuple):
    """The multipliers of the words that change, and the sum of those that don't."""

    base: int
    src: int
    dst: int
    ports: int
    protocol: int


def hash_key(seed: bytes) -> HashKey:
    """Expand `seed`, of any length, into the eleven 64-bit multipliers and keep what IPv4 needs."""
    stream = shake_256(seed).digest(8 * (HASH_WORDS + 1))
    k = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, len(stream), 8)]
    return HashKey(base=k[0] + 0xFFFF * (k[3] + k[7]), src=k[4], dst=k[8], ports=k[9], protocol=k[10])


def flow_hash(hash_key: HashKey, key: bytes) -> int:
    """64 bits for the 37-byte `key` of an IPv4 flow; its words are read in network order."""
    base, k_src, k_dst, k_ports, k_protocol = hash_key
    src, dst, ports, protocol = _V4_WORDS.unpack(key)
    total: int = base + k_src * src + k_dst * dst + k_ports * ports + k_protocol * protocol & _MASK
    return (total ^ total >> 32) * _SPREAD & _MASK


def spread(value: int) -> int:
    """Another 64 bits made of a hash, for a choice that should not follow the first one."""
    return (value ^ value >> 32) * _SPREAD & _MASK


def scale(value: int, size: int) -> int:
    """An index below `size` for 32 bits of a hash, without a division."""
    return value * size >> 32
