"""What one direction of a flow was last seen doing, and when that grows old.

The balancer is no endpoint: under DSR it sees the client's half only. So
this is not the state machine of RFC 9293, section 3.3.2, but the part of it
that an onlooker can tell, and its one use is to select a timeout.
"""

from __future__ import annotations

from typing import Final

from l4raw.core.flows import Entry
from l4raw.core.resting import rest, wake
from l4raw.core.tables import Tables
from l4raw.wire import ipv4, tcp
from l4raw.wire.abi import (
    FLOW_AFFINITY,
    FLOW_CLOSING,
    FLOW_ESTABLISHED,
    FLOW_FREE,
    FLOW_HALF_OPEN,
    FLOW_RESTING,
    FLOW_STATES,
    FLOW_UDP,
)

_WRAP: Final = 0xFFFF_FFFF

FIN_SYN_RST: Final = tcp.FIN | tcp.SYN | tcp.RST
"""The flags that change a state."""


def first(protocol: int) -> int:
    """The state of a new entry, whatever its first segment says: one alone proves nothing."""
    return FLOW_HALF_OPEN if protocol == ipv4.TCP else FLOW_UDP


def after(state: int, flags: int) -> int:
    """The state that follows `state` when a further segment with these TCP flags is seen.

    Closing ends only with a new SYN: the last ACK of a closed connection
    does not open it again. A SYN inside an established flow is not believed,
    since anyone can send one. A FIN or RST is, whatever its sequence number:
    what it costs at most is a shorter timeout.
    """
    if state == FLOW_UDP:
        return FLOW_UDP
    if flags & (tcp.FIN | tcp.RST):
        return FLOW_CLOSING
    if flags & tcp.SYN:
        return FLOW_ESTABLISHED if state == FLOW_ESTABLISHED else FLOW_HALF_OPEN
    return FLOW_CLOSING if state == FLOW_CLOSING else FLOW_ESTABLISHED


NEXT_STATE: Final = tuple(
    tuple(after(state, flags) for flags in range(FIN_SYN_RST + 1)) for state in range(FLOW_STATES)
)
"""after() as a table: a look-up instead of a call for each frame."""


def expire(tables: Tables, budget: int) -> int:
    """Look at the next `budget` entries and free the flows that were silent too long; returns how many flows.

    Ports that have rested long enough are free again, as many at most. Called often with a small
    budget, so that no pause grows with the table.
    """
    flows = tables.flows
    freed = 0
    for index in flows.sweep(budget):
        entry = flows.read(index)
        if entry.state in (FLOW_FREE, FLOW_RESTING):
            continue  # freed a moment ago, with its peer; or wake() frees it
        state, silent = entry.state, tables.now - entry.last_seen & _WRAP
        if entry.peer:
            peer = flows.read(entry.peer - 1)
            state = max(state, peer.state)
            silent = min(silent, tables.now - peer.last_seen & _WRAP)
        service = tables.policy.by_number[entry.service]
        assert service is not None, "an entry names a service of the policy"
        if silent > service.timeouts[state]:
            replies = _reply_key(tables, index, entry) if service.pool and entry.peer else b""
            if tables.free(index, entry.lock):
                freed += entry.state != FLOW_AFFINITY
                if replies:
                    rest(tables, replies, entry.service, entry.backend)
    wake(tables, budget)
    return freed


def _reply_key(tables: Tables, index: int, entry: Entry) -> bytes:
    """The key of the direction to the client, which has a next hop."""
    return tables.flows.key(index if entry.next_hop else entry.peer - 1)
