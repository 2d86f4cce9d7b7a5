"""TCP: RFC 9293, section 3.1.

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-------------------------------+-------------------------------+
 0 |          Source Port          |       Destination Port        |
   +-------------------------------+-------------------------------+
 4 |                        Sequence Number                        |
   +---------------------------------------------------------------+
 8 |                    Acknowledgment Number                      |
   +-------+-------+---------------+-------------------------------+
12 | Offset| Rsrvd |CEUAPRSF       |            Window             |
   +-------+-------+---------------+-------------------------------+
16 |           Checksum            |         Urgent Pointer        |
   +-------------------------------+-------------------------------+
"""

from __future__ import annotations

from struct import Struct
from typing import Final

SPORT: Final = 0
DPORT: Final = 2
OFFSET: Final = 12
FLAGS: Final = 13
CHECKSUM: Final = 16
LENGTH: Final = 20
"""Bytes of a header without options."""

HEADER: Final = Struct("!HH8xBBxxH")
"""Source port, destination port, data offset (upper four bits), flags, checksum."""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10
