"""What becomes of a new flow while the flow table is full: the key `full` of its service.

    refuse-new     it is refused: DROP_FLOWS_FULL.
    evict-oldest   another flow makes room: the one that was silent longest, of those with an entry
                   in the two buckets of the new key, and whose service evicts too; if there is none,
                   of those in the two buckets that come next, and so on, NEAR times. So no flow goes
                   of a service that never asked for it, and the price has a bound, however large the
                   table is: mostly eight entries' worth.
    stateless      the frame goes where the ring says, and nothing is remembered of it: under DSR
                   the ring alone finds the backend again, as long as it does not change.

Ports at rest have made room before (resting.py), and flows that are half-open (share.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from l4raw.core import rewrite
from l4raw.core.changes import remembers
from l4raw.core.decision import Decision
from l4raw.core.hashing import scale
from l4raw.core.model import Full
from l4raw.core.resting import make_room
from l4raw.core.ring import Pick
from l4raw.core.tables import ServiceEntry, Tables
from l4raw.core.timeouts import elapsed
from l4raw.wire.abi import (
    DROP_FLOWS_FULL,
    EVENT_EVICTED_OLDEST,
    EVENT_STATELESS,
    FLOW_AFFINITY,
    FLOW_FREE,
    FLOW_RESTING,
    FORWARD,
    NEAR,
    SLOTS,
    Verdict,
)
from l4raw.wire.headers import Headers

_WRAP: Final = 0xFFFF_FFFF
_NO_FLOWS: Final = (FLOW_FREE, FLOW_RESTING, FLOW_AFFINITY)


def has_room(tables: Tables, key: bytes, entries: int, service: int) -> bool:
    """Whether there is room for so many entries of a flow with this key, now that others have made way.

    Ports at rest first, then half-open flows, then what the service's `full` lets go.
    """
    flows = tables.flows
    while not make_room(tables, entries) and tables.evict_half_open():
        pass
    make_way(tables, key, entries, service)
    return flows.used + entries <= flows.capacity


def make_way(tables: Tables, key: bytes, entries: int, service: int) -> None:
    """Have flows go until there is room for so many entries of one with this key, if its service says so."""
    flows, entry = tables.flows, tables.policy.by_number[service]
    if entry is None or entry.service.full is not Full.EVICT_OLDEST:
        return
    while flows.used + entries > flows.capacity:
        index, lock = oldest_near(tables, key)
        if index < 0 or not tables.free(index, lock):
            return
        tables.events[EVENT_EVICTED_OLDEST] += 1


def oldest_near(tables: Tables, key: bytes) -> tuple[int, int]:
    """Index and lock word of the flow that goes, from the first pair of buckets with one that may; or -1."""
    for pair in near(tables, key):
        index, lock = oldest_in(tables, pair)
        if index >= 0:
            return index, lock
    return -1, 0


def oldest_in(tables: Tables, pair: tuple[int, int]) -> tuple[int, int]:
    """Of the flows in these two buckets: the one that was silent longest, the first one of such; or -1."""
    flows, found, longest = tables.flows, (-1, 0), -1
    for index in (bucket * SLOTS + slot for bucket in pair for slot in range(SLOTS)):
        entry = flows.read(index)
        service = tables.policy.by_number[entry.service]
        if entry.state in _NO_FLOWS or service is None:
            continue
        if service.service.full is not Full.EVICT_OLDEST:
            continue
        silent = elapsed(tables.now, entry.last_seen)
        if entry.peer:
            silent = min(silent, elapsed(tables.now, flows.read(entry.peer - 1).last_seen))
        if silent > longest:
            found, longest = (index, entry.lock), silent
    return found


def near(tables: Tables, key: bytes) -> Iterator[tuple[int, int]]:
    """Both buckets of this key, then both next ones: a client that asks again has the same two buckets."""
    value, buckets = tables.flows.hash(key), tables.flows.buckets
    first, second = scale(value >> 32, buckets), scale(value & _WRAP, buckets)
    for step in range(NEAR):
        yield (first + step) % buckets, (second + step) % buckets


def without_entry(
    verdict: Verdict, pick: Pick | None, headers: Headers, service: ServiceEntry, tables: Tables
) -> Decision:
    """What becomes of a frame that admit() gave no entry, with this verdict; FORWARD: on without one."""
    backend = tables.policy.backends[pick.backend] if pick else None
    if verdict != FORWARD:
        return Decision(verdict, headers, service, backend, pick=pick)
    mac = tables.next_hops.macs[backend.next_hop] if backend else None
    if pick is None or backend is None or mac is None or service.service.mode.is_nat:
        # Its entry was made, and evicted by another thread at once.
        return Decision(DROP_FLOWS_FULL, headers, service, backend, pick=pick)
    if remembers(service, pick):
        tables.events[EVENT_STATELESS] += 1
    edits = rewrite.dsr_l2(headers, tables.arms[backend.arm].mac, mac)
    return Decision(FORWARD, headers, service, backend, -1, pick, edits, backend.arm)
