"""An entry of the flow table: what its 64 bytes say.

The layout is `struct l4_flow` of native/include/l4raw_abi.h. Must not live here:
how an entry is found.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from l4raw.wire.abi import FLOW_HALF_OPEN, FLOW_UDP_NEW

ENTRY: Final = Struct("=37sBHHHIIIII")
"""Key, then the fields of `Entry`."""

FIELDS: Final = (
    ("src", 0, 16),
    ("dst", 16, 16),
    ("sport_be", 32, 2),
    ("dport_be", 34, 2),
    ("protocol", 36, 1),
    ("state", 37, 1),
    ("service", 38, 2),
    ("backend", 40, 2),
    ("next_hop", 42, 2),
    ("peer", 44, 4),
    ("last_seen", 48, 4),
    ("sequence", 52, 4),
    ("lock", 56, 4),
    ("packets", 60, 4),
)
"""Name, offset and size in bytes of each field of `struct l4_flow`; a test compares them with C's."""

SIZE: Final = ENTRY.size
HALF_OPEN: Final = (FLOW_HALF_OPEN, FLOW_UDP_NEW)
"""States of a flow that has proved nothing yet."""


class Entry(NamedTuple):
    """What an entry says of its flow, besides the key. See `struct l4_flow`."""

    state: int
    service: int
    backend: int
    next_hop: int
    peer: int
    """Index of the other direction's entry plus 1; 0: none."""
    last_seen: int
    sequence: int
    lock: int
    packets: int

    @property
    def has_place(self) -> bool:
        """Whether it is a half-open flow's, of its client: `sequence` is its place among such."""
        return self.state in HALF_OPEN and not self.next_hop


class Known(NamedTuple):
    """A flow that was found, as it was at one moment."""

    flow: int
    """Index of its entry."""
    entry: Entry
    peer: tuple[tuple[bytes, int], tuple[bytes, int]] | None
    """Source and destination of the other direction; None: there is none."""
