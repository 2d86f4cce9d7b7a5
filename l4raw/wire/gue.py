"""Generic UDP Encapsulation, variant 0: draft-ietf-intarea-gue-09, section 3, as Linux has it (<net/gue.h>).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------------------------------+-------------------------------+
  0 |          Source Port          |       Destination Port        |  UDP
  4 |            Length             |           Checksum            |
    +---+-+---------+---------------+-------------------------------+
  8 | 0 |C|  Hlen   |  Proto/ctype  |             Flags             |  GUE
    +---+-+---------+---------------+-------------------------------+

C 0: data, and the second byte is an IP protocol number; Hlen 0 and no flags: nothing else
before the packet. A receiver of variant 1 has an IP header in place of GUE's; this is not it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from l4raw.wire import udp

LENGTH: Final = udp.HEADER_LENGTH + 4
"""Bytes of both headers."""
UDP_CHECKSUM: Final = udp.CHECKSUM

HEADER: Final = Struct("!HHHHxBxx")
"""UDP's source port, destination port, length, checksum; the protocol inside."""

FIRST_PORT: Final = 49152
PORTS: Final = 1 << 14
"""Source ports: those of RFC 6335 that are nobody's, so that a flow's can be any of them."""
