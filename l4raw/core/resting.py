"""A port of a SNAT pool rests before it is used again.

The backend may still have the old connection, in TIME-WAIT (RFC 9293, section
3.6.1) or because the client's last segments were lost. So when a fullnat
flow ends, the entry of its replies stays for REST_MS, without a peer and in a
state of its own: its key is present, so the port is passed over. What
arrives for it belongs to no flow.

A port at rest is worth less than a new flow: where the flow table is full,
the oldest of them give way first.
"""

from __future__ import annotations

from typing import Final

from l4raw.core.entry import Entry
from l4raw.core.tables import Tables
from l4raw.wire.abi import FLOW_RESTING

REST_MS: Final = 30_000
"""Half of Linux's TIME-WAIT (TCP_TIMEWAIT_LEN), whose connection takes a SYN that is newer before that."""
_WRAP: Final = 0xFFFF_FFFF


def end(tables: Tables, index: int, entry: Entry) -> bool:
    """Free a flow by one of its entries, and let its port rest. False: that was another flow's by now."""
    service = tables.policy.by_number[entry.service]
    assert service is not None, "an entry names a service of the policy"
    reply_key = b""
    if service.pool and entry.peer:
        reply_key = tables.flows.key(index if entry.next_hop else entry.peer - 1)
    if not tables.free(index, entry.lock):
        return False
    if reply_key:
        _rest(tables, reply_key, entry.service, entry.backend)
    return True


def _rest(tables: Tables, reply_key: bytes, service: int, backend: int) -> None:
    """If there is room for that."""
    flows = tables.flows
    index = flows.insert(reply_key, FLOW_RESTING, service, backend, 0, tables.now)
    if index >= 0:
        tables.ports.add(index, flows.read(index).lock)
        flows.note_resting(len(tables.ports))
    else:
        _is_free(tables, backend)


def wake(tables: Tables, budget: int) -> None:
    """Free the ports that have rested long enough, `budget` of them at most."""
    flows, ports = tables.flows, tables.ports
    for _ in range(min(budget, len(ports))):
        index, lock = ports.oldest()
        entry = flows.read(index)
        if entry.lock == lock and tables.now - entry.last_seen & _WRAP < REST_MS:
            return
        _free_oldest(tables)


def make_room(tables: Tables, entries: int) -> bool:
    """Whether there is room for so many entries more, now that ports at rest have given way."""
    flows = tables.flows
    while flows.used + entries > flows.capacity and len(tables.ports):
        _free_oldest(tables)
    return flows.used + entries <= flows.capacity


def _free_oldest(tables: Tables) -> None:
    flows, ports = tables.flows, tables.ports
    index, lock = ports.take_oldest()
    flows.note_resting(len(ports))
    entry = flows.read(index)
    if tables.free(index, lock):  # else it has gone before
        _is_free(tables, entry.backend)


def _is_free(tables: Tables, backend: int) -> None:
    entry = tables.policy.backends[backend]
    if entry is not None:
        tables.ports.freed(entry.backend.address)
