"""A datagram of which not all fragments have come: what has, and which frames wait for the first one.

Lives here: that, as values. Must not live here: what becomes of them (fragments.py).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from l4raw.wire.headers import Headers

if TYPE_CHECKING:
    from l4raw.core.decision import Decision

Key = tuple[bytes, bytes, int, int]
"""Source, destination, protocol, identification: RFC 791, section 3.2."""


@dataclass(slots=True)
class Datagram:
    """Parts are bytes from a start to an end; parts that touch each other are one."""

    born: int
    """When its first part came, in ms modulo 2^32."""
    first: Decision | None = None
    """What became of the fragment with the ports; None: it has not come."""
    ident: int = 0
    """The identification that it is sent with; 0: its own."""
    waiting: list[tuple[bytearray, Headers, int]] = field(default_factory=list)
    """Frames, with the arm that each came in on."""
    bytes: int = 0
    """Of these."""
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    total: int = -1
    """Its length; -1: the last part has not come."""
    broken: bool = False

    def add(self, start: int, end: int, more: bool) -> bool:
        """Note a part. False: the parts do not fit together, now or from before."""
        place = bisect_right(self.starts, start)
        after = self.starts[place] if place < len(self.starts) else end
        before = self.ends[place - 1] if place else start
        last = self.ends[-1] if self.ends else 0
        past = end > self.total >= 0 or (not more and (self.total >= 0 or end < last))
        if self.broken or before > start or end > after or past:
            self.broken = True
            return False
        if not more:
            self.total = end
        if place and before == start:
            self.ends[place - 1] = end
        else:
            self.starts.insert(place, start)
            self.ends.insert(place, end)
            place += 1
        if place < len(self.starts) and self.starts[place] == end:
            self.ends[place - 1] = self.ends.pop(place)
            self.starts.pop(place)
        return True

    @property
    def complete(self) -> bool:
        """Whether all of it has come."""
        return self.starts == [0] and self.ends == [self.total]
