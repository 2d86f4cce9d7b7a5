"""What one direction of a flow was last seen doing, and when that grows old.

The balancer is no endpoint: under DSR it sees the client's half only. So
this is not the state machine of RFC 9293, section 3.3.2, but the part of it
that an onlooker can tell, and its one use is to select a timeout.
"""

from __future__ import annotations

from typing import Final

from l4raw.core.tables import Tables
from l4raw.wire import ipv4, tcp
from l4raw.wire.abi import FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_FREE, FLOW_STATES, FLOW_SYN, FLOW_UDP
from l4raw.wire.headers import Headers

_WRAP: Final = 0xFFFF_FFFF


def seen(headers: Headers) -> int:
    """What this frame by itself says."""
    return _of_flags(headers.flags) if headers.protocol == ipv4.TCP else FLOW_UDP


def _of_flags(flags: int) -> int:
    if flags & (tcp.FIN | tcp.RST):
        return FLOW_CLOSING
    return FLOW_SYN if flags & tcp.SYN else FLOW_ESTABLISHED


def after(state: int, now_seen: int) -> int:
    """The state that follows `state` when a frame says `now_seen`.

    Closing ends only with a new SYN: the last ACK of a closed connection
    does not open it again. A SYN inside an established flow is not believed,
    since anyone can send one.
    """
    if now_seen == FLOW_ESTABLISHED and state == FLOW_CLOSING:
        return FLOW_CLOSING
    if now_seen == FLOW_SYN and state == FLOW_ESTABLISHED:
        return FLOW_ESTABLISHED
    return now_seen


FIN_SYN_RST: Final = tcp.FIN | tcp.SYN | tcp.RST
NEXT_STATE: Final = tuple(
    tuple(
        FLOW_UDP if state == FLOW_UDP else after(state, _of_flags(flags)) for flags in range(FIN_SYN_RST + 1)
    )
    for state in range(FLOW_STATES)
)
"""after() as a table, by state and the three flags that matter: one look-up instead of two calls a frame."""


def expire(tables: Tables, budget: int) -> int:
    """Look at the next `budget` entries and free the flows that were silent too long; returns how many flows.

    Called often with a small budget, so that no pause grows with the table.
    """
    flows = tables.flows
    freed = 0
    for index in flows.sweep(budget):
        entry = flows.read(index)
        if entry.state == FLOW_FREE:
            continue  # freed a moment ago, with its peer
        state, last_seen = entry.state, entry.last_seen
        if entry.peer:
            peer = flows.read(entry.peer - 1)
            state = max(state, peer.state)
            # The later of the two, as the clock wraps.
            if (peer.last_seen - last_seen) & _WRAP < 1 << 31:
                last_seen = peer.last_seen
        service = tables.policy.by_index[entry.service]
        assert service is not None, "an entry names a service of the policy"
        if (tables.now - last_seen) & _WRAP > service.timeouts[state]:
            _free(tables, index)
            freed += 1
    return freed


def _free(tables: Tables, index: int) -> None:
    flows = tables.flows
    entry = flows.read(index)
    for each in (index, entry.peer - 1) if entry.peer else (index,):
        hop = flows.read(each).next_hop
        if hop:
            tables.next_hops.release(hop)
        flows.delete(each)
