"""What one direction of a flow was last seen doing, and when that grows old.

The balancer is no endpoint. So this is not the state machine of RFC 9293,
section 3.3.2, but the part of it that an onlooker can tell, and its uses are
to select a timeout, and to tell flows that have proved nothing from others.

    from where      half-open until               closing from
    -----------     --------------------------    --------------------------
    DSR             the client's second segment   the client's FIN or RST,
    (one side)      without SYN, FIN and RST;     whatever its sequence
                    its second datagram           number
    NAT             the client acknowledges the   either side's, if its
    (both sides)    backend's SYN; a datagram is  sequence number is plausible
                    answered, and, where half of
                    the table is in use, the
                    client sends another one
                    STREAM_MS later

Under NAT each direction has a state, and the one that is further on sets the
timeout. Nobody else than the client makes a TCP flow an established one: who
invents a source address does not see the answer to his SYN, and cannot
acknowledge it. A datagram proves nothing, and its answer neither: an invented
question is answered as well as another, and many servers repeat an answer. So
an answer suffices only while less than half of the table is in use. Beyond that
a stream does, of the client: who invents one must keep it up for STREAM_MS,
while the share of half-open flows turns over. A FIN ends its own direction; the
other may go on for long (RFC 9293, section 3.6). A RST ends both, if its number is
what the other side has acknowledged, no more and no less (RFC 5961, section
3.2): one whose sender had more on its way ends its own direction. So with two
arms, where nobody on the clients' side can speak for a backend, whoever guesses
must guess a number of 32 bits to end a flow whose addresses and ports he knows;
to shorten its timeout, one of ten. With one arm who can send as both ends it:
what one has acknowledged is taken from any segment of it.

Under DSR that answer passes elsewhere. So a second segment is believed, and
who invents addresses gets an established flow for two of them; and so is a
FIN or RST. That costs timeouts: an established flow never gets into the
half-open share again, and a SYN on a closing one goes on to the same backend.
Where no hash finds that backend, a flow that is then silent for longer than the
timeout is lost.
"""

from __future__ import annotations

from typing import Final

from l4raw.core.entry import HALF_OPEN, Entry
from l4raw.core.resting import end, wake
from l4raw.core.tables import Tables
from l4raw.core.timeouts import elapsed
from l4raw.wire import ipv4, tcp
from l4raw.wire.abi import (
    END_WINDOW,
    FLOW_AFFINITY,
    FLOW_CLOSING,
    FLOW_ESTABLISHED,
    FLOW_FREE,
    FLOW_HALF_OPEN,
    FLOW_RESTING,
    FLOW_STATES,
    FLOW_UDP,
    FLOW_UDP_NEW,
    OPEN_WINDOW,
    STREAM_MS,
)
from l4raw.wire.headers import Headers

_WRAP: Final = 0xFFFF_FFFF
_END: Final = tcp.FIN | tcp.RST

FIN_SYN_RST: Final = tcp.FIN | tcp.SYN | tcp.RST
"""The flags that change a state."""


def first(protocol: int) -> int:
    """The state of a new entry, whatever its first segment says: one alone proves nothing."""
    return FLOW_HALF_OPEN if protocol == ipv4.TCP else FLOW_UDP_NEW


def after(state: int, flags: int) -> int:
    """The state that follows `state` when a further segment with these TCP flags is seen.

    A half-open flow that ends was never open: its timeout is a short one
    already, and a place among the others must not be had for a SYN and a RST.
    Nothing ends closing, not the last ACK of a connection either, but a new
    SYN: see reuse.py. A SYN inside an established flow is not believed, since
    anyone can send one.
    """
    if state in (FLOW_ESTABLISHED, FLOW_CLOSING):
        return FLOW_CLOSING if flags & _END else state
    if state == FLOW_HALF_OPEN:
        return FLOW_HALF_OPEN if flags & FIN_SYN_RST else FLOW_ESTABLISHED
    return FLOW_UDP


NEXT_STATE: Final = tuple(
    tuple(after(state, flags) for flags in range(FIN_SYN_RST + 1)) for state in range(FLOW_STATES)
)
"""after() as a table: a look-up instead of a call for each frame."""


def is_half_open(state: int) -> bool:
    """Whether a flow whose client is in this state has proved nothing yet."""
    return state in HALF_OPEN


def note(tables: Tables, flow: int, entry: Entry, headers: Headers, first: bool = False) -> None:
    """Note a frame of the entry's direction; what it acknowledges too, if both sides are seen.

    The first one of a flow has made its state; each further one moves it on.
    """
    state, sequence, packets = entry.state, entry.sequence, entry.packets + 1
    of_peer = FLOW_FREE
    if not first:
        if entry.peer and headers.protocol == ipv4.TCP:
            state, sequence, of_peer = _of_two(tables, entry, headers)
        elif entry.peer:
            state, sequence, of_peer = _of_datagram(tables, entry)
        elif state == FLOW_CLOSING and headers.flags & (FIN_SYN_RST | tcp.ACK) == tcp.SYN:
            state = FLOW_ESTABLISHED  # see reuse.py
        else:
            state = NEXT_STATE[state][headers.flags & FIN_SYN_RST]
            sequence = 0
    tables.flows.touch(flow, entry, state, tables.now, packets, sequence)
    if of_peer:
        _tell(tables, entry.peer - 1, of_peer, headers)


