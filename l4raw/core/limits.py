"""Limits: how many flows a service and a client may have, and how many new ones a second.

Only a new flow is looked at, and it passes all limits or is counted by none.
The layouts are `struct l4_usage` and `struct l4_clients` of
native/include/l4raw_abi.h, so that C counts in the same memory.

New flows are measured by a leaking bucket: each adds 1000 to its level, N
leak away each millisecond, and 1000 N is the brim. So N new flows a second
pass, and as many at once after a silent second. Zero bytes are an empty one.

Clients are many, and their table is not. A client's place is one of a few in
the bucket of its hash, and is known there by 32 bits of that. A place of a
client without flows and with a second of silence says nothing, and is the
next one's. Is there none, the client is not counted, and its limits do not
hold for it: a flood of addresses never shuts out an honest client.

Queues read the clock before they count, so one may find the stamp of another
that has read it a tick later. A level's stamp that is up to 10 s ahead is
taken for the present, and not for one of 49 days ago: else each tick of the
clock could empty a level.
"""

from __future__ import annotations

from dataclasses import replace
from mmap import mmap
from struct import Struct
from typing import Final, NamedTuple

from l4raw.core.hashing import KEY, HashKey, flow_hash, mapped, scale
from l4raw.core.model import Limits
from l4raw.wire.abi import (
    CLIENT_PLACES,
    DROP_CLIENT_FLOWS,
    DROP_CLIENT_RATE,
    DROP_SERVICE_FLOWS,
    DROP_SERVICE_RATE,
    FORWARD,
    SERVICES,
    Verdict,
)

USAGE: Final = Struct("=IIII")
"""Level, ms of it, flows, and how many of those are counted for their client too."""
CLIENT: Final = Struct("=IIII")
"""Tag (0: nobody), flows, ms of the level, level."""
CLIENTS_SIZE: Final = 16 + CLIENT_PLACES * CLIENT.size
"""Bytes of a bucket: its lock comes first."""
BUCKETS: Final = 64
"""Of a table that nobody has said more about."""

_FLOW: Final = 1000
_SECOND: Final = 1000
_AHEAD: Final = 10_000
_WRAP: Final = 0xFFFF_FFFF


class _Place(NamedTuple):
    """Where a client is counted; 0: it is not."""

    offset: int
    tag: int
    is_new: bool


class Counts:
    """Current flows and levels, of services and of clients, in flat buffers."""

    def __init__(
        self, key: HashKey, usage: bytearray | mmap, clients: bytearray | mmap, buckets: int
    ) -> None:
        self.usage, self.clients = usage, clients
        self._key, self._buckets = key, buckets

    def take(self, service: int, limits: Limits, address: bytes, now: int) -> Verdict:
        """Count a new flow of this client (4 or 16 bytes). FORWARD, or the verdict that refuses it.

        `service` is its number, `now` in ms modulo 2^32.
        """
        return self._take(service, limits, address, now, 1)

    def ask(self, service: int, limits: Limits, address: bytes, now: int) -> Verdict:
        """The same of a flow that is counted already: it is asked for the rates alone, and fills them."""
        return self._take(service, replace(limits, flows=0, client_flows=0), address, now, 0)

    def _take(self, service: int, limits: Limits, address: bytes, now: int, more: int) -> Verdict:
        usage = service * USAGE.size
        level, stamp, flows, tracked = USAGE.unpack_from(self.usage, usage)
        place, client_level, client_flows, client_now = None, 0, 0, now
        if limits.client_flows or limits.client_new_per_s:
            place = self._place(service, address, now)
        if place:
            if not place.is_new:
                _, client_flows, since, old = CLIENT.unpack_from(self.clients, place.offset)
                client_now = on_time(now, since, old)
                client_level = leaked(old, limits.client_new_per_s, client_now - since & _WRAP)
            if limits.client_flows and client_flows >= limits.client_flows:
                return DROP_CLIENT_FLOWS
            if over(client_level, limits.client_new_per_s):
                return DROP_CLIENT_RATE
        if limits.flows and flows >= limits.flows:
            return DROP_SERVICE_FLOWS
        if limits.new_per_s:
            service_now = on_time(now, stamp, level)
            level = leaked(level, limits.new_per_s, service_now - stamp & _WRAP)
            if over(level, limits.new_per_s):
                return DROP_SERVICE_RATE
            level, stamp = level + _FLOW, service_now
        if place:
            client_level = client_level + _FLOW if limits.client_new_per_s else 0
            values = place.tag, client_flows + more, client_now, client_level
            CLIENT.pack_into(self.clients, place.offset, *values)
            tracked += more
        USAGE.pack_into(self.usage, usage, level, stamp, flows + more, tracked)
        return FORWARD

    def end(self, service: int, address: bytes) -> None:
        """A flow that was counted is gone, or did not come about."""
        usage = service * USAGE.size
        level, stamp, flows, tracked = USAGE.unpack_from(self.usage, usage)
        if tracked:
            start, tag = self._bucket(service, address)
            for offset in range(start, start + CLIENT_PLACES * CLIENT.size, CLIENT.size):
                found, current, since, old = CLIENT.unpack_from(self.clients, offset)
                if found == tag and current:
                    CLIENT.pack_into(self.clients, offset, tag, current - 1, since, old)
                    tracked -= 1
        USAGE.pack_into(self.usage, usage, level, stamp, flows - 1 & _WRAP, tracked)

    def flows(self, service: int) -> int:
        """Current flows of a service."""
        return int(USAGE.unpack_from(self.usage, service * USAGE.size)[2])

    def _bucket(self, service: int, address: bytes) -> tuple[int, int]:
        """Offset of the first place of a client's bucket, and its tag."""
        both = mapped(address)
        value = flow_hash(self._key, KEY.pack(both, both, 0, service, 0))
        return scale(value >> 32, self._buckets) * CLIENTS_SIZE + 16, value & _WRAP or 1

    def _place(self, service: int, address: bytes, now: int) -> _Place | None:
        """The client's own place; else the first that says nothing; None: there is none."""
        start, tag = self._bucket(service, address)
        unused = -1
        for offset in range(start, start + CLIENT_PLACES * CLIENT.size, CLIENT.size):
            found, flows, since, level = CLIENT.unpack_from(self.clients, offset)
            if found == tag:
                return _Place(offset, tag, False)
            silent = on_time(now, since, level) - since & _WRAP
            if unused < 0 and (not found or (not flows and silent >= _SECOND)):
                unused = offset
        return _Place(unused, tag, True) if unused >= 0 else None


def on_time(now: int, stamp: int, level: int) -> int:
    """The time of who counts at `now`, in ms modulo 2^32, which the stamp of a level may be ahead of."""
    return stamp if level and stamp - now & _WRAP < _AHEAD else now


def leaked(level: int, rate: int, silent: int) -> int:
    """What is left of a level after `silent` ms, when `rate` leak away each of them."""
    return max(0, level - rate * min(silent, _SECOND))


def over(level: int, rate: int) -> bool:
    """Whether a further flow would pass the brim; a rate of 0 has none."""
    return rate != 0 and level + _FLOW > rate * _SECOND


def private(key: HashKey, buckets: int = BUCKETS) -> Counts:
    """Counts in memory that nobody shares."""
    return Counts(key, bytearray(SERVICES * USAGE.size), bytearray(buckets * CLIENTS_SIZE), buckets)
