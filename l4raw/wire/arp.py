"""ARP for IPv4 over Ethernet: RFC 826. Probes and announcements: RFC 5227.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------------------------------+-------------------------------+
  0 |     Hardware type (1)         |     Protocol type (0x0800)    |
    +---------------+---------------+-------------------------------+
  4 | HW length (6) | Pr length (4) |           Operation           |
    +---------------+---------------+-------------------------------+
  8 |                  Sender hardware address (6)                  |
    +                               +-------------------------------+
 12 |                               |  Sender protocol address (4)  |
    +-------------------------------+-------------------------------+
 16 |              ...              |  Target hardware address (6)  |
    +-------------------------------+                               +
 20 |                                                               |
    +---------------------------------------------------------------+
 24 |                  Target protocol address (4)                  |
    +---------------------------------------------------------------+

Lives here: the bytes. Who is answered is decided in control/arp.py.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from l4raw.wire import ethernet

REQUEST: Final = 1
REPLY: Final = 2

OFFSET: Final = ethernet.LENGTH
"""Where ARP starts in a frame."""
LENGTH: Final = 28

_FIXED: Final = (1, ethernet.IPV4, 6, 4)
"""Ethernet, IPv4, and the lengths of their addresses: all else is another protocol's ARP."""
_HEADER: Final = Struct("!HHBBH6s4s6s4s")

NO_ADDRESS: Final = bytes(4)
"""The sender address of a probe: RFC 5227 section 1.1."""


class Arp(NamedTuple):
    """What is left when the fixed fields are as they must be."""

    op: int
    sha: bytes
    """Sender's MAC."""
    spa: bytes
    """Sender's IPv4 address."""
    tha: bytes
    tpa: bytes


def parse(frame: bytes | bytearray | memoryview) -> Arp | None:
    """The ARP packet in an Ethernet frame; None if it is none, of another protocol, or cut short."""
    if len(frame) < OFFSET + LENGTH or ethernet.HEADER.unpack_from(frame)[2] != ethernet.ARP:
        return None
    fields = _HEADER.unpack_from(frame, OFFSET)
    return Arp(*fields[len(_FIXED) :]) if fields[: len(_FIXED)] == _FIXED else None


def build(arp: Arp, *, src: bytes, dst: bytes) -> bytes:
    """An Ethernet frame with `arp` in it. Padding to 60 bytes is the network card's work."""
    return ethernet.HEADER.pack(dst, src, ethernet.ARP) + _HEADER.pack(*_FIXED, *arp)
