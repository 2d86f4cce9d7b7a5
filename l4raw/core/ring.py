"""Schedulers as tables: what a new flow looks up to find its backend.

Every scheduler here is an array of backends, its *ring*, and a rule for the
slot to read:

    scheduler    ring                                   rule
    maglev       65537 slots, see maglev()              hash of the 5-tuple, modulo the size
    sh           the same                               hash of the client's address, modulo the size
    hrw          65537 rows, see hrw()                  hash of the 5-tuple, modulo the size
    modulo       each backend once                      hash of the 5-tuple, modulo the size
    rr           each backend once                      a cursor that moves on by one
    wrr          as often as its weight, see smooth()   a cursor that moves on by one
    lc, wlc      each backend once                      the fewest current flows

Building the array may be slow and happens here, once for each change of the
backends; reading it is one line in Python, C and BPF. The last rule is no
look-up, so only Python has it. A backend of weight 0 is in no ring.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, shake_256
from heapq import merge
from itertools import count, islice
from math import gcd, log
from struct import iter_unpack
from typing import Final, NamedTuple

from l4raw.core.hashing import HashKey, flow_hash, hash_key
from l4raw.core.model import Backend, Scheduler
from l4raw.wire.abi import MAGLEV_SLOTS, RULE_CURSOR, RULE_FLOW_HASH, RULE_LEAST, RULE_SOURCE_HASH

HASHES: Final = (RULE_FLOW_HASH, RULE_SOURCE_HASH)
"""Rules that are a function of the flow: they find its backend again when its entry is lost."""

Load = Callable[[int], tuple[bool, int]]
"""Of a backend, by its index: whether it cannot be reached, and its current flows."""


def no_load(backend: int) -> tuple[bool, int]:
    """Of a balancer that has just been started."""
    return False, 0


class Pick(NamedTuple):
    """How a new flow got its backend, so that it can be explained."""

    rule: int
    """One of `enum l4_rule`."""
    value: int
    """The 32-bit hash, the cursor, or the backend's flows until now."""
    slot: int
    size: int
    backend: int
    """Index of the backend."""
    weight: int = 0
    """By which its flows were divided; 0: flows were not compared."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Slots that hold backend indices, and how to choose one."""

    rule: int
    slots: array[int] = field(repr=False)
    key: HashKey = field(repr=False)
    weights: tuple[int, ...] = ()
    """Of the slots, for RULE_LEAST."""
    members: frozenset[int] = field(init=False, repr=False, compare=False)
    """The backends that take new flows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", frozenset(self.slots))

    def pick(self, flow: bytes, cursor: int, load: Load = no_load) -> Pick | None:
        """The slot for a flow with this 37-byte key, for this cursor, or for the backends' present load.

        None: no backend takes new flows.
        """
        size = len(self.slots)
        if not size:
            return None
        if self.rule == RULE_LEAST:
            return self._least(cursor, load)
        if self.rule == RULE_SOURCE_HASH:
            # In the place of the destination, too: a key is of one family, and nothing else may count.
            flow = flow[:16] * 2 + bytes(5)
        value = cursor if self.rule == RULE_CURSOR else flow_hash(self.key, flow) >> 32
        slot = value % size
        return Pick(self.rule, value, slot, size, self.slots[slot])

    def _least(self, cursor: int, load: Load) -> Pick:
        """The fewest flows for its weight; of those alike, the next in turn from the cursor on.

        Who cannot be reached would have the fewest for ever, and so every new flow: it comes last.
        """
        size, loads = len(self.slots), [load(backend) for backend in self.slots]

        def rank(slot: int) -> tuple[bool, float, int]:
            unreachable, flows = loads[slot]
            return unreachable, flows / self.weights[slot], (slot - cursor) % size

        slot = min(range(size), key=rank)
        return Pick(self.rule, loads[slot][1], slot, size, self.slots[slot], self.weights[slot])

    def after(self, pick: Pick, cursor: int) -> int:
        """Where the cursor is after this pick."""
        if self.rule == RULE_CURSOR:
            return cursor + 1 & 0xFFFF_FFFF
        return pick.slot + 1 if self.rule == RULE_LEAST else cursor


def build(scheduler: Scheduler, backends: Sequence[tuple[int, Backend]], seed: bytes) -> Ring:
    """The ring of `scheduler` for (index, backend) pairs in the operator's order.

    `seed` is the group's: with the same one, any balancer builds the same
    ring and hashes a flow to the same slot.
    """
    usable = [(index, backend) for index, backend in backends if backend.weight]
    key = hash_key(b"ring" + seed)
    each = array("H", [index for index, _ in usable])
    weights = tuple(backend.weight for _, backend in usable)
    match scheduler:
        case Scheduler.MAGLEV:
            return Ring(RULE_FLOW_HASH, maglev(usable, seed), key)
        case Scheduler.SH:
            return Ring(RULE_SOURCE_HASH, maglev(usable, seed), key)
        case Scheduler.HRW:
            return Ring(RULE_FLOW_HASH, hrw(usable, seed), key)
        case Scheduler.MODULO:
            return Ring(RULE_FLOW_HASH, each, key)
        case Scheduler.RR:
            return Ring(RULE_CURSOR, each, key)
        case Scheduler.WRR:
            return Ring(RULE_CURSOR, array("H", [each[place] for place in smooth(weights)]), key)
        case Scheduler.LC:
            return Ring(RULE_LEAST, each, key, (1,) * len(each))
        case Scheduler.WLC:
            return Ring(RULE_LEAST, each, key, weights)


def maglev(backends: Sequence[tuple[int, Backend]], seed: bytes, size: int = MAGLEV_SLOTS) -> array[int]:
    """Population of the Maglev lookup table: Eisenbud et al., NSDI'16, section 3.4.

    Each backend has its own permutation of the slots (`offset`, then steps
    of `skip`; `size` is prime, so every slot is reached) and takes, in turn,
    the next of its slots that is still free. Weights: see `in_turn`. A backend
    is known by its address and port, so that a new name moves no flow.
    """
    slots = array("H", bytes(2 * size if backends else 0))
    walks = [_permutation(backend, seed, size) for _, backend in backends]
    nexts = [offset for offset, _ in walks]
    taken = bytearray(size)
    for position in islice(in_turn([backend.weight for _, backend in backends]), size):
        slot, skip = nexts[position], walks[position][1]
        while taken[slot]:
            slot = (slot + skip) % size
        taken[slot] = 1
        slots[slot] = backends[position][0]
        nexts[position] = slot
    return slots


def in_turn(weights: Sequence[int]) -> Iterator[int]:
    """Positions without end, each as often as its weight and spread evenly; nothing for no weights.

    Turn k of weight w is due at (k + phase) / w, where the phase is from 0 to
    1 by position. That hardly depends on who else is there: when one goes, the
    others take turns in nearly the same order, and keep nearly all of their
    slots. (The paper's section 3.4 suggests w turns at a time. Then a last,
    partial round goes to the first few: of 200 with weights of 99 and 100, one
    less moved 20 % of the slots.)
    """
    room = len(weights)

    def due(position: int, weight: int) -> Iterator[tuple[float, int]]:
        phase = (position + 0.5) / room
        return (((turn + phase) / weight, position) for turn in count())

    return (position for _, position in merge(*(due(p, w) for p, w in enumerate(weights))))


def _permutation(backend: Backend, seed: bytes, size: int) -> tuple[int, int]:
    """`offset` and `skip` of a backend: two independent hashes of its address and port."""
    digest = blake2b(_identity(backend), digest_size=16, key=blake2b(seed).digest()).digest()
    offset = int.from_bytes(digest[:8], "big") % size
    skip = int.from_bytes(digest[8:], "big") % (size - 1) + 1
    return offset, skip


def _identity(backend: Backend) -> bytes:
    return backend.address + backend.port.to_bytes(2, "big")


def hrw(backends: Sequence[tuple[int, Backend]], seed: bytes, size: int = MAGLEV_SLOTS) -> array[int]:
    """Highest random weight, or rendezvous: Thaler and Ravishankar, IEEE/ACM ToN 6(1), 1998.

    In each row every backend has a score, and the highest takes the row. So a
    row changes only if the backend that goes had it, or the one that comes
    gets it: no other one moves. The score of weight w is -w / ln h, for h
    evenly between 0 and 1: the highest is that of a backend with the
    probability w / (sum of all w), and a changed weight moves rows to or from
    its own backend only (Schindelhauer and Schomaker, "Weighted distributed
    hash tables", SPAA'05, the logarithmic method).
    """
    slots = array("H", bytes(2 * size if backends else 0))
    best = [0.0] * size
    for index, backend in backends:
        stream = shake_256(blake2b(seed).digest() + _identity(backend)).digest(8 * size)
        for row, (number,) in enumerate(iter_unpack("<Q", stream)):
            # 52 bits and a half: exact, and neither 0 nor 1.
            score = -backend.weight / log(((number >> 12) + 0.5) * 2**-52)
            if score > best[row]:
                best[row], slots[row] = score, index
    return slots


def turns(weights: Sequence[int]) -> int:
    """Slots that the sequence of wrr takes: the weights without their common divisor, added up."""
    usable = [weight for weight in weights if weight]
    return sum(usable) // gcd(*usable) if usable else 0


def smooth(weights: Sequence[int]) -> Iterator[int]:
    """One period of smooth weighted round robin, as positions: that of nginx 1.3.1 and later.

    At each turn every position gains its weight, and the one that has most
    (the first of them) is taken and pays the sum of all: 5, 1, 1 gives
    0 0 1 0 2 0 0. Each is taken exactly as often as its weight, and then all
    is as at the start. Positions of one weight take turns in their order, so
    it is enough to know what the next of them has.

    Raises `OverflowError` for more than MAGLEV_SLOTS turns.
    """
    length = turns(weights)
    if length > MAGLEV_SLOTS:
        raise OverflowError(f"the weights of wrr add up to {length} turns, more than {MAGLEV_SLOTS}")
    divisor = sum(weights) // length if length else 1
    alike: dict[int, list[int]] = {}
    for position, weight in enumerate(weights):
        alike.setdefault(weight // divisor, []).append(position)
    has, place = dict.fromkeys(alike, 0), dict.fromkeys(alike, 0)
    for _ in range(length):
        for weight in alike:
            has[weight] += weight
        most = max(alike, key=lambda weight: (has[weight], -alike[weight][place[weight]]))
        yield alike[most][place[most]]
        place[most] = (place[most] + 1) % len(alike[most])
        if not place[most]:  # all of this weight have paid
            has[most] -= length
