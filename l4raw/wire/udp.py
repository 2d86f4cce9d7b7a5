"""UDP: RFC 768.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------------------------------+-------------------------------+
  0 |          Source Port          |       Destination Port        |
    +-------------------------------+-------------------------------+
  4 |            Length             |           Checksum            |
    +-------------------------------+-------------------------------+

A checksum of 0 means that the sender computed none (over IPv4); a computed 0
is sent as 0xffff, which is the same number in one's complement.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

SPORT: Final = 0
DPORT: Final = 2
LENGTH: Final = 4
CHECKSUM: Final = 6
HEADER_LENGTH: Final = 8
LONGEST: Final = 0xFFFF

HEADER: Final = Struct("!HHHH")

NO_CHECKSUM: Final = 0
"""The sender computed none: leave it so."""

ZERO: Final = 0xFFFF
"""How a computed checksum of 0 is sent."""
