"""IPv4: RFC 791, section 3.1.

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-------+-------+---------------+-------------------------------+
 0 |Version|  IHL  |Type of Service|         Total Length          |
   +-------+-------+---------------+-----+-------------------------+
 4 |        Identification         |Flags|     Fragment Offset     |
   +---------------+---------------+-----+-------------------------+
 8 | Time to Live  |   Protocol    |        Header Checksum        |
   +---------------+---------------+-------------------------------+
12 |                        Source Address                         |
   +---------------------------------------------------------------+
16 |                      Destination Address                      |
   +---------------------------------------------------------------+
20 |                    Options (IHL above 5)                      |
   +---------------------------------------------------------------+
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NewType

IpProto = NewType("IpProto", int)

ICMP: Final = IpProto(1)
IPV4_INSIDE: Final = IpProto(4)
"""An IPv4 packet follows: RFC 2003."""
TCP: Final = IpProto(6)
UDP: Final = IpProto(17)
IPV6_INSIDE: Final = IpProto(41)
"""An IPv6 packet follows: RFC 4213, RFC 2473."""

VERSION_IHL: Final = 0
TOS: Final = 1
TOTAL_LENGTH: Final = 2
ID: Final = 4
FRAGMENT: Final = 6
TTL: Final = 8
PROTOCOL: Final = 9
CHECKSUM: Final = 10
SRC: Final = 12
DST: Final = 16
LENGTH: Final = 20
"""Bytes of a header without options."""

HEADER: Final = Struct("!BxH2xHBBH4s4s")
"""Version and IHL, total length, flags and fragment offset, TTL, protocol, checksum, source, destination."""

VERSION_4_NO_OPTIONS: Final = 0x45

WHOLE_HEADER: Final = Struct("!BBHHHBBH4s4s")
"""All fields, as they are in the box."""

IS_FRAGMENT: Final = 0x3FFF
"""More Fragments, or an offset: what tells a fragment from a whole datagram."""
OFFSET: Final = 0x1FFF
"""Of a fragment, in FRAGMENT_UNITs."""
DONT_FRAGMENT: Final = 0x4000
MORE_FRAGMENTS: Final = 0x2000
FRAGMENT_UNIT: Final = 8
"""Bytes that a fragment offset counts; also IPv6's."""
