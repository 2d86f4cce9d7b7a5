"""flows = "track-changes": an entry only for a flow that began where the ring has changed.

A service whose ring is a hash finds a flow's backend again by that alone, as
long as the slot has the same backend. So each slot has an *owner*: the backend
that it had when the service came into force. A frame without an entry goes to
its slot's owner; only where the ring names another backend by now, a flow that
begins there, with a SYN, goes to that one and gets an entry. So a flow without
an entry began at its owner, and nobody moves, whatever goes and comes, and
however long a connection is silent meanwhile.

(Compare JET: Mendelson, Vargaftik, Lorenz, Barabash, Keslassy, Orda, "Load
Balancing with JET", CoNEXT'20. There a ring is forgotten after a while, so
flows at risk need an entry in time; here owners stay until the end.)

What an entry protects, its loss exposes: a flow of a changed slot whose entry
is gone, because it was silent for longer than its timeout, or half-open when a
flood took the share, is taken for one of the owner's. Likewise a SYN for a
connection that began at the owner, repeated or forged, is taken for a new one.

Only TCP, where the first frame of a flow can be told, and only DSR with a ring
that keeps its size (maglev, sh, hrw).
"""

from __future__ import annotations

from array import array
from dataclasses import replace

from l4raw.core.model import Flows
from l4raw.core.policy import Policy, ServiceEntry
from l4raw.core.ring import Pick


def carried(old: Policy, new: Policy) -> Policy:
    """`new`, with the owners of its slots, `old` being in force until now."""
    services, by_number = dict(new.services), list(new.by_number)
    for place, entry in new.services.items():
        if entry.service.flows is Flows.TRACK_CHANGES:
            was = old.by_number[entry.number] if entry.number < len(old.by_number) else None
            services[place] = by_number[entry.number] = entry._replace(owners=_owners(was, entry))
    return replace(new, services=services, by_number=tuple(by_number))


def _owners(old: ServiceEntry | None, new: ServiceEntry) -> array[int]:
    """Those of before, or of the ring that was in force, for as long as there was one of this size."""
    if old is None:
        return new.ring.slots
    owners = old.ring.slots if old.owners is None else old.owners
    size = len(new.ring.slots) or len(owners)
    return owners if len(owners) == size else new.ring.slots


def of_owner(service: ServiceEntry, key: bytes) -> Pick | None:
    """The choice for a frame in mid-stream that has no entry; None: nothing but the ring tells."""
    if not service.owners:
        return None
    return replace(service.ring, slots=service.owners).pick(key, 0)


def remembers(service: ServiceEntry, pick: Pick) -> bool:
    """Whether a flow that gets its backend so has an entry."""
    return service.owners is None or service.owners[pick.slot] != pick.backend
