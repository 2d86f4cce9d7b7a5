"""ICMP: RFC 792; ICMPv6: RFC 4443. What the two have in common.

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +---------------+---------------+-------------------------------+
 0 |     Type      |     Code      |           Checksum            |
   +---------------+---------------+-------------------------------+
 4 |                 what the type says; of an echo:               |
   |          Identifier           |        Sequence Number        |
   +---------------------------------------------------------------+

ICMPv6's checksum covers a pseudo-header too.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

TYPE: Final = 0
CHECKSUM: Final = 2
LENGTH: Final = 8
HEADER: Final = Struct("!BxH")
ERROR: Final = Struct("!BBHI")
"""Type, code, checksum, and what the type says: a pointer, or an MTU; then comes the quoted packet."""

ECHO_REPLY: Final = {4: 0, 6: 129}
ECHO: Final = {4: 8, 6: 128}
"""By IP version."""
ERRORS: Final = {4: frozenset((3, 11, 12)), 6: frozenset((1, 2, 3, 4))}
"""Destination unreachable, time exceeded, parameter problem; IPv6's packet too big.

Not source quench, which nobody may act upon (RFC 6633), nor redirects, which are about a segment.
"""
FRAGMENTATION_NEEDED: Final = 3, 4
"""Type and code."""
PACKET_TOO_BIG: Final = 2, 0
"""Of ICMPv6, likewise."""
MOST: Final = {4: 576, 6: 1280}
"""Bytes of an error's IP packet (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4 c)."""
