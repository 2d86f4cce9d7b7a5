"""flows = "track-changes": an entry only for a flow whose slot of the ring has changed.

A service whose ring is a hash finds a flow's backend again by that alone, as
long as the slot has the same backend. So a frame of a slot that has never
changed goes where the ring says, and nothing is remembered of it. Of a slot
that has changed, each flow gets an entry with its first frame that comes
afterwards: one that begins with a SYN goes to the slot's new backend, one that
is in mid-stream to its *owner*, the backend that the slot had before its first
change. It began before that, for every flow that began later has an entry.
(Compare JET: Mendelson, Vargaftik, Lorenz, Barabash, Keslassy, Orda, "Load
Balancing with JET", CoNEXT'20, where flows at risk are foreseen.)

A slot that has changed stays so: nobody knows when the last flow of its owner
has ended. So the price of changes is that of flows = "track", for those slots.

Only TCP, where the first frame of a flow can be told, and only DSR with a ring
that keeps its size (maglev, sh, hrw).
"""

from __future__ import annotations

from array import array
from dataclasses import replace

from l4raw.core.model import Flows
from l4raw.core.policy import Owners, Policy, ServiceEntry
from l4raw.core.ring import Pick


def carried(old: Policy, new: Policy) -> Policy:
    """`new`, with what its slots have been through, `old` being in force until now."""
    services, by_number = dict(new.services), list(new.by_number)
    for place, entry in new.services.items():
        if entry.service.flows is Flows.TRACK_CHANGES:
            was = old.by_number[entry.number] if entry.number < len(old.by_number) else None
            services[place] = by_number[entry.number] = entry._replace(owners=_owners(was, entry))
    return replace(new, services=services, by_number=tuple(by_number))


def _owners(old: ServiceEntry | None, new: ServiceEntry) -> Owners:
    slots = new.ring.slots
    if old is None or not (old.owners.slots if old.owners else old.ring.slots):
        return Owners(slots, array("H", bytes(2 * len(slots))))
    if old.owners is None:  # all flows have entries, of whatever backend
        return Owners(old.ring.slots, old.ring.slots)
    if not slots or slots is old.ring.slots:  # nobody takes flows; or this service is as it was
        return old.owners
    owners, before = old.owners
    changed = (
        owner if was or owner != now else 0 for owner, was, now in zip(owners, before, slots, strict=True)
    )
    return Owners(owners, array("H", changed))


def remembers(service: ServiceEntry, pick: Pick) -> bool:
    """Whether a flow that gets its backend so has an entry."""
    return service.owners is None or bool(service.owners.before[pick.slot])


def of_owner(service: ServiceEntry, pick: Pick) -> Pick:
    """The choice for a frame in mid-stream that has no entry."""
    if service.owners is None or not remembers(service, pick):
        return pick
    return pick._replace(backend=service.owners.before[pick.slot])
