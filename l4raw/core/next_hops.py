"""Where frames are sent: a MAC address behind one arm, named by a small index.

A backend's hop is *pinned*: it exists from the start, and its MAC is filled
in and changed as the kernel's neighbour table says. A client's hop is
*learned* from its first frame: the router, or the client itself, that sent
it will take the replies. C and BPF have no routing table to ask; here the
reference does as they do.

The table is bounded, so that frames with invented source MACs cannot grow
it: learned hops are counted by the flows that use them and go with the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4raw.wire.abi import NEXT_HOPS


class NextHops:
    """Indices from 1 to `limit`; index 0 means none."""

    def __init__(self, limit: int = NEXT_HOPS) -> None:
        self._macs: list[bytes | None] = [None]
        self._arms: list[int] = [0]
        self.macs: Sequence[bytes | None] = self._macs
        """By index; None: not known (yet). Read by the packet path, replaced one item at a time."""
        self.arms: Sequence[int] = self._arms
        self._references: list[int] = [0]
        self._learned: dict[tuple[int, bytes], int] = {}
        self._free: list[int] = []
        self._limit = limit

    def pin(self, arm: int, mac: bytes | None = None) -> int:
        """A hop that stays. Raises `OverflowError` when the table is full: a set-up error, not a frame's."""
        index = self._take(arm, mac)
        if not index:
            raise OverflowError(f"more than {self._limit} next hops")
        return index

    def set_mac(self, index: int, mac: bytes | None) -> None:
        """What is now known of a pinned hop; None: its address no longer resolves."""
        self._macs[index] = mac

    def learn(self, arm: int, mac: bytes) -> int:
        """The hop for a client behind `arm`, with one reference more; 0 when the table is full."""
        index = self._learned.get((arm, mac)) or self._take(arm, mac)
        if index:
            self._learned[arm, mac] = index
            self._references[index] += 1
        return index

    def release(self, index: int) -> None:
        """Give back a reference of `learn`; the last one frees the hop."""
        self._references[index] -= 1
        if not self._references[index]:
            mac = self.macs[index]
            assert mac is not None, "a learned hop always has its MAC"
            del self._learned[self.arms[index], mac]
            self._macs[index] = None
            self._free.append(index)

    def references(self, index: int) -> int:
        """Flows that learned this hop; 0 for a pinned one."""
        return self._references[index]

    def _take(self, arm: int, mac: bytes | None) -> int:
        if self._free:
            index = self._free.pop()
            self._arms[index], self._macs[index] = arm, mac
            return index
        if len(self.macs) > self._limit:
            return 0
        self._arms.append(arm)
        self._references.append(0)
        self._macs.append(mac)
        return len(self.macs) - 1

    def __len__(self) -> int:
        return len(self.macs) - 1 - len(self._free)
