"""Ethernet II: IEEE 802.3, clause 3.2.

     0                 6                 12    14
     +-----------------+-----------------+-----+----------------
     | destination MAC | source MAC      | type| payload
     +-----------------+-----------------+-----+----------------

With a tag (IEEE 802.1Q, clause 9.3), which is in front of the type. Its TCI
is priority (3 bits), drop eligible (1) and VLAN (12).

     0                 6                 12    14    16    18
     +-----------------+-----------------+-----+-----+-----+----------
     | destination MAC | source MAC      | 8100| TCI | type| payload
     +-----------------+-----------------+-----+-----+-----+----------

Lives here: offsets and EtherTypes. A frame has no checksum here: the network
card adds and removes it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NewType

EtherType = NewType("EtherType", int)

IPV4: Final = EtherType(0x0800)
ARP: Final = EtherType(0x0806)
VLAN: Final = EtherType(0x8100)
"""No type: a tag, and the type after it."""
IPV6: Final = EtherType(0x86DD)
EXPERIMENTAL: Final = EtherType(0x88B5)
"""IEEE Std 802, Local Experimental EtherType 1: of our test frames; no host has a use for it."""

DST: Final = 0
SRC: Final = 6
TYPE: Final = 12
LENGTH: Final = 14
"""Bytes of the header."""
TCI: Final = 14
PRIORITY_AT: Final = 13
DROP_ELIGIBLE: Final = 0x1000
VLAN_NUMBER: Final = 0x0FFF
"""Of the TCI: the first bit of its priority, and the bits of the others."""
TAG_LENGTH: Final = 4
TAGGED_LENGTH: Final = LENGTH + TAG_LENGTH
"""Bytes of the header with a tag."""

HEADER: Final = Struct("!6s6sH")

BROADCAST: Final = b"\xff" * 6
NO_MAC: Final = b"\0" * 6
_TAG: Final = VLAN.to_bytes(2)


def is_unicast(mac: bytes) -> bool:
    """Whether one machine can have it: neither a group's (IEEE 802.3, clause 3.2.3) nor none."""
    return not mac[0] & 1 and mac != NO_MAC


def length(frame: bytes | bytearray | memoryview) -> int:
    """Bytes of the header of a frame that has one, its tag included."""
    return TAGGED_LENGTH if frame[TYPE:LENGTH] == _TAG else LENGTH


def format_mac(mac: bytes) -> str:
    """`02:00:00:00:00:0b` for six bytes."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Six bytes for `02:00:00:00:00:0b`; raises `ValueError` for anything else."""
    pairs = text.split(":")
    if len(pairs) != 6 or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{text!r} is no MAC address")
    return bytes.fromhex("".join(pairs))
