"""Schedulers as tables: what a new flow looks up to find its backend.

Every scheduler here is an array of backends, its *ring*, and a rule for the
slot to read: the hash of the 5-tuple modulo the size, or a cursor that moves
on by one. Building the array may be slow and happens here, once for each
change of the backends; reading it is one line in Python, C and BPF.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import gcd
from typing import NamedTuple

from l4raw.core.hashing import HashKey, flow_hash, hash_key
from l4raw.core.model import Backend, Scheduler
from l4raw.wire.abi import MAGLEV_SLOTS, RULE_CURSOR, RULE_FLOW_HASH


class Pick(NamedTuple):
    """How a new flow got its backend, so that it can be explained."""

    rule: int
    """RULE_FLOW_HASH or RULE_CURSOR."""
    value: int
    """The 32-bit hash, or the cursor."""
    slot: int
    size: int
    backend: int
    """Index of the backend."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Slots that hold backend indices, and how to choose one."""

    rule: int
    slots: array[int] = field(repr=False)
    key: HashKey = field(repr=False)

    def pick(self, flow: bytes, cursor: int) -> Pick | None:
        """The slot for a flow with this 37-byte key, or for this cursor; None: no backend takes new flows."""
        size = len(self.slots)
        if not size:
            return None
        value = flow_hash(self.key, flow) >> 32 if self.rule == RULE_FLOW_HASH else cursor
        slot = value % size
        return Pick(self.rule, value, slot, size, self.slots[slot])


def build(scheduler: Scheduler, backends: Sequence[tuple[int, Backend]], seed: bytes) -> Ring:
    """The ring of `scheduler` for (index, backend) pairs in the operator's order.

    `seed` is the group's: with the same one, any balancer builds the same
    ring and hashes a flow to the same slot.
    """
    usable = [(index, backend) for index, backend in backends if backend.weight]
    key = hash_key(b"ring" + seed)
    if scheduler is Scheduler.MAGLEV:
        return Ring(RULE_FLOW_HASH, maglev(usable, seed), key)
    slots = array("H", [index for index, _ in usable])
    if scheduler is Scheduler.MODULO:
        return Ring(RULE_FLOW_HASH, slots, key)
    return Ring(RULE_CURSOR, slots, key)


def maglev(backends: Sequence[tuple[int, Backend]], seed: bytes, size: int = MAGLEV_SLOTS) -> array[int]:
    """Population of the Maglev lookup table: Eisenbud et al., NSDI'16, section 3.4.

    Each backend has its own permutation of the slots (`offset`, then steps
    of `skip`; `size` is prime, so every slot is reached) and takes, in turn,
    the next of its slots that is still free. A backend of weight w takes w
    turns in a round, as the section's last paragraph suggests. A backend is
    known by its address and port, so that a new name moves no flow.
    """
    if not backends:
        return array("H")
    common = gcd(*(backend.weight for _, backend in backends))
    turns = [(position, backend.weight // common) for position, (_, backend) in enumerate(backends)]
    walks = [_permutation(backend, seed, size) for _, backend in backends]
    slots = array("H", bytes(2 * size))
    taken = bytearray(size)
    left = size
    while True:
        for position, weight in turns:
            index = backends[position][0]
            slot, skip = walks[position]
            for _ in range(weight):
                while taken[slot]:
                    slot = (slot + skip) % size
                taken[slot] = 1
                slots[slot] = index
                left -= 1
                if not left:
                    return slots
            walks[position] = slot, skip


def _permutation(backend: Backend, seed: bytes, size: int) -> tuple[int, int]:
    """`offset` and `skip` of a backend: two independent hashes of its address and port."""
    identity = backend.address + backend.port.to_bytes(2, "big")
    digest = blake2b(identity, digest_size=16, key=blake2b(seed).digest()).digest()
    offset = int.from_bytes(digest[:8], "big") % size
    skip = int.from_bytes(digest[8:], "big") % (size - 1) + 1
    return offset, skip
