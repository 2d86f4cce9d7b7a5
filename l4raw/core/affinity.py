"""Affinity: a client's new flows go where its last one went, whatever the scheduler.

A client's choice is an entry of the flow table, so that whoever finds flows
finds it: its key has the client as the source, the VIP as the destination,
the service's number in the place of the source port, and protocol 0, which no
flow has. It is no flow: no counter of flows counts it. Each new flow renews
its time, and a flow that is refused changes nothing.

A choice holds while its backend takes new flows, and for the service's
affinity after the client's last new flow. Then the scheduler has its turn,
and the entry says what it chose.

A quarter of the table is for flows alone: where more is in use no choice is
remembered, which is counted, and flows go on without. So who invents
addresses fills no table with choices, but can keep others' from being made.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from l4raw.core.flows import flow_key
from l4raw.core.ring import Pick
from l4raw.core.tables import ServiceEntry, Tables
from l4raw.wire.abi import EVENT_NO_AFFINITY, FLOW_AFFINITY, FLOWS_ALONE, FULL, RULE_AFFINITY, TAKEN

_WRAP: Final = 0xFFFF_FFFF


class Choice(NamedTuple):
    """What the flow table says of a client and a service."""

    key: bytes
    entry: int
    """Index of the entry; -1: there is none."""
    lock: int
    pick: Pick | None
    """None: what it says holds no more."""


def recall(client: bytes, service: ServiceEntry, tables: Tables) -> Choice | None:
    """The choice of this client (4 or 16 bytes); None: the service keeps none."""
    if not service.service.affinity:
        return None
    key = flow_key(client, service.number, service.service.vip, 0, 0)
    index = tables.flows.find(key)
    if index < 0:
        return Choice(key, -1, 0, None)
    entry = tables.flows.read(index)
    silent, pick = tables.now - entry.last_seen & _WRAP, None
    if silent <= service.service.affinity and entry.backend in service.ring.members:
        pick = Pick(RULE_AFFINITY, silent, index, len(service.ring.members), entry.backend)
    return Choice(key, index, entry.lock, pick)


def remember(choice: Choice, backend: int, service: int, tables: Tables) -> bool:
    """Note that the client has a new flow to this backend. False: another thread chose meanwhile."""
    flows, now = tables.flows, tables.now
    if choice.entry >= 0:
        return flows.renew(choice.entry, choice.lock, backend, now) or choice.pick is not None
    index = FULL
    if flows.used < flows.capacity - flows.capacity // FLOWS_ALONE:
        index = flows.insert(choice.key, FLOW_AFFINITY, service, backend, 0, now)
    if index == FULL:
        tables.events[EVENT_NO_AFFINITY] += 1
    return index != TAKEN
