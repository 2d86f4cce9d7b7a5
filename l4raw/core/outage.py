"""Rings without the backends that are down; flows and numbers stay as they are.

Only new flows read a ring. One that maglev or hrw made keeps its size, and a
slot whose backend is down has an *heir*: the backend of the first slot, on a
walk that every slot has of its own, that is not down. So

- no slot moves but those of who went down, and they are shared by weight,
  since a walk meets a backend as often as it has slots;
- who returns gets exactly its own slots back;
- the ring depends on who is down, not on the order in which they went, so two
  balancers of a group that see the same agree.

From the other rings, who is down is left out: rr, wrr, lc and wlc keep no
place, and modulo is there to show what happens then.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Generator
from dataclasses import replace
from hashlib import shake_256
from typing import Final

from l4raw.core.model import Scheduler
from l4raw.core.ring import Ring
from l4raw.core.tables import Policy, ServiceEntry

_SLICE: Final = 1024
"""Slots between two yields: 0.1 to 2 ms of work."""
_KEPT: Final = (Scheduler.MAGLEV, Scheduler.SH, Scheduler.HRW)
"""Whose rings keep their size."""


def without(policy: Policy, down: Collection[int], seed: bytes) -> Generator[None, None, Policy]:
    """`policy`, of which no ring names a backend whose number is in `down`.

    A generator that returns it: between its yields the caller can let others
    run, for a large configuration takes hundreds of milliseconds. `seed` is
    the ring seed. Where all backends of a service are down, its ring is
    empty, and its new flows are dropped (drop_no_backend).
    """
    down = frozenset(down)
    services, by_number = dict(policy.services), list(policy.by_number)
    for place, entry in policy.services.items():
        members = entry.ring.members
        if members & down:
            ring = yield from _ring_without(entry, down, members - down, seed)
            services[place] = by_number[entry.number] = entry._replace(ring=ring)
        yield
    return replace(policy, services=services, by_number=tuple(by_number))


def _ring_without(
    entry: ServiceEntry, down: frozenset[int], up: frozenset[int], seed: bytes
) -> Generator[None, None, Ring]:
    ring = entry.ring
    if up and entry.service.scheduler in _KEPT:
        slots = yield from heirs(ring.slots, down, seed)
        return replace(ring, slots=slots)
    left = [place for place, backend in enumerate(ring.slots) if backend in up]
    weights = tuple(ring.weights[place] for place in left) if ring.weights else ()
    return replace(ring, slots=array("H", [ring.slots[place] for place in left]), weights=weights)


def heirs(slots: array[int], down: frozenset[int], seed: bytes) -> Generator[None, None, array[int]]:
    """The slots with heirs in the place of those that are down, of whom not all are.

    The walk of a slot goes on by its own step, from 1 to the size less 1. The
    size is prime, so it comes to every slot.
    """
    size = len(slots)
    steps = shake_256(b"heirs" + seed).digest(4 * size)
    inherited = array("H", slots)
    for slot, backend in enumerate(slots):
        if backend in down:
            heir, step = slot, int.from_bytes(steps[4 * slot : 4 * slot + 4], "big") % (size - 1) + 1
            while slots[heir] in down:
                heir = (heir + step) % size
            inherited[slot] = slots[heir]
        if not slot % _SLICE:
            yield
    return inherited
