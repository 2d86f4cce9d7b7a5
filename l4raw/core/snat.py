"""The pool of a fullnat service: SNAT addresses and their ports, and in which order a flow tries them.

A flow's source becomes the first address and port, in an order that its key
decides, whose reply key is absent from the flow table: (backend address and
port) -> (SNAT address and port). So a port is taken only for one backend's
address and port, and one SNAT address serves all of its ports for each of them.

The order is double hashing (Knuth, TAOCP 3, section 6.4): from a place that
half of the hash gives, in steps that the other half gives, modulo a prime. So
every index below the prime comes once, and those that are no port of the
pool, a few at its end, are passed over. The hash is the flow table's, which
has a key: no client can aim at a port.

Lives here: the pool, its order, what is remembered of pools, and what comes
to their addresses without a flow. Must not live here: who has a port, which
is what the flow table says (admit.py, resting.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from l4raw.core.hashing import scale, spread
from l4raw.core.model import Snat
from l4raw.wire.abi import DROP_SNAT_NO_FLOW, PASS_ND, PASS_NOT_OURS, Verdict
from l4raw.wire.headers import Headers
from l4raw.wire.ipv6 import NEIGHBOUR_DISCOVERY

_SECOND: Final = 10
"""A shift: ms to what is nearly a second."""


class Source(NamedTuple):
    """What a flow's source became, so that it can be explained."""

    address: bytes
    port: int
    tried: int
    """Ports that were looked at, this one included."""
    size: int
    """Ports of the pool."""


@dataclass(frozen=True, slots=True)
class Pool:
    """All ports of all ranges, numbered from 0."""

    ranges: tuple[Snat, ...]
    starts: tuple[int, ...]
    """The number of each range's first port."""
    size: int
    modulus: int
    """The least prime that is not below `size`."""

    def end(self, number: int) -> tuple[bytes, int]:
        """Address and port that have this number."""
        place = max(i for i, start in enumerate(self.starts) if start <= number)
        return self.ranges[place].address, self.ranges[place].first + number - self.starts[place]

    def walk(self, value: int) -> Iterator[tuple[bytes, int]]:
        """Every address and port once, in the order of a flow with this 64-bit hash in the flow table."""
        value = spread(value)
        at = scale(value >> 32, self.modulus)
        step = 1 + scale(value & 0xFFFF_FFFF, self.modulus - 1)
        for _ in range(self.modulus):
            if at < self.size:
                yield self.end(at)
            at += step
            if at >= self.modulus:
                at -= self.modulus

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))


def pool_of(ranges: Sequence[Snat]) -> Pool | None:
    """The pool of these ranges, none of which overlap; None: there are none."""
    if not ranges:
        return None
    starts, size = [], 0
    for each in ranges:
        starts.append(size)
        size += each.last - each.first + 1
    return Pool(tuple(ranges), tuple(starts), size, _prime_from(size))


def _prime_from(number: int) -> int:
    """The least prime that is not below `number`."""
    candidate = max(2, number)
    while any(candidate % divisor == 0 for divisor in range(2, int(candidate**0.5) + 1)):
        candidate += 1
    return candidate


@dataclass(slots=True)
class Ports:
    """What is remembered of pools beside the flow table. Only Python has it."""

    _refused: dict[int, int] = field(default_factory=dict)
    """New flows that found no port, by number of the backend, since they were last told."""
    _freed: dict[bytes, int] = field(default_factory=dict)
    """How often a port became free again, by the backend's address."""
    _full: dict[tuple[bytes, int, int], int] = field(default_factory=dict)
    """Pools in which a walk found no port: see `is_exhausted`."""
    _second: int = 0
    """When `_full` was begun; it is forgotten after that."""
    _resting: array[int] = field(default_factory=lambda: array("Q"))
    """Index and lock word in one number, oldest first, from `_first` on."""
    _first: int = 0

    def is_exhausted(self, service: int, address: bytes, port: int, now: int) -> bool:
        """Whether the last walk for this backend found no port, and none has rested since.

        Without this memory each refusal would cost a walk through the whole pool. Of a port whose flow went
        for another one nobody tells us: it is found within a second, or among the first of a walk.
        """
        if now >> _SECOND != self._second:
            self._full.clear()
            self._second = now >> _SECOND
        return self._full.get((address, port, service)) == self._freed.get(address, 0)

    def exhausted(self, service: int, address: bytes, port: int) -> None:
        """A walk found no port for this backend. As soon as is_exhausted() has been asked."""
        self._full[address, port, service] = self._freed.get(address, 0)

    def forget(self) -> None:
        """Pools are not what they were."""
        self._full.clear()

    def refuse(self, backend: int) -> None:
        """Count a new flow that got no port."""
        self._refused[backend] = self._refused.get(backend, 0) + 1

    def take_refused(self) -> dict[int, int]:
        """How many there were since the last call, by number of the backend."""
        refused, self._refused = self._refused, {}
        return refused

    def freed(self, address: bytes) -> None:
        """A port for this backend's address has rested, and is free again."""
        self._freed[address] = self._freed.get(address, 0) + 1

    def add(self, index: int, lock: int) -> None:
        """One more entry rests. With another lock word than this it is another flow's."""
        self._resting.append(index << 32 | lock)

    def oldest(self) -> tuple[int, int]:
        """Index and lock word of the one that rests longest. Raises `IndexError` if there is none."""
        number = self._resting[self._first]
        return number >> 32, number & 0xFFFF_FFFF

    def take_oldest(self) -> tuple[int, int]:
        """The same, and it rests no more."""
        found = self.oldest()
        self._first += 1
        if 2 * self._first > len(self._resting):
            del self._resting[: self._first]
            self._first = 0
        return found

    def __len__(self) -> int:
        """Entries that rest."""
        return len(self._resting) - self._first


def stray(headers: Headers, snat: frozenset[bytes]) -> Verdict:
    """To no VIP, and no reply: our business only if it is to a SNAT address, which no interface has."""
    if headers.dst not in snat:
        return PASS_NOT_OURS
    if (
        not headers.l4
        and len(headers.dst) == 16
        and headers.icmp
        and headers.icmp_type in NEIGHBOUR_DISCOVERY
    ):
        return PASS_ND
    return DROP_SNAT_NO_FLOW
