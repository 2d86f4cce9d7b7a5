"""IPv6: RFC 8200, sections 3 and 4.

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-------+---------------+---------------------------------------+
 0 |Version| Traffic Class |              Flow Label               |
   +-------+---------------+-------+---------------+---------------+
 4 |         Payload Length        |  Next Header  |   Hop Limit   |
   +-------------------------------+---------------+---------------+
 8 |                     Source Address (16)                       |
   +---------------------------------------------------------------+
24 |                   Destination Address (16)                    |
   +---------------------------------------------------------------+
40 |        extension headers, each naming the next one, or TCP ...

An extension header begins with the number of the next one, and its own
length in units of 8 bytes, the first 8 not counted; but the fragment header
is always 8 bytes long, and AH counts units of 4 bytes, the first 8 not counted
(RFC 4302, section 2.2).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from l4raw.wire.ipv4 import IpProto

HOP_BY_HOP: Final = IpProto(0)
ROUTING: Final = IpProto(43)
FRAGMENT: Final = IpProto(44)
AH: Final = IpProto(51)
ICMPV6: Final = IpProto(58)
DESTINATION: Final = IpProto(60)

EXTENSIONS: Final = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION))
"""Headers that are followed by another one which can be found."""
MOST_EXTENSIONS: Final = 6
"""Headers that are parsed past. Section 4.1 has a place for seven, of which a packet has one or two."""

PAYLOAD_LENGTH: Final = 4
NEXT_HEADER: Final = 6
TTL: Final = 7
"""The hop limit."""
SRC: Final = 8
DST: Final = 24
LENGTH: Final = 40

HEADER: Final = Struct("!B3xHBB16s16s")
"""Version and half of the traffic class, payload length, next header, hop limit, source, destination."""

WHOLE_HEADER: Final = Struct("!IHBB16s16s")
"""Version, traffic class and flow label as one word; the other fields as they are in the box."""

EXTENSION: Final = Struct("!BBH")
"""Next header, length, and what is offset and flags in a fragment header."""
EXTENSION_LENGTH: Final = 8
"""Bytes of the shortest one."""
SEGMENTS_LEFT: Final = 3
"""Where a routing header says how many addresses are still to be visited: section 4.4."""

OFFSET: Final = 0xFFF8
"""Of a fragment, in bytes."""
MORE_FRAGMENTS: Final = 1
IS_FRAGMENT: Final = 0xFFF9
"""Offset, or More Fragments. A fragment header with neither is a whole packet's: RFC 6946."""

NEIGHBOUR_DISCOVERY: Final = range(133, 138)
"""ICMPv6 types of RFC 4861: router and neighbour solicitation and advertisement, redirect."""

V4_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
"""How an address that stands for an IPv4 one begins (RFC 4291, section 2.5.5.2); never on a wire."""
