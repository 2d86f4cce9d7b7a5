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
SEQUENCE: Final = 4
OFFSET: Final = 12
FLAGS: Final = 13
CHECKSUM: Final = 16
LENGTH: Final = 20
"""Bytes of a header without options."""

HEADER: Final = Struct("!HH8xBBxxH")
"""Source port, destination port, data offset (upper four bits), flags, checksum."""

NUMBERS: Final = Struct("!IIB")
"""From SEQUENCE on: sequence and acknowledgment number, data offset (upper four bits)."""

WHOLE_HEADER: Final = Struct("!HHIIBBHHH")
"""All fields of a header without options, as they are in the box."""
NUMBERED: Final = Struct("!HHIIBBxxH")
"""The same, with the sequence and acknowledgement numbers after the ports."""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
CWR: Final = 0x80

OPTION_END: Final = 0
OPTION_NOTHING: Final = 1
OPTION_MSS: Final = 2
"""Kinds of options: section 3.2. The first two are one byte; others have a length, which counts both."""
MSS_LENGTH: Final = 4


def mss_at(header: bytes | bytearray | memoryview) -> int:
    """Offset of the value of the maximum segment size option in a TCP header, options included; 0: none.

    RFC 9293, section 3.7.1. An option that is not whole, or whose length cannot be, ends the search.
    """
    at, end = LENGTH, len(header)
    while at < end and header[at] != OPTION_END:
        if header[at] == OPTION_NOTHING:
            at += 1
            continue
        if at + 2 > end or header[at + 1] < 2 or at + header[at + 1] > end:
            return 0
        if header[at] == OPTION_MSS:
            return at + 2 if header[at + 1] == MSS_LENGTH else 0
        at += header[at + 1]
    return 0
