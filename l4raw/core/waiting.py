"""A datagram of which not all fragments have come: what has, and which frames wait for the first one.

Lives here: that, as values, and what memory they take. Must not live here: what becomes of them
(fragments.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from l4raw.wire.headers import Headers

if TYPE_CHECKING:
    from l4raw.core.decision import Decision

Key = tuple[bytes, bytes, int, int, int]
"""Source, destination, protocol, identification: RFC 791, section 3.2. And the arm: a client's side must
not add to what a backend sends."""

DATAGRAM_COST: Final = 2048
"""Bytes of memory that a datagram takes, with its key and what became of its first fragment."""
FRAME_COST: Final = 640
"""What a frame that waits takes beside its bytes, most of it for its headers. As DATAGRAM_COST, it is what
tests/unit/test_fragments.py measures, and some more."""
PART_COST: Final = 8
"""Of a part: where it starts and ends, twice, as an array that grows has room for more."""


class Fit(Enum):
    """How a fragment goes with those that came before."""

    NEW = "a part that had not come"
    TWICE = "exactly one that has come"
    NOT = "the parts do not fit together, now or from before"


@dataclass(slots=True)
class Datagram:
    """Its parts are bytes from a start to an end, those of one fragment each, in order."""

    born: int
    """When its first part came, in ms modulo 2^32."""
    first: Decision | None = None
    """What became of the fragment with the ports; None: it has not come."""
    ident: int = 0
    """The identification that it is sent with; 0: its own."""
    waiting: list[tuple[bytearray, Headers, int]] = field(default_factory=list)
    """Frames, with the arm that each came in on."""
    bytes: int = DATAGRAM_COST
    """Of memory, by the costs above."""
    starts: array[int] = field(default_factory=lambda: array("H"))
    ends: array[int] = field(default_factory=lambda: array("H"))
    come: int = 0
    """Bytes of all parts."""
    total: int = -1
    """Its length; -1: the last part has not come."""
    broken: bool = False

    def add(self, start: int, end: int, more: bool) -> Fit:
        """Note a part, unless it came before: RFC 8200, section 4.5, lets a receiver ignore that."""
        if self.broken:
            return Fit.NOT
        place = bisect_right(self.starts, start)
        after = self.starts[place] if place < len(self.starts) else end
        before = self.ends[place - 1] if place else start
        if place and (self.starts[place - 1], before) == (start, end) and more == (end != self.total):
            return Fit.TWICE
        last = self.ends[-1] if self.ends else 0
        past = end > self.total >= 0 or (not more and (self.total >= 0 or end < last))
        if before > start or end > after or past:
            self.broken = True
            del self.starts[:], self.ends[:]
            return Fit.NOT
        if not more:
            self.total = end
        self.starts.insert(place, start)
        self.ends.insert(place, end)
        self.come += end - start
        return Fit.NEW

    @property
    def complete(self) -> bool:
        """Whether all of it has come. No part overlaps another, and none is past the end."""
        return self.come == self.total
