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

ECHO_REPLY: Final = {4: 0, 6: 129}
ECHO: Final = {4: 8, 6: 128}
"""By IP version."""