def _tell(tables: Tables, flow: int, state: int, headers: Headers) -> None:
    """Move the other direction's entry to a state, if it is in the one before it.

    The backend's to ESTABLISHED: the SYN that the client's segment acknowledges has itself acknowledged what
    comes before this segment. From there on a RST of the client can be told from an invented one.
    """
    entry = tables.flows.read(flow)
    before, sequence = FLOW_ESTABLISHED, entry.sequence
    if state == FLOW_UDP:
        before, sequence = FLOW_UDP_NEW, 0
    elif state == FLOW_ESTABLISHED:
        before, sequence = FLOW_HALF_OPEN if entry.next_hop else FLOW_CLOSING, headers.sequence
    if entry.state == before:
        tables.flows.touch(flow, entry, state, entry.last_seen, entry.packets, sequence)


def _of_datagram(tables: Tables, entry: Entry) -> tuple[int, int, int]:
    """As _of_two(), for UDP. The sequence of the backend's entry is when it first answered, in ms."""
    flows, peer = tables.flows, tables.flows.read(entry.peer - 1)
    if entry.next_hop:
        answered = entry.sequence if entry.state == FLOW_UDP else tables.now
        suffices = peer.state == FLOW_UDP_NEW and flows.is_half_empty
        return FLOW_UDP, answered, FLOW_UDP if suffices else FLOW_FREE
    if entry.state == FLOW_UDP_NEW and (
        peer.state != FLOW_UDP or elapsed(tables.now, peer.sequence) < STREAM_MS
    ):
        return FLOW_UDP_NEW, entry.sequence, FLOW_FREE
    return FLOW_UDP, 0, FLOW_FREE


def _of_two(tables: Tables, entry: Entry, headers: Headers) -> tuple[int, int, int]:
    """State and sequence that follow for a direction of a TCP flow both of whose sides are seen.

    And the state that follows for the other direction; FLOW_FREE: as it is.

    Of the backend's SYN, what acknowledges it is kept, for the client's first; later, what was
    acknowledged last, for FIN and RST of the other side.
    """
    state, flags, of_peer = entry.state, headers.flags, FLOW_FREE
    if state == FLOW_HALF_OPEN:
        peer = tables.flows.read(entry.peer - 1)
        if not entry.next_hop:
            if not _acknowledges(headers, peer.sequence):
                return state, entry.sequence, FLOW_FREE
            of_peer = FLOW_ESTABLISHED
        elif is_half_open(peer.state):
            if flags & (FIN_SYN_RST | tcp.ACK) == tcp.SYN | tcp.ACK:
                return state, headers.sequence + 1 & _WRAP or _WRAP, FLOW_FREE
            return state, entry.sequence, FLOW_FREE
        state = FLOW_ESTABLISHED
    sequence = headers.acknowledged if flags & tcp.ACK else entry.sequence
    if flags & (FIN_SYN_RST | tcp.ACK) == tcp.SYN | tcp.ACK and entry.next_hop:
        # The backend knows the connection no more, and has taken a new one of the same client: see reuse.py.
        if FLOW_CLOSING in (state, tables.flows.read(entry.peer - 1).state):
            return FLOW_ESTABLISHED, sequence, FLOW_ESTABLISHED
        return state, entry.sequence, of_peer
    if not flags & _END:
        return state, sequence, of_peer
    expected = tables.flows.read(entry.peer - 1).sequence
    if _is_plausible(headers.sequence, expected):
        is_exact = flags & tcp.RST and headers.sequence == expected
        return FLOW_CLOSING, sequence, FLOW_CLOSING if is_exact else FLOW_FREE
    return entry.state, entry.sequence, FLOW_FREE


def _acknowledges(headers: Headers, expected: int) -> bool:
    """Whether a client's segment acknowledges the backend's SYN, and little more; 0: there was none.

    More, where the first acknowledgement was lost before it came here: OPEN_WINDOW is what a backend
    may have sent by then (RFC 6928: ten segments, however large they are).
    """
    if headers.flags & (FIN_SYN_RST | tcp.ACK) != tcp.ACK or not expected:
        return False
    return headers.acknowledged - expected & _WRAP < OPEN_WINDOW


def _is_plausible(sequence: int, acknowledged: int) -> bool:
    """Whether a FIN or RST with this sequence number may be its sender's: RFC 5961, section 3.2.

    It is if it is what the other side has acknowledged, or at most so much after it as can be on its way:
    END_WINDOW, Linux's default for a socket's send buffer (tcp_wmem). The window itself is not known, as
    its scale is not.
    """
    return sequence - acknowledged & _WRAP < END_WINDOW


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
            freed += end(tables, index, entry) and entry.state != FLOW_AFFINITY
    wake(tables, budget)
    return freed
