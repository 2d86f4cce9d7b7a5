"""The share of half-open flows: a bounded part of the flow table.

A flow of which one side has sent a single segment proves nothing: its source
may be invented. So there may be only so many of them, one for HALF_OPEN_SHARE
entries of the table's capacity, and then the oldest makes room for the next
one; also where the whole table is full. Established flows are none of them, and stay.

Each has a place, in the order in which they began: the next flow gets the
place at the turn. A place is a word: the index of the flow's entry plus 1, or
0. The entry knows its place, and the flow gives it back when it is
established, or gone; so the oldest flow is at the first place from the oldest
turn on that is not 0. There are more places than flows, since those of flows
that are half-open no more are free only when the turn comes round. Who still
has a place then has seen more flows begin than the share has room for, and
goes too.

    turn of the oldest                     next turn
          |                                    |
    +---+---+---+---+---+---+---+---+---+---+---+---+
    | 0 | 7 | 0 | 0 | 3 | 9 | 0 | 2 | 5 | 8 | 0 | 0 |
    +---+---+---+---+---+---+---+---+---+---+---+---+
"""

from __future__ import annotations

from mmap import mmap
from struct import Struct
from typing import Final

from l4raw.wire.abi import HALF_OPEN_SHARE, PLACE_TAKEN, PLACES_EACH

PLACE: Final = Struct("=I")
_WRAP: Final = 0xFFFF_FFFF


def half_open_for(capacity: int) -> int:
    """How many half-open flows a table of this capacity has room for."""
    return max(1, capacity // HALF_OPEN_SHARE)


def places_for(capacity: int) -> int:
    """How many places there are for them: PLACES_EACH for each at most, and more than half of that.

    A power of two, so that turns of 32 bits come round in order.
    """
    return 1 << (PLACES_EACH * half_open_for(capacity)).bit_length() - 1


class Share:
    """The share of a table of this capacity, in `buffer` from byte `start` on; zero bytes are free places."""

    def __init__(self, buffer: bytearray | mmap, start: int, capacity: int) -> None:
        self.places, self.limit = places_for(capacity), half_open_for(capacity)
        self.used = 0
        """Places that are not free: half-open flows, and those about to begin."""
        self._turn = self._oldest = 0
        """The next flow's turn, and the first one that may be in use; modulo 2^32."""
        self._buffer = buffer
        self._start = start

    def take(self) -> tuple[int, int]:
        """A place for a new flow, from 1 on; or 0, and the entry of the flow that must go first.

        The place is held until `name` says whose it is, or `give_back` that it is nobody's.
        """
        place = self._at(self._turn)
        if self.used >= self.limit:
            return 0, self.oldest()
        if self.index(place):  # the turn has come round
            return 0, self.index(place) - 1
        self._turn = self._turn + 1 & _WRAP
        self.used += 1
        self._write(place, PLACE_TAKEN)
        self._follow(2)  # more than one for a turn, so that nobody has far to look for the oldest
        return place, -1

    def name(self, place: int, index: int) -> None:
        """The flow of the entry at `index` has this place."""
        self._write(place, index + 1)

    def give_back(self, place: int) -> None:
        """Nobody has this place any more; 0 is none."""
        if place:
            self._write(place, 0)
            self.used -= 1

    def index(self, place: int) -> int:
        """The entry whose flow has this place, plus 1; 0: it is free."""
        word: int = PLACE.unpack_from(self._buffer, self._start + (place - 1) * PLACE.size)[0]
        return word

    def oldest(self) -> int:
        """The entry of the oldest half-open flow; -1: there is none."""
        self._follow(self.places)
        turn = self._oldest
        while turn != self._turn:
            if (index := self.index(self._at(turn))) not in (0, PLACE_TAKEN):
                return index - 1
            turn = turn + 1 & _WRAP
        return -1

    def _follow(self, most: int) -> None:
        """The oldest turn follows, past `most` places that are free. It never is ahead of the turn."""
        if self._turn - self._oldest & _WRAP > self.places:
            self._oldest = self._turn - self.places & _WRAP
        while most and self._oldest != self._turn and not self.index(self._at(self._oldest)):
            self._oldest = self._oldest + 1 & _WRAP
            most -= 1

    def _at(self, turn: int) -> int:
        return turn % self.places + 1

    def __len__(self) -> int:
        """Places that are not free, counted: for tests, as it looks at all of them."""
        words = memoryview(self._buffer)[self._start : self._start + self.places * PLACE.size].cast("I")
        return self.places - sum(not word for word in words)

    def _write(self, place: int, value: int) -> None:
        PLACE.pack_into(self._buffer, self._start + (place - 1) * PLACE.size, value)
