"""Fragments follow the first one of their datagram, which alone has ports: RFC 791, 3.2; RFC 8200, 4.5.

Where the first fragment goes its flow says; the others of the datagram go
there too. Those that come before it wait, for 5 s at most, which is well below
the 15 to 120 s that a receiver waits (RFC 1122, section 3.3.2). What waits has no verdict yet:
steer() says WAITS, and the frame is counted once, when it goes on with the
first fragment or is dropped.

The store is bounded in datagrams and in bytes of memory, of all that it keeps: when it is full the oldest
datagram gives way, as one that comes whole stays for a moment only. Nothing is reassembled. A
fragment that overlaps another ends its datagram (RFC 5722; RFC 1858 for why),
and so does one past the end or of an odd length. One that comes a second time, with the same start and
end, is dropped by itself (RFC 8200, section 4.5): which of the two was meant does not matter, as one arrives.

Lives here: the store and what it decides. Must not live here: how a flow is
found (steer.py), what changes in a frame (rewrite.py).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from l4raw.core import rewrite
from l4raw.core.decision import WAITS, Decision, Released
from l4raw.core.mtu import fit
from l4raw.core.path_mtu import limit
from l4raw.core.tables import Tables
from l4raw.core.tunnel import through
from l4raw.core.waiting import DATAGRAM_COST, FRAME_COST, PART_COST, Datagram, Fit, Key
from l4raw.wire import ipv4, ipv6
from l4raw.wire.abi import (
    DROP_FRAGMENT,
    DROP_FRAGMENT_OVERLAP,
    DROP_FRAGMENT_TWICE,
    DROP_FRAGMENTS_FULL,
    DROP_PROTOCOL,
    DROP_TTL,
    SENT,
    Verdict,
)
from l4raw.wire.headers import Frame, Headers, first_fragment

_WRAP: Final = 0xFFFF_FFFF
_MOST: Final = 0xFFFF
"""Bytes of a datagram."""
_U16: Final = Struct("!H")
_V6_PLACE: Final = Struct("!2xHI")
"""Of a fragment header: offset and flags, identification."""
TIMEOUT_MS: Final = 5_000
MOST_DATAGRAMS: Final = 1024
MOST_BYTES: Final = 4 << 20
"""Of memory, not of frames: see waiting.py."""
_FOLLOWED: Final = ("eth.", "ip.")
"""Edits that say what is to be done with fragments without ports."""

Steer = Callable[[bytes | Frame, Headers, int, bool, Tables], Decision]


class Piece(NamedTuple):
    """Which part of which datagram a fragment is."""

    key: Key
    start: int
    end: int
    more: bool


def follow(frame: bytes | Frame, headers: Headers, arm: int, steer: Steer, tables: Tables) -> Decision:
    """What becomes of a fragment that came in on `arm`; `steer` decides about one that has ports."""
    expire(tables)
    piece = _piece(frame, headers, arm)
    if piece is None:
        return Decision(DROP_FRAGMENT_OVERLAP, headers)
    datagram = _datagram(piece.key, tables)
    fit = datagram.add(piece.start, piece.end, piece.more)
    if fit is Fit.TWICE:
        return Decision(DROP_FRAGMENT_TWICE, headers)
    if fit is Fit.NOT:
        _drop_waiting(datagram, DROP_FRAGMENT_OVERLAP, tables)
        _recount(datagram, DATAGRAM_COST, tables)
        return Decision(DROP_FRAGMENT_OVERLAP, headers)
    waits = piece.start != 0 and datagram.first is None
    cost = PART_COST + (FRAME_COST + len(frame) if waits else 0)
    if not _has_room(piece.key, cost, tables):
        return Decision(DROP_FRAGMENTS_FULL, headers)
    _recount(datagram, datagram.bytes + cost, tables)
    if waits:
        datagram.waiting.append((bytearray(frame), headers, arm))
        return Decision(WAITS, headers)
    if piece.start:
        assert datagram.first is not None
        decision = _like(datagram.first, frame, headers, datagram.ident)
    else:
        decision = _first(frame, headers, arm, steer, datagram, tables)
    if datagram.complete:
        _forget(piece.key, tables)
    return decision


def expire(tables: Tables) -> None:
    """Drop what has waited for too long. The oldest come first."""
    while tables.fragments:
        key, datagram = next(iter(tables.fragments.items()))
        if tables.now - datagram.born & _WRAP <= TIMEOUT_MS:
            return
        _drop_waiting(datagram, DROP_FRAGMENT, tables)
        _forget(key, tables)


def end(tables: Tables) -> None:
    """No frame will come any more: drop what waits."""
    for key, datagram in list(tables.fragments.items()):
        _drop_waiting(datagram, DROP_FRAGMENT, tables)
        _forget(key, tables)


def _piece(frame: bytes | Frame, headers: Headers, arm: int) -> Piece | None:
    """None: it fits into no datagram."""
    end = headers.ip + headers.length
    size = end - headers.body
    ident: int
    if len(headers.src) == 4:
        (ident,) = _U16.unpack_from(frame, headers.ip + ipv4.ID)
        (place,) = _U16.unpack_from(frame, headers.ip + ipv4.FRAGMENT)
        start, more = (place & ipv4.OFFSET) * ipv4.FRAGMENT_UNIT, place & ipv4.MORE_FRAGMENTS != 0
    else:
        place, ident = _V6_PLACE.unpack_from(frame, headers.body - ipv6.EXTENSION_LENGTH)
        start, more = place & ipv6.OFFSET, place & ipv6.MORE_FRAGMENTS != 0
    if not size or (more and size % ipv4.FRAGMENT_UNIT) or start + size > _MOST:
        return None
    # IPv6 does not count the protocol (RFC 8200, section 4.5), and it is the same in all of them.
    key = headers.src, headers.dst, headers.protocol, ident, arm
    return Piece(key, start, start + size, more)


def _datagram(key: Key, tables: Tables) -> Datagram:
    known = tables.fragments.get(key)
    if known is None:
        while len(tables.fragments) >= MOST_DATAGRAMS or tables.fragment_bytes + DATAGRAM_COST > MOST_BYTES:
            _evict(tables)
        known = tables.fragments[key] = Datagram(tables.now)
        tables.fragment_bytes += known.bytes
    return known


def _has_room(key: Key, cost: int, tables: Tables) -> bool:
    """Whether this datagram is still there when the oldest have given way to so many bytes more."""
    while key in tables.fragments and tables.fragment_bytes + cost > MOST_BYTES:
        _evict(tables)
    return key in tables.fragments


def _evict(tables: Tables) -> None:
    """The oldest gives way."""
    key, datagram = next(iter(tables.fragments.items()))
    _drop_waiting(datagram, DROP_FRAGMENTS_FULL, tables)
    _forget(key, tables)


def _forget(key: Key, tables: Tables) -> None:
    _recount(tables.fragments.pop(key), 0, tables)


def _drop_waiting(datagram: Datagram, verdict: Verdict, tables: Tables) -> None:
    """Each gets the one verdict that it has."""
    tables.verdicts[verdict] += len(datagram.waiting)
    datagram.waiting = []


def _recount(datagram: Datagram, now: int, tables: Tables) -> None:
    """Its bytes are so many now."""
    tables.fragment_bytes += now - datagram.bytes
    datagram.bytes = now


def _first(
    frame: bytes | Frame, headers: Headers, arm: int, steer: Steer, datagram: Datagram, tables: Tables
) -> Decision:
    """The one with the ports: as its flow says; and what waited for it goes with it."""
    found = first_fragment(frame, headers)
    if isinstance(found, int):
        decision = Decision(found, headers)
    elif not found.l4:
        decision = Decision(DROP_PROTOCOL, headers)
    else:
        decision = steer(frame, found, arm, False, tables)
    if decision.verdict < SENT and any(name == "ip.src" for name, *_ in decision.edits):
        # Ids are unique for a sender's address (RFC 6864), and several senders get this one.
        tables.idents += 1
        datagram.ident = tables.idents
        decision = decision._replace(edits=rewrite.identified(frame, headers, decision.edits, datagram.ident))
    datagram.first = _to_keep(decision)
    waiting, datagram.waiting = datagram.waiting, []
    gone = sum(FRAME_COST + len(other) for other, _, _ in waiting)
    _recount(datagram, datagram.bytes - gone, tables)
    released = []
    for other, its, its_arm in waiting:
        each = _like(decision, other, its, datagram.ident)
        if each.backend and each.backend.source:
            each = through(other, each, False, 0, tables)
        if each.verdict < SENT and its.length + len(each.outer) > limit(each, tables):
            each = fit(other, each, its_arm, False, 0, tables)
        released.append(Released(other, each))
    return decision._replace(released=tuple(released))


def _to_keep(first: Decision) -> Decision:
    """What _like() reads of a decision, and no more."""
    edits = tuple(each for each in first.edits if each[0].startswith(_FOLLOWED))
    return Decision(first.verdict, None, first.service, first.backend, first.flow, None, edits, first.arm)


def _like(first: Decision, frame: bytes | Frame, headers: Headers, ident: int) -> Decision:
    """As the first fragment of the datagram, but for what a fragment has of its own."""
    same = Decision(first.verdict, headers, first.service, first.backend, first.flow, arm=first.arm)
    if first.verdict >= SENT:
        return same._replace(arm=0)
    if headers.ttl <= 1 and any(name == "ip.ttl" for name, *_ in first.edits):
        return same._replace(verdict=DROP_TTL, arm=0)
    edits = rewrite.follow(headers, first.edits)
    return same._replace(edits=rewrite.identified(frame, headers, edits, ident) if ident else edits)
